"""What a tap costs, known before a byte of its weights is fetched or read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch

from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.qwen2_audio.tensors import EMBEDDINGS
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.device import batch_frames

__all__ = ["CostEstimate", "estimate_cost", "least_bytes", "working_bytes"]

_CPU = torch.device("cpu")

_RUNTIME_BYTES = 560_000_000
"""Resident memory of a process that has imported torch, transformers' model classes and PyAV (some
410 MB), and decodes ahead in threads."""

_LAYER = re.compile(r"(.+\.layers)\.(\d+)\.")

_SLACK = 2.5
"""What was measured, over what is counted: the products' own scratch, and memory between uses."""


@dataclass(frozen=True)
class CostEstimate:
    """What reading at a tap takes of a checkpoint: everything left of it, nothing right of it.

    Attributes:
        tap: None for text: the whole line, the language model's head included.
        tensors, parameters: of the checkpoint.
        download_bytes: to be fetched from a hub, beyond what is on this machine already.
        read_bytes: of weights, from disk. Of the table of embeddings only rows are read, a few
            kilobytes for each token of a prompt, which are not counted.
        peak_memory_bytes: of the process, with a full batch of audio (an estimate); at most what
            `max_memory` allows, where that can be kept to.
        least_memory_bytes: with layers streamed two at a time: the least `max_memory` that will do.
        gflop_per_second: arithmetic for a second of audio, in windows of 30 s; prompt and generated
            tokens (each 2 FLOP a parameter of the language model) come on top.
    """

    tap: str | None
    tensors: int
    parameters: int
    download_bytes: int
    read_bytes: int
    peak_memory_bytes: int
    least_memory_bytes: int
    gflop_per_second: float


def estimate_cost(
    checkpoint: Checkpoint,
    tap: Tap | None,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    max_memory: int | None = None,
) -> CostEstimate:
    """From the configuration, the index and the headers of the shards alone."""
    needs = checkpoint.required_tensors(tap)
    numbers = {name: math.prod(needed.shape) for name, needed in needs.items()}
    resident = sum(count for name, count in numbers.items() if name != EMBEDDINGS)
    peak = resident * dtype.itemsize + working_bytes(checkpoint, tap, dtype, device)
    least = least_bytes(checkpoint, tap, dtype, device)
    products = sum(needed.rate_hz * numbers[name] for name, needed in needs.items())
    return CostEstimate(
        tap=None if tap is None else str(tap),
        tensors=len(needs),
        parameters=sum(numbers.values()),
        download_bytes=checkpoint.missing_bytes(tap),
        read_bytes=sum(checkpoint.stored_bytes(name) for name in needs if name != EMBEDDINGS),
        peak_memory_bytes=peak if max_memory is None else min(peak, max(least, max_memory)),
        least_memory_bytes=least,
        gflop_per_second=round(2 * (products + _attention(checkpoint, tap)) / 1e9, 3),
    )


def working_bytes(
    checkpoint: Checkpoint, tap: Tap | None, dtype: torch.dtype, device: torch.device = _CPU
) -> int:
    """Memory beside weights: the process itself, and what a batch holds in its widest layer.

    That is the feed-forward part: two (a gated one: three) tensors of its width, and about six of
    the layer's own for residual stream, norms, queries, keys, values and attention.
    """
    audio, text = checkpoint.audio_config, checkpoint.text_config
    held, frames = 0, batch_frames(device)
    if tap is None or tap.stage is not Stage.MEL:
        held = frames * (2 * audio.encoder_ffn_dim + 6 * audio.d_model)
    if tap is None or tap.in_language_model:
        positions = frames // 2 + frames // 10  # audio tokens, and prompts
        row = 3 * text.intermediate_size + 6 * text.hidden_size
        held = max(held, positions * row)
    return _RUNTIME_BYTES + round(_SLACK * held * dtype.itemsize)


def least_bytes(
    checkpoint: Checkpoint, tap: Tap | None, dtype: torch.dtype, device: torch.device = _CPU
) -> int:
    """Memory of the process where as many weights as can come and go: what is there at once is one
    module, or two layers (one computes, one is read)."""
    modules: dict[str, dict[str, int]] = {}
    for name, needed in checkpoint.required_tensors(tap).items():
        if name != EMBEDDINGS:
            layer = _LAYER.match(name)
            module, part = (layer[1], layer[2]) if layer else (name.rpartition(".")[0], "")
            parts = modules.setdefault(module, {})
            parts[part] = parts.get(part, 0) + math.prod(needed.shape)
    rooms = [min(sum(parts.values()), 2 * max(parts.values())) for parts in modules.values()]
    weights = max(rooms, default=0) * dtype.itemsize
    return weights + working_bytes(checkpoint, tap, dtype, device)


def _attention(checkpoint: Checkpoint, tap: Tap | None) -> float:
    """Multiply-adds a second in the two products of every attention, for windows of 30 s.

    A row meets every row of its window in the encoder, and on average half of them in the decoder.
    """
    audio, text = checkpoint.audio_config, checkpoint.text_config
    window = audio.max_source_positions
    layers = {Stage.ENCODER: audio.encoder_layers, Stage.LM: text.num_hidden_layers}
    if tap is not None:
        for stage in layers:
            if tap.stage is stage:
                layers[stage] = tap.level or 0
            elif tap.stage < stage:
                layers[stage] = 0
    heads = text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    encoder_row, lm_row = 2 * window * audio.d_model, 2 * (window // 2) / 2 * width
    return (
        layers[Stage.ENCODER] * encoder_row * Tap(Stage.ENCODER, 0).rate_hz
        + layers[Stage.LM] * lm_row * Tap(Stage.LM, 0).rate_hz
    )
