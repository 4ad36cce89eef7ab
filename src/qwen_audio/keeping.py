"""What to keep of a window's rows, to be looked at: means of neighbours, lengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch

from .frames import Run
from .mel import audio_tokens
from .views import norms

__all__ = ["groups", "lengths", "stretches_of"]


def audio_rows(rows: torch.Tensor, runs: Sequence[Run]) -> torch.Tensor:
    """Those of one window that are audio, in float32 on the CPU."""
    parts = zip(rows.split([count for _, count in runs]), runs, strict=True)
    mine = [part for part, (kind, _) in parts if kind == "audio"]
    return torch.cat(mine).float().cpu() if mine else torch.empty(0, rows.shape[1])


def groups(rows: torch.Tensor, runs: Sequence[Run], *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours such that there are at most so many, and how many rows each is of."""
    audio = audio_rows(rows, runs).numpy()
    size = math.ceil(len(audio) / most)
    starts = np.arange(0, len(audio), size)
    counts = np.diff([*starts, len(audio)]).astype(np.float32)
    if size == 1:
        return audio.copy(), counts
    return np.add.reduceat(audio, starts, axis=0) / counts[:, None], counts


def stretches_of(
    rows: torch.Tensor, runs: Sequence[Run], *, per_token: int, most: int
) -> np.ndarray:
    """Means over the same stretches of sound at every tap: of one audio token, or of neighbours
    such that there are at most `most`."""
    audio = audio_rows(rows, runs).numpy()
    tokens = {1: len(audio), 2: len(audio) // 2, 4: audio_tokens(len(audio))}[per_token]
    count = min(most, tokens)
    edges = np.arange(count + 1) * tokens // count * per_token
    return np.stack([audio[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])


def lengths(rows: torch.Tensor, runs: Sequence[Run]) -> np.ndarray:
    """Of each row."""
    return norms(audio_rows(rows, runs).numpy())
