"""Workloads of this package, by its public API only."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from .synthetic_audio import SAMPLING_RATE, recording_files, synthetic_clips
from .worker import Workload

__all__ = ["encode_clips", "encode_folder", "encode_taps", "load_model", "load_quantized"]


def encode_clips(
    checkpoint: str,
    seconds: float,
    count: int,
    dtype: str,
    threads: int,
    quantize: str | None = None,
    cache: str | None = None,
) -> Workload:
    """Mean of `audio_tower` of clips in memory.

    Args:
        cache: folder of quantised weights.
    """
    model = (
        load_model(checkpoint, dtype, threads)
        if cache is None
        else load_quantized(checkpoint, quantize, threads, cache, dtype)
    )
    clips = synthetic_clips(seconds, count)

    def run() -> dict[str, Any]:
        vectors = model.encode(
            clips, tap="audio_tower", pooling="mean", sampling_rate=SAMPLING_RATE
        )
        return {"first": np.round(vectors[0], 5).tolist()}

    run()  # reads the weights
    return run


def encode_folder(
    checkpoint: str, work: str, lengths: list[float], dtype: str, threads: int
) -> Workload:
    """Mean of `audio_tower` of files; each run takes those from `start` to `stop`."""
    model = load_model(checkpoint, dtype, threads)
    paths = [str(path) for path in recording_files(Path(work), tuple(lengths))]
    model.encode(paths[:1], tap="audio_tower")

    def run(start: int, stop: int) -> dict[str, Any]:
        vectors = model.encode(paths[start:stop], tap="audio_tower", pooling="mean")
        return {"first": np.round(vectors[0], 5).tolist(), "vectors": len(vectors)}

    return run


def encode_taps(
    checkpoint: str,
    seconds: float,
    count: int,
    taps: list[str],
    dtype: str,
    threads: int,
    max_memory: str | None = None,
) -> Workload:
    """Several taps of the same clips, each in a pass of its own, timed in `seconds_of`."""
    model = load_model(checkpoint, dtype, threads, max_memory)
    clips = synthetic_clips(seconds, count)

    def run(**_options: Any) -> dict[str, Any]:
        seconds_of = {}
        for tap in taps:
            start = perf_counter()
            model.encode(clips, tap=tap, pooling="mean", sampling_rate=SAMPLING_RATE)
            seconds_of[tap] = perf_counter() - start
        return {"seconds_of": seconds_of}

    run()
    return run


def load_model(
    checkpoint: str,
    dtype: str,
    threads: int,
    max_memory: str | None = None,
    device: str = "cpu",
    **options: Any,
) -> Any:
    """The checkpoint's `AudioModel`, with this number of torch threads."""
    import torch

    import qwen_audio as qa

    torch.set_num_threads(threads)
    return qa.load(checkpoint, device=device, dtype=dtype, max_memory=max_memory, **options)


def load_quantized(
    checkpoint: str, quantize: str | None, threads: int, cache: str, dtype: str = "bfloat16"
) -> Any:
    """A model whose quantised weights are kept in a folder of the benchmarks."""
    from huggingface_hub.utils import _cache_assets

    Path(cache).mkdir(parents=True, exist_ok=True)
    assets: Any = _cache_assets
    assets.HF_ASSETS_CACHE = cache  # which was read from the environment before
    return load_model(checkpoint, dtype, threads, quantize=quantize)
