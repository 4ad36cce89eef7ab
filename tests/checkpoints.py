"""Small Qwen2-Audio checkpoints with random weights: written by transformers, read by this package.

The tokenizer, chat template and generation settings are those of the embedded checkpoint; the
dimensions are the caller's. transformers' own initialisation (normal, standard deviation 0.02, zero
biases) makes outputs of narrow models almost constant. Here weights preserve the scale of
activations, and biases and norms are random too, so that a mistake in any of them changes outputs.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

import qwen_audio
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Stage

EMBEDDED = Path(qwen_audio.__file__).parent / "models" / "embedded"
AUDIO_ID = 1096
VOCAB_SIZE = 1104
END_OF_TEXT_ID = 1093

ROW_TIMES = {
    stage: RowTimes.every(seconds)
    for stage, seconds in zip(Stage, (0.01, 0.02, 0.04, 0.04, 0.04, 0.04), strict=True)
}
"""Of Qwen2-Audio."""

_COPIED_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)

_GAINS = {"q_proj": 1.5, "k_proj": 1.5, "conv1": 4.0, "conv2": 3.0}


def random_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    mel_bins: int = 80,
    width: int = 64,
    encoder_layers: int = 3,
    encoder_heads: int = 4,
    lm_width: int = 96,
    lm_layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    vocabulary: int = VOCAB_SIZE,
    shards: int = 3,
) -> Path:
    """Write a float32 checkpoint to `folder`, in at most `shards` weight files.

    The same arguments give the same weights. With one shard there is no index file.
    """
    config = Qwen2AudioConfig(
        audio_config={
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": mel_bins,
            "d_model": width,
            "encoder_layers": encoder_layers,
            "encoder_attention_heads": encoder_heads,
            "encoder_ffn_dim": 4 * width,
            "max_source_positions": 1500,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": lm_width,
            "intermediate_size": 2 * lm_width,
            "num_hidden_layers": lm_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": vocabulary,
            "max_position_embeddings": 4096,
            "bos_token_id": END_OF_TEXT_ID,
            "eos_token_id": END_OF_TEXT_ID,
            "pad_token_id": END_OF_TEXT_ID,
            "tie_word_embeddings": False,
        },
        audio_token_index=AUDIO_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(config).float().eval()
        randomise(model, torch.Generator().manual_seed(seed))

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, max_shard_size=_shard_size(model, shards))
    for name in _COPIED_FILES:
        shutil.copy(EMBEDDED / name, folder / name)
    edit_json(folder / "preprocessor_config.json", feature_size=mel_bins)
    return folder


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Random weights that preserve the scale of activations; norms near 1; biases not negligible.

    Convolutions and positions are larger, so that frames differ over time as much as over
    dimensions; queries and keys too, so that attention is neither uniform nor one-hot.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "embed_tokens" in name or "embed_positions" in name:
            values = noise
        elif parameter.ndim == 1:
            is_scale = "norm" in name and name.endswith("weight")
            values = 1 + 0.2 * noise if is_scale else 0.2 * noise
        else:
            gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
            values = noise * gain / math.sqrt(parameter[0].numel())
        parameter.data.copy_(values)


def changed_checkpoint(
    source: Path,
    folder: Path,
    tensor: str,
    change: Callable[[torch.Tensor], torch.Tensor],
    dtype: torch.dtype | None = None,
) -> Path:
    """A copy of a checkpoint with one tensor changed, stored in another dtype if one is given."""
    shutil.copytree(source, folder)
    for file in folder.glob("*.safetensors"):
        tensors = {
            name: (change(stored) if name == tensor else stored).to(dtype or stored.dtype)
            for name, stored in load_file(file).items()
        }
        save_file(tensors, file, {"format": "pt"})
    return folder


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes a key. Nested keys are written `outer__inner`."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *outer, last = key.split("__")
        target = settings
        for name in outer:
            target = target[name]
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    file.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _shard_size(model: torch.nn.Module, shards: int) -> int:
    """Maximum bytes of a file such that files filled in order number at most `shards`."""
    sizes = [p.numel() * p.element_size() for p in model.parameters()]
    if shards == 1:
        return 2 * sum(sizes)
    return sum(sizes) // shards + max(sizes)
