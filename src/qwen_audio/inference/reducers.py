"""What to keep of a window's rows, to be looked at: means of neighbours, lengths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from qwen_audio.audio.log_mel import audio_token_count
from qwen_audio.models.tap import Tap

from .hidden_states import Segment, WindowRows

__all__ = [
    "RowReducer",
    "groups",
    "lengths",
    "mean_segments",
    "norms",
    "rows_and_segments",
    "whole_rows",
]

T = TypeVar("T")


def audio_rows(rows: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
    """Those of one window that are audio, in float32 on the CPU."""
    parts = zip(rows.split([count for _, count in segments]), segments, strict=True)
    mine = [part for part, (kind, _) in parts if kind == "audio"]
    return torch.cat(mine).float().cpu() if mine else torch.empty(0, rows.shape[1])


def groups(
    rows: torch.Tensor, segments: Sequence[Segment], *, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbours such that there are at most so many, and how many rows each is of."""
    audio = audio_rows(rows, segments).numpy()
    size = math.ceil(len(audio) / most)
    starts = np.arange(0, len(audio), size)
    counts = np.diff([*starts, len(audio)]).astype(np.float32)
    if size == 1:
        return audio.copy(), counts
    return np.add.reduceat(audio, starts, axis=0) / counts[:, None], counts


def mean_segments(
    rows: torch.Tensor, segments: Sequence[Segment], *, per_token: int, most: int
) -> np.ndarray:
    """Means over the same stretches of sound at every tap: of one audio token, or of neighbours
    such that there are at most `most`."""
    audio = audio_rows(rows, segments).numpy()
    tokens = {1: len(audio), 2: len(audio) // 2, 4: audio_token_count(len(audio))}[per_token]
    count = min(most, tokens)
    edges = np.arange(count + 1) * tokens // count * per_token
    return np.stack([audio[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])


def lengths(rows: torch.Tensor, segments: Sequence[Segment]) -> np.ndarray:
    """Of each row."""
    return norms(audio_rows(rows, segments).numpy())


def norms(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows"]:
    """The Euclidean length of each row."""
    return np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32)


def whole_rows(_tap: Tap, _place: int, rows: Float[Tensor, "_rows _width"]) -> Tensor:
    """What to keep of a clip at a tap where all of it is wanted, as it is."""
    return rows


RowReducer: TypeAlias = Callable[[torch.Tensor, tuple[Segment, ...]], T]
"""What to keep of a window's rows at a tap, (rows, width), given which kinds of rows they are."""


def rows_and_segments(rows: torch.Tensor, segments: tuple[Segment, ...]) -> WindowRows:
    """Keeps everything, as float32."""
    return rows.float().cpu().numpy().copy(), segments


def _last_row(_tap: Tap, _place: int, rows: torch.Tensor) -> torch.Tensor:
    return rows[-1:]
