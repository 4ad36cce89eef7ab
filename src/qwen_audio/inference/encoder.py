"""LogMel → encoder frames → audio tower → projector. transformers' modules, our order of calls."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.models.qwen2_audio.modeling_qwen2_audio import (
    Qwen2AudioEncoderLayer,
    Qwen2AudioMultiModalProjector,
)

from qwen_audio.audio.log_mel import LogMel
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.packed_attention import ATTENTION, Packing
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["AudioEncoder"]

T = TypeVar("T")


class AudioEncoder:
    """The model's ear, built only as deep as it has been asked to hear.

    Args:
        parts: where modules come from; no weights are read before `forward` needs them.
    """

    def __init__(self, checkpoint: Checkpoint, modules: ModuleStore) -> None:
        self._checkpoint, self._modules = checkpoint, modules
        self._config = copy.deepcopy(checkpoint.audio_config)
        self._config._attn_implementation = ATTENTION

    @torch.inference_mode()
    def forward(
        self,
        mels: Sequence[LogMel],
        taps: Iterable[Tap],
        keep: Callable[[Tap, int, Float[Tensor, "_rows _width"]], T],
    ) -> dict[Tap, list[T]]:
        """Read every tap asked for, up to the projector, in one pass over all clips.

        Args:
            keep: what to keep of a tap and a clip (its place), called as soon as its rows are
                there: (mel frames, bins) at `mel`, (encoder frames, width) at `encoder.k`, (audio
                tokens, width) at `audio_tower` and `projector`.

        Returns:
            For each tap what was kept of every clip.
        """
        wanted = set(taps)
        read: dict[Tap, list[T]] = {}

        def kept(tap: Tap, rows: Iterable[Tensor]) -> None:
            if tap in wanted:
                read[tap] = [keep(tap, place, part) for place, part in enumerate(rows)]

        kept(
            Tap(Stage.MEL),
            (torch.from_numpy(mel.input_features[:, : mel.valid_frames].T) for mel in mels),
        )
        deepest = max(wanted, default=Tap(Stage.MEL))
        if deepest.stage is Stage.MEL:
            return read

        lengths = tuple(mel.encoder_frames for mel in mels)
        packing = Packing(lengths)
        hidden_states = torch.cat([self._stem(mel) for mel in mels])
        depth = self._config.encoder_layers
        if deepest.stage is Stage.ENCODER:
            depth = deepest.level or 0
        kept(Tap(Stage.ENCODER, 0), hidden_states.split(lengths))
        layers = self._modules.layers("audio_tower.layers.", depth, self._new_layer)
        for k, layer in enumerate(layers, start=1):
            hidden_states = layer(hidden_states[None], attention_mask=None, packing=packing)[0]
            kept(Tap(Stage.ENCODER, k), hidden_states.split(lengths))
        if deepest.stage is Stage.ENCODER:
            return read

        tower = [self._pooled(frames) for frames in hidden_states.split(lengths)]
        kept(Tap(Stage.AUDIO_TOWER), tower)
        if Tap(Stage.PROJECTOR) in wanted:
            projector = self._modules.get("multi_modal_projector.", self._new_projector)
            tokens = [len(frames) for frames in tower]
            kept(Tap(Stage.PROJECTOR), projector(torch.cat(tower)).split(tokens))
        return read

    def _stem(self, mel: LogMel) -> Float[Tensor, "rows width"]:
        """Two convolutions and the positions: (bins, mel frames) → (encoder frames, width).

        `mel` holds the frames after the clip that the convolutions reach into; what they make of
        the edge beyond those is cut off.
        """
        config, width = self._config, self._config.d_model
        conv1 = self._modules.get(
            "audio_tower.conv1.",
            lambda: nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1),
        )
        conv2 = self._modules.get(
            "audio_tower.conv2.",
            lambda: nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1),
        )
        positions = self._modules.get(
            "audio_tower.embed_positions.",
            lambda: nn.Embedding(config.max_source_positions, width),
        )
        features = torch.from_numpy(mel.input_features).to(
            self._modules.device, self._modules.dtype
        )
        frames = gelu(conv2(gelu(conv1(features[None]))))[0].T[: mel.encoder_frames]
        return frames + positions.weight[: len(frames)]

    def _pooled(self, frames: Float[Tensor, "rows width"]) -> Float[Tensor, "pooled width"]:
        """Pairs of frames averaged and layer-normed; an odd last frame is heard by its neighbours
        through attention, and has no row of its own."""
        norm = self._modules.get(
            "audio_tower.layer_norm.", lambda: nn.LayerNorm(self._config.d_model)
        )
        pooled = nn.functional.avg_pool1d(frames.T[None], kernel_size=2, stride=2)[0].T
        return norm(pooled)

    def _new_layer(self, _: int) -> nn.Module:
        layer = Qwen2AudioEncoderLayer(self._config)
        if self._config.activation_function == "gelu":
            layer.activation_fn = _GeluInPlace()
        return layer

    def _new_projector(self) -> nn.Module:
        return Qwen2AudioMultiModalProjector(self._checkpoint.config)


class _GeluInPlace(nn.Module):
    """The same numbers as transformers' GELU. What it is given are the widest rows of a layer,
    which nobody looks at again: they need not be in memory twice."""

    def forward(self, rows: Tensor) -> Tensor:
        return torch.ops.aten.gelu_(rows)
