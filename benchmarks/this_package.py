"""Turns of this package, through its public face alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .synthetic_audio import RATE, files, sounds
from .worker import Turn

__all__ = ["depths", "folder", "tower"]


def tower(checkpoint: str, seconds: float, count: int, dtype: str, threads: int) -> Turn:
    """`audio_tower` of clips in memory."""
    model = opened(checkpoint, dtype, threads)
    clips = sounds(seconds, count)

    def turn() -> dict[str, Any]:
        rows = model.encode(clips, tap="audio_tower", pooling="mean", sampling_rate=RATE)
        return {"first": np.round(rows[0], 5).tolist()}

    turn()  # reads the weights
    return turn


def folder(checkpoint: str, work: str, lengths: list[float], dtype: str, threads: int) -> Turn:
    """`audio_tower` of files, from `start` to `stop` of them in a turn."""
    model = opened(checkpoint, dtype, threads)
    paths = [str(path) for path in files(Path(work), tuple(lengths))]
    model.encode(paths[:1], tap="audio_tower")

    def turn(start: int, stop: int) -> dict[str, Any]:
        vectors = model.encode(paths[start:stop], tap="audio_tower", pooling="mean")
        return {"first": np.round(vectors[0], 5).tolist(), "vectors": len(vectors)}

    return turn


def depths(
    checkpoint: str,
    seconds: float,
    count: int,
    taps: list[str],
    dtype: str,
    threads: int,
    max_memory: str | None = None,
) -> Turn:
    """Several taps of the same clips, each on its own: `seconds_of` says how long each took."""
    from time import perf_counter

    model = opened(checkpoint, dtype, threads, max_memory)
    clips = sounds(seconds, count)

    def turn(**_others: Any) -> dict[str, Any]:
        took = {}
        for tap in taps:
            start = perf_counter()
            model.encode(clips, tap=tap, pooling="mean", sampling_rate=RATE)
            took[tap] = perf_counter() - start
        return {"seconds_of": took}

    turn()
    return turn


def opened(checkpoint: str, dtype: str, threads: int, max_memory: str | None = None) -> Any:
    """The checkpoint on the CPU, with so many threads."""
    import torch

    import qwen_audio as qa

    torch.set_num_threads(threads)
    return qa.load(checkpoint, device="cpu", dtype=dtype, max_memory=max_memory)
