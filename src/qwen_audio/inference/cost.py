"""Cost estimates: bytes, memory and arithmetic that a tap needs, before any weights are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import EMBEDDINGS
from qwen_audio.weights.device import (
    MIN_BATCH_FRAMES,
    batch_positions,
    cached_batch_positions,
    max_batch_frames,
)

from .least_weights import least_weight_bytes

__all__ = [
    "MIN_CACHED_POSITIONS",
    "CostEstimate",
    "batch_frames",
    "cache_position_bytes",
    "cached_positions",
    "check_memory",
    "estimate_cost",
    "min_memory_bytes",
    "non_weight_bytes",
    "process_bytes",
]

_CPU = torch.device("cpu")

_FIRST_USE_BYTES = 100_000_000
"""What libraries add to a process after they have been imported: kernels compiled for the processor
(20 to 40 MB measured), the heaps of decoding threads, codecs, the tokenizer."""
_CUDA_CONTEXT_BYTES = 460_000_000
"""Taken of a GPU's memory by CUDA and its libraries, which torch's allocator doesn't count."""

MIN_CACHED_POSITIONS = 1_280
"""One window of 30 s, a prompt and an answer of 256 tokens, in blocks of up to 256 positions."""

_SLACK = 2.5
"""Measured over counted bytes of activations: the kernels' scratch memory and fragmentation."""

_SHARE_OF_ACTIVATIONS = 1 / 8
"""Of the memory beyond what is needed at least: the rest is for weights, and keys and values, which
take four to five times what the activations of the same batch take in the 7B."""


@dataclass(frozen=True)
class CostEstimate:
    """What computing up to a tap costs: every stage up to it, none after it.

    Attributes:
        tap: None for text: all stages, the language model's head included.
        tensors, parameters: number needed of the checkpoint.
        download_bytes: to be downloaded, beyond what is on this machine already.
        read_bytes: of weights, from disk, at most: layers that are streamed read only the experts
            that rows are routed to. Rows of the embedding table, a few kilobytes for each token of
            a prompt, are not counted.
        cache_bytes: keys and values that are cached for texts at once, at most; 0 for a tap.
        peak_memory_bytes: of the process, with a full batch of audio (an estimate: what the process
            holds now, weights, activations and cache); at most `max_memory`, where that is enough.
        min_memory_bytes: with layers streamed two at a time, and the cache of one window: the
            smallest `max_memory` that works.
        gflop_per_second: arithmetic for a second of audio, in windows of 30 s, which all families
            have unless `window_seconds` says otherwise; prompt and generated tokens (each 2 FLOP a
            parameter of the language model) are not included.
        padded_seconds: see `Family`: a window that is shorter costs as much.
    """

    tap: str | None
    tensors: int
    parameters: int
    download_bytes: int
    read_bytes: int
    cache_bytes: int
    peak_memory_bytes: int
    min_memory_bytes: int
    gflop_per_second: float
    padded_seconds: float = 0.0


def process_bytes(device: torch.device = _CPU) -> int:
    """Memory that this process takes now, of the machine's (CPU) or of a GPU's."""
    if device.type == "cuda":
        return _CUDA_CONTEXT_BYTES + torch.cuda.memory_allocated(device)
    import psutil

    resident: int = psutil.Process().memory_info().rss
    return resident


def estimate_cost(
    checkpoint: Checkpoint,
    tap: Tap | None,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    max_memory: int | None = None,
    base_bytes: int | None = None,
) -> CostEstimate:
    """Estimate from the configuration, the index and the headers of the shards alone.

    Args:
        base_bytes: of the process without weights of this checkpoint; measured now unless given.
    """
    base = process_bytes(device) if base_bytes is None else base_bytes
    required = checkpoint.required_tensors(tap)
    parameters = {name: math.prod(tensor.shape) for name, tensor in required.items()}
    stored = checkpoint.tensors.without_duplicates(required)
    weights = sum(checkpoint.weight_bytes(name, dtype) for name in required if name != EMBEDDINGS)
    frames = batch_frames(checkpoint, dtype, device, max_memory, base)
    positions = cached_positions(checkpoint, dtype, device, max_memory, base)
    other = non_weight_bytes(checkpoint, tap, dtype, device, base, positions, frames)
    peak = weights + other
    minimum = min_memory_bytes(checkpoint, tap, dtype, device, base)
    products = sum(tensor.rows_per_second * parameters[name] for name, tensor in required.items())
    return CostEstimate(
        tap=None if tap is None else str(tap),
        tensors=len(stored),
        parameters=sum(parameters[name] for name in stored),
        download_bytes=checkpoint.missing_bytes(tap),
        read_bytes=sum(checkpoint.stored_bytes(name) for name in required if name != EMBEDDINGS),
        cache_bytes=0 if tap else positions * cache_position_bytes(checkpoint, dtype),
        peak_memory_bytes=peak if max_memory is None else min(peak, max(minimum, max_memory)),
        min_memory_bytes=minimum,
        gflop_per_second=round(2 * (products + _attention(checkpoint, tap)) / 1e9, 3),
        padded_seconds=checkpoint.family.padded_seconds,
    )


def cache_position_bytes(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    """Keys and values of one position, in all layers."""
    sizes = checkpoint.family.sizes
    width = sizes.lm_kv_heads * sizes.lm_head_dim
    return 2 * checkpoint.dimensions.lm_layers * width * dtype.itemsize


def batch_frames(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    max_memory: int | None = None,
    base_bytes: int | None = None,
) -> int:
    """Encoder frames (20 ms each) in one pass: the more, the more memory a GPU has for it.

    A frame of the 7B takes 180 kB in bfloat16: 6,000 on a GPU with 8 GB, 18,000 from 28 GB on.
    """
    least, most = MIN_BATCH_FRAMES, max_batch_frames(device)
    if max_memory is None or least == most:
        return most
    spare = max_memory - min_memory_bytes(checkpoint, None, dtype, device, base_bytes)
    frame_bytes = _activation_bytes(checkpoint, None, dtype, least) / least
    return max(least, min(most, least + int(_SHARE_OF_ACTIVATIONS * spare / frame_bytes)))


def cached_positions(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    max_memory: int | None = None,
    base_bytes: int | None = None,
) -> int:
    """Positions of texts of which keys and values are cached at once: of a full batch, or as many
    as fit beside all weights, but of one window at least."""
    frames = batch_frames(checkpoint, dtype, device, max_memory, base_bytes)
    most = cached_batch_positions(frames, device)
    if max_memory is None or not checkpoint.dimensions.has_language_model:
        return most
    required = checkpoint.required_tensors(None)
    weights = sum(checkpoint.weight_bytes(name, dtype) for name in required if name != EMBEDDINGS)
    other = non_weight_bytes(checkpoint, None, dtype, device, base_bytes, 0, frames)
    free_bytes = max_memory - other - weights
    fitting = free_bytes // cache_position_bytes(checkpoint, dtype)
    return min(most, max(MIN_CACHED_POSITIONS, fitting))


def non_weight_bytes(
    checkpoint: Checkpoint,
    tap: Tap | None,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    base_bytes: int | None = None,
    positions: int = MIN_CACHED_POSITIONS,
    frames: int = MIN_BATCH_FRAMES,
) -> int:
    """Memory beside weights: the process itself, the activations of a batch's widest layer, and,
    for text, the cached keys and values.

    Args:
        base_bytes: see `estimate_cost`.
        positions: that are cached.
        frames: of the encoder in a batch.
    """
    base = process_bytes(device) if base_bytes is None else base_bytes
    cache = 0 if tap else positions * cache_position_bytes(checkpoint, dtype)
    return base + _FIRST_USE_BYTES + _activation_bytes(checkpoint, tap, dtype, frames) + cache


def _activation_bytes(
    checkpoint: Checkpoint, tap: Tap | None, dtype: torch.dtype, frames: int
) -> int:
    """Activations of the widest layer for a batch of encoder frames.

    They are in the feed-forward block: two (a gated one: three) tensors of its width, and about six
    of the layer's own for residual stream, norms, queries, keys, values and attention.
    """
    dimensions, sizes = checkpoint.dimensions, checkpoint.family.sizes
    values = 0
    if tap is None or tap.stage is not Stage.MEL:
        values = frames * (2 * sizes.encoder_ffn_width + 6 * dimensions.encoder_width)
    if tap is None or tap.in_language_model:
        row = 3 * sizes.lm_ffn_width + 6 * dimensions.lm_width
        values = max(values, batch_positions(frames) * row)
    return round(_SLACK * values * dtype.itemsize)


def min_memory_bytes(
    checkpoint: Checkpoint,
    tap: Tap | None,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    base_bytes: int | None = None,
    positions: int = MIN_CACHED_POSITIONS,
    frames: int = MIN_BATCH_FRAMES,
) -> int:
    """Memory with as few weights as possible: see `least_weight_bytes`.

    Args:
        base_bytes, positions, frames: see `non_weight_bytes`.
    """
    weights = least_weight_bytes(checkpoint, tap, dtype)
    return weights + non_weight_bytes(checkpoint, tap, dtype, device, base_bytes, positions, frames)


def check_memory(
    max_memory: int,
    checkpoint: Checkpoint,
    tap: Tap | None,
    dtype: torch.dtype,
    device: torch.device = _CPU,
    base_bytes: int | None = None,
    positions: int = 0,
) -> None:
    """Raises OptionError where `max_memory` is less than `min_memory_bytes`.

    Args:
        positions: of the longest text, its answer included.
    """
    cached = max(positions, MIN_CACHED_POSITIONS)
    minimum = min_memory_bytes(checkpoint, tap, dtype, device, base_bytes, cached)
    if minimum <= max_memory:
        return
    bits = 4 if tap is None or tap.in_language_model else 8
    fewer_bits = "" if checkpoint.formats else f"use quantize='int{bits}', or "
    advice = f"{fewer_bits}choose a shallower tap"
    if tap is None and positions > MIN_CACHED_POSITIONS:
        advice = f"fewer max_new_tokens: prompt, audio and answer take {positions} positions"
    # 2 % more, as the memory of a process differs from one start to the next.
    suggestion = 10 * math.ceil(1.02 * minimum / 10**7)
    raise OptionError(
        f"{tap or 'text'} of {checkpoint.name} in {str(dtype).removeprefix('torch.')} needs at "
        f"least {math.ceil(minimum / 1e6)}MB of memory, but only {max_memory // 10**6}MB may be "
        f"used: give max_memory='{suggestion}MB' or more, or {advice}"
    )


def _attention(checkpoint: Checkpoint, tap: Tap | None) -> float:
    """Multiply-adds per second of audio in attention's two products, for windows of 30 s.

    A row attends to every row of its block in the encoder, on average to half of those of its
    window in the decoder.
    """
    dimensions, sizes = checkpoint.dimensions, checkpoint.family.sizes
    layers = {Stage.ENCODER: dimensions.encoder_layers, Stage.LM: dimensions.lm_layers}
    if tap is not None:
        for stage in layers:
            if tap.stage is stage:
                layers[stage] = tap.layer or 0
            elif tap.stage < stage:
                layers[stage] = 0
    rows = layers[Stage.ENCODER] * dimensions.rate_hz(Tap(Stage.ENCODER, 0))
    values = rows * 2 * sizes.attended_rows * dimensions.encoder_width
    if dimensions.has_language_model:
        rate = dimensions.rate_hz(Tap(Stage.LM, 0))
        width, attended = sizes.lm_heads * sizes.lm_head_dim, rate * WINDOW_SECONDS / 2
        values += layers[Stage.LM] * rate * 2 * attended * width
    return values
