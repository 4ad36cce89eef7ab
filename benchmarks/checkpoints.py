"""Random checkpoints with the 7B's dimensions and shard layout, written tensor by tensor.

The 7B takes 17 GB on disk, so only a slice of one tensor is in memory at a time. Values are slices
of one pool of normally distributed numbers: generating eight billion would take longer than the
benchmarks. They are scaled as in `tests/checkpoints.py`, so that activations keep their size over
32 layers, and attention is neither uniform nor one-hot.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

import qwen_audio

from .benchmark import log_progress

__all__ = ["FULL_ENCODER", "SEVEN_B", "SMALL", "Shape", "audio_tower_bytes", "random_checkpoint"]

EMBEDDED = Path(qwen_audio.__file__).parent / "models" / "embedded"
AUDIO_ID, END_OF_TEXT_ID, EMBEDDED_VOCABULARY = 1096, 1093, 1104
_COPIED = (
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_GAINS = {"q_proj": 1.5, "k_proj": 1.5, "conv1": 4.0, "conv2": 3.0}
_POOL, _SLICE = 16_777_213, 8_000_000
"""Numbers in the pool (a prime, so that rows of a weight don't repeat soon), and in one write."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of a checkpoint, and the largest size of its files."""

    name: str
    mel_bins: int = 128
    width: int = 1280
    encoder_layers: int = 32
    encoder_heads: int = 20
    lm_width: int = 4096
    lm_layers: int = 32
    lm_intermediate: int = 11_008
    heads: int = 32
    vocabulary: int = 156_032
    shard_bytes: int = 4_000_000_000
    """As Qwen2-Audio-7B-Instruct: four files of the model, and a fifth for the LM head."""

    def config(self) -> Qwen2AudioConfig:
        return Qwen2AudioConfig(
            audio_config={
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": self.mel_bins,
                "d_model": self.width,
                "encoder_layers": self.encoder_layers,
                "encoder_attention_heads": self.encoder_heads,
                "encoder_ffn_dim": 4 * self.width,
                "max_source_positions": 1500,
            },
            text_config={
                "model_type": "qwen2",
                "hidden_size": self.lm_width,
                "intermediate_size": self.lm_intermediate,
                "num_hidden_layers": self.lm_layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.heads,
                "vocab_size": self.vocabulary,
                "max_position_embeddings": 8192,
                "bos_token_id": END_OF_TEXT_ID,
                "eos_token_id": END_OF_TEXT_ID,
                "pad_token_id": END_OF_TEXT_ID,
                "tie_word_embeddings": False,
            },
            audio_token_index=AUDIO_ID,
            dtype="bfloat16",
        )


FULL_ENCODER = Shape("full_encoder", lm_layers=2, vocabulary=EMBEDDED_VOCABULARY)
"""The 7B's whole encoder and projector, two decoder layers and a small vocabulary."""

SEVEN_B = Shape("7B")

SMALL = Shape(
    "small",
    mel_bins=80,
    width=64,
    encoder_layers=2,
    encoder_heads=4,
    lm_width=96,
    lm_layers=4,
    lm_intermediate=192,
    heads=4,
    vocabulary=EMBEDDED_VOCABULARY,
    shard_bytes=400_000,
)
"""For dry runs, which show whether the suite works."""


def random_checkpoint(work: Path, shape: Shape) -> Path:
    """Folder of a checkpoint under `work`, written unless a complete one exists.

    Raises:
        OSError: without enough space on the disk.
    """
    folder = work / shape.name
    stamp = folder / "shape.json"  # written last
    shape_json = json.dumps(asdict(shape))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == shape_json:
        return folder
    tensors = dict(_tensors(shape))
    needed_bytes = 2 * sum(math.prod(size) for size in tensors.values())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes + 1_000_000_000:
        raise OSError(
            f"{folder} needs {needed_bytes / 1e9:.1f} GB, but {free_bytes / 1e9:.1f} GB are free: "
            "use --work with a folder on another disk"
        )
    log_progress(f"writing {folder}, {needed_bytes / 1e9:.1f} GB")
    shape.config().save_pretrained(folder)
    for name in _COPIED:
        shutil.copy(EMBEDDED / name, folder / name)
    preprocessor = json.loads((EMBEDDED / "preprocessor_config.json").read_text(encoding="utf-8"))
    preprocessor["feature_size"] = shape.mel_bins
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    _write_shards(folder, tensors, shape.shard_bytes)
    stamp.write_text(shape_json, encoding="utf-8")
    return folder


def audio_tower_bytes(shape: Shape) -> int:
    """Bytes of the tensors that audio_tower needs: those of the encoder."""
    sizes = (size for name, size in _tensors(shape) if name.startswith("audio_tower."))
    return 2 * sum(map(math.prod, sizes))


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensor names as in Qwen2-Audio's files, with their sizes, in the order of the modules."""
    with torch.device("meta"):
        model = Qwen2AudioForConditionalGeneration(shape.config())
    for name, parameter in model.state_dict().items():
        on_disk = name.removeprefix("model.")
        if on_disk.startswith("language_model."):
            on_disk = on_disk.replace("language_model.", "language_model.model.", 1)
        elif on_disk.startswith("lm_head."):
            on_disk = f"language_model.{on_disk}"
        yield on_disk, tuple(parameter.shape)


def _write_shards(folder: Path, tensors: dict[str, tuple[int, ...]], limit: int) -> None:
    """Write shards of at most `limit` bytes, and the index from tensor names to shards."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled_bytes = 0
    for name, size in tensors.items():
        tensor_bytes = 2 * math.prod(size)
        if shards[-1] and filled_bytes + tensor_bytes > limit:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = size
        filled_bytes += tensor_bytes
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(_POOL, generator=generator)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / file, shard, pool, generator)
        weight_map |= dict.fromkeys(shard, file)
    total = 2 * sum(math.prod(size) for size in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_shard(
    path: Path, tensors: dict[str, tuple[int, ...]], pool: torch.Tensor, generator: torch.Generator
) -> None:
    """Write a safetensors file: the header's length, the header, the tensors in its order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, size in tensors.items():
        end = offset + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, size in tensors.items():
            mean, deviation = _scale(name, size)
            remaining = math.prod(size)
            while remaining:
                count = min(remaining, _SLICE)
                start = int(torch.randint(_POOL - count + 1, (), generator=generator))
                values = pool[start : start + count] * deviation + mean
                file.write(values.bfloat16().view(torch.uint8).numpy().data)
                remaining -= count


def _scale(name: str, size: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values: see `tests/checkpoints.py`."""
    if "embed_tokens" in name or "embed_positions" in name:
        return 0.0, 1.0
    if len(size) == 1:
        return (1.0 if "norm" in name and name.endswith("weight") else 0.0), 0.2
    gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
    return 0.0, gain / math.sqrt(math.prod(size[1:]))
