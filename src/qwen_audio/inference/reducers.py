"""Reducers: what to keep of a window's rows at a tap, computed as soon as a layer has run.

A pass calls its reducer while it goes on, so that rows which the reducer doesn't return take no
memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Tap

from .spans import Segment, WindowRows

__all__ = [
    "CapturedWindow",
    "RowReducer",
    "TapReducer",
    "all_rows",
    "audio_norms",
    "audio_rows",
    "l2_norms",
    "last_row",
    "mean_groups",
    "mean_segments",
    "rows_and_segments",
    "rows_as_computed",
]

T = TypeVar("T")

RowReducer: TypeAlias = Callable[[Tensor, tuple[Segment, ...]], T]
"""(rows, segments) → what to keep of one window at one tap. Rows have shape (rows, width), in the
dtype and on the device of the pass; segments say of which kinds they are, in order."""

TapReducer: TypeAlias = Callable[[Tap, int, Tensor], T]
"""(tap, clip, rows) → what a pass of the encoder or decoder keeps of one clip at one tap. The clip
is its index in the pass; rows have shape (rows, width)."""


@dataclass(eq=False)
class CapturedWindow(Generic[T]):
    """What one pass gave for one window; see `Pipeline.capture`.

    Attributes:
        outputs: by tap, what the reducer made of the rows.
        token_ids, segments: the positions of the language model; empty where no tap is in it.
        projector_rows: shape (audio tokens, width), where asked for.
    """

    outputs: dict[Tap, T] = field(default_factory=dict)
    token_ids: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()
    projector_rows: Tensor | None = None


def all_rows(_tap: Tap, _clip: int, rows: Float[Tensor, "_rows _width"]) -> Tensor:
    """All rows, as they are (a `TapReducer`)."""
    return rows


def last_row(_tap: Tap, _clip: int, rows: Float[Tensor, "_rows _width"]) -> Tensor:
    """The last row, shape (1, width) (a `TapReducer`)."""
    return rows[-1:]


def rows_and_segments(rows: Tensor, segments: tuple[Segment, ...]) -> WindowRows:
    """All rows in float32, and their segments (a `RowReducer`)."""
    return rows.float().cpu().numpy().copy(), segments


def rows_as_computed(rows: Tensor, segments: tuple[Segment, ...]) -> WindowRows:
    """All rows, not copied, on the device and in the dtype of the pass (a `RowReducer`)."""
    return rows, segments


def audio_rows(rows: Tensor, segments: Sequence[Segment]) -> Tensor:
    """The audio rows of one window, in float32 on the CPU (a `RowReducer`)."""
    blocks = zip(rows.split([count for _, count in segments]), segments, strict=True)
    audio = [block for block, (kind, _) in blocks if kind == "audio"]
    return torch.cat(audio).float().cpu() if audio else torch.empty(0, rows.shape[1])


def audio_norms(rows: Tensor, segments: Sequence[Segment]) -> np.ndarray:
    """L2 norm of each audio row (a `RowReducer`)."""
    return l2_norms(audio_rows(rows, segments).numpy())


def mean_groups(
    rows: Tensor, segments: Sequence[Segment], *, max_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means of adjacent audio rows, in at most `max_groups` groups, and the rows in each (a
    `RowReducer` once `max_groups` is bound)."""
    audio = audio_rows(rows, segments).numpy()
    size = math.ceil(len(audio) / max_groups)
    starts = np.arange(0, len(audio), size)
    counts = np.diff([*starts, len(audio)]).astype(np.float32)
    if size == 1:
        return audio.copy(), counts
    return np.add.reduceat(audio, starts, axis=0) / counts[:, None], counts


def mean_segments(
    rows: Tensor,
    segments: Sequence[Segment],
    *,
    row_times: RowTimes,
    token_times: RowTimes,
    token_count: Callable[[int], int],
    max_segments: int,
) -> np.ndarray:
    """Means over the same intervals of time at every tap: one audio token each, or as many as it
    takes for at most `max_segments` intervals (a `RowReducer` once the options are bound).

    Args:
        row_times, token_times: of this tap, and of audio tokens.
        token_count: how many audio tokens so many rows of this tap are.
    """
    audio = audio_rows(rows, segments).numpy()
    tokens = token_count(len(audio))
    count = min(max_segments, tokens)
    starts = token_times.starts(tokens + 1)[np.arange(count + 1) * tokens // count]
    edges = row_times.rows_before(starts)
    return np.stack([audio[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)])


def l2_norms(rows: Float[np.ndarray, "rows width"]) -> Float32[np.ndarray, "rows"]:
    """L2 norm of each row."""
    return np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32)
