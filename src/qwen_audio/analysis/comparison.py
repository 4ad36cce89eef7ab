"""Comparison: how alike two recordings are, at every tap of the line and at every moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import HiddenStates

from .files import save_numbers

__all__ = ["Comparison"]

_COLUMNS = 60


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Cosines of two recordings' audio rows, tap by tap; made by `Comparison.of`.

    Hidden states of one tap share a large common part, so their cosines lie high: what differs
    from tap to tap, and from moment to moment, says more than how high they are.

    Attributes:
        taps: from shallow to deep.
        cosines: shape (taps,): of the means over all rows, as `encode` gives them.
        by_time: shape (taps, columns): of the rows at the same second, averaged over a column.
        column_seconds: a column's length; they end with the shorter recording.
    """

    taps: tuple[str, ...]
    cosines: Float32[np.ndarray, "taps"]
    by_time: Float32[np.ndarray, "taps columns"]
    column_seconds: float

    def __post_init__(self) -> None:
        if not len(self.taps) == len(self.cosines) == len(self.by_time):
            raise ValueError(f"{len(self.taps)} taps, {self.by_time.shape}, {self.cosines.shape}")

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[HiddenStates, HiddenStates]], columns: int = _COLUMNS
    ) -> Comparison:
        """Of what `activations` gave for both, tap by tap; pairs may be made as they are needed.

        Raises:
            OptionError: for no pairs, for frames of different taps, and for fewer than one column.
        """
        if not isinstance(columns, int) or columns < 1:
            raise OptionError(f"columns={columns!r}: use a whole number from 1 on")
        taps: list[str] = []
        cosines, by_time, seconds = [], [], 0.0
        for one, other in pairs:
            if one.tap != other.tap:
                raise OptionError(f"{one.tap} can't be compared with {other.tap}: pair equal taps")
            mine, theirs = one.data[one.rows("audio")], other.data[other.rows("audio")]
            if not taps:
                shared = min(len(mine), len(theirs))
                seconds = shared * one.hop_seconds
                columns = min(columns, max(1, shared // 4))  # no more than the coarsest tap has
            taps.append(str(one.tap))
            cosines.append(_cosines(mine.mean(0)[None], theirs.mean(0)[None])[0])
            shared = min(len(mine), len(theirs))
            alike = _cosines(mine[:shared], theirs[:shared])
            edges = np.linspace(0, shared, columns + 1).astype(int)[:-1]
            counts = np.diff([*edges, shared])
            by_time.append(np.add.reduceat(alike, edges) / counts)
        if not taps:
            raise OptionError("there is nothing to compare: give a pair of Frames a tap")
        return cls(
            tuple(taps),
            np.array(cosines, np.float32),
            np.array(by_time, np.float32),
            seconds / columns,
        )

    def save(self, path: str | Path) -> Path:
        """.npz: the arrays; .csv and .json: a row a tap and column.

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        facts = {"taps": self.taps, "column_seconds": self.column_seconds}
        arrays = {"cosines": self.cosines, "by_time": self.by_time}
        return save_numbers(path, facts, arrays, self.table)

    def table(self) -> list[dict[str, Any]]:
        """A row a tap and column."""
        return [
            {
                "tap": tap,
                "cosine": float(whole),
                "start_seconds": column * self.column_seconds,
                "cosine_there": float(there),
            }
            for tap, whole, row in zip(self.taps, self.cosines, self.by_time, strict=True)
            for column, there in enumerate(row)
        ]

    def __repr__(self) -> str:
        taps, columns = self.by_time.shape
        return f"Comparison({taps} taps × {columns} columns of {self.column_seconds:.3g} s)"


def _cosines(
    one: Float32[np.ndarray, "rows width"], other: Float32[np.ndarray, "rows width"]
) -> Float32[np.ndarray, "rows"]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return ((one * other).sum(1) / np.maximum(lengths, 1e-12)).astype(np.float32)
