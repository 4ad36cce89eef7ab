"""Every tensor of a Qwen2-Audio checkpoint: its name, its shape, and the first tap that needs it.

Names are `audio_tower.*`, `multi_modal_projector.*`, `language_model.model.*` and
`language_model.lm_head.*`; `stored_names` finds them in files that have others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn
from transformers import Qwen2AudioConfig
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.module_store import empty_module

__all__ = ["EMBEDDINGS", "LM_HEAD", "OUTLIER_INPUTS", "TensorRequirement", "tensor_requirements"]

EMBEDDINGS = "language_model.model.embed_tokens.weight"
"""The embedding table, (vocabulary, lm width); only the rows of tokens that occur are read."""

LM_HEAD = "language_model.lm_head.weight"
"""From hidden states to a logit for each token, (vocabulary, lm width)."""

OUTLIER_INPUTS = ("language_model.",)
"""The beginning of the names of matrices whose activations have outliers. In language models of
this size a few channels are 10 to 100 times as large as the others: in 8 bits with a scale a row
the others would keep 1 to 4 (https://arxiv.org/abs/2208.07339)."""

Shapes = dict[str, tuple[int, ...]]


class TensorRequirement(NamedTuple):
    """What a tensor is needed for, and its shape.

    Attributes:
        tap: the first tap that needs it, as do all later ones; None for the LM head, which only
            text needs.
        shape: as stored.
        rows_per_second: how many rows per second of audio are multiplied by it: the rate of its
            stage, or 0 for tensors that are only added, scaled by or looked up (biases, norms,
            embeddings). Times the tensor's size, it is multiply-adds per second of audio.
    """

    tap: Tap | None
    shape: tuple[int, ...]
    rows_per_second: float


def tensor_requirements(config: Qwen2AudioConfig) -> Iterator[tuple[str, TensorRequirement]]:
    """Name and requirement of every tensor that a checkpoint with this config must have.

    Shapes inside layers are those of transformers' own modules, built on the meta device.
    """
    audio: Any = config.audio_config
    text: Any = config.text_config
    width, lm_width = audio.d_model, text.hidden_size
    encoder_layer = _shapes(empty_module(lambda: Qwen2AudioEncoderLayer(audio)))
    decoder_layer = _shapes(empty_module(lambda: Qwen2DecoderLayer(text, layer_idx=0)))

    stem: Shapes = {
        "conv1.weight": (width, audio.num_mel_bins, 3),
        "conv1.bias": (width,),
        "conv2.weight": (width, width, 3),
        "conv2.bias": (width,),
        "embed_positions.weight": (audio.max_source_positions, width),
    }
    projector: Shapes = {"linear.weight": (lm_width, width), "linear.bias": (lm_width,)}
    embeddings: Shapes = {"embed_tokens.weight": (text.vocab_size, lm_width)}
    groups: list[tuple[str, Tap | None, Shapes]] = [
        ("audio_tower.", Tap(Stage.ENCODER, 0), stem),
        *(
            (f"audio_tower.layers.{k}.", Tap(Stage.ENCODER, k + 1), encoder_layer)
            for k in range(audio.encoder_layers)
        ),
        (
            "audio_tower.layer_norm.",
            Tap(Stage.AUDIO_TOWER),
            {"weight": (width,), "bias": (width,)},
        ),
        ("multi_modal_projector.", Tap(Stage.PROJECTOR), projector),
        ("language_model.model.", Tap(Stage.LM, 0), embeddings),
        *(
            (f"language_model.model.layers.{k}.", Tap(Stage.LM, k + 1), decoder_layer)
            for k in range(text.num_hidden_layers)
        ),
        ("language_model.model.norm.", Tap(Stage.LM_NORM), {"weight": (lm_width,)}),
        ("language_model.lm_head.", None, {"weight": (text.vocab_size, lm_width)}),
    ]
    for prefix, tap, shapes in groups:
        for name, shape in shapes.items():
            rate = _rows_per_second(prefix + name, shape, tap)
            yield prefix + name, TensorRequirement(tap, shape, rate)


def _rows_per_second(name: str, shape: tuple[int, ...], tap: Tap | None) -> float:
    if len(shape) < 2 or "embed_" in name or tap is None:
        return 0.0
    if name.startswith("audio_tower.conv1."):  # has stride 1, so it runs at the mel rate
        return Tap(Stage.MEL).rate_hz
    return tap.rate_hz


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
