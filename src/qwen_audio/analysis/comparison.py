"""Comparison of two recordings: cosine similarity at every tap, overall and over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import OptionError, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates

from .files import save_numbers

__all__ = ["Comparison"]

_COLUMNS = 60


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Cosines of the audio rows of two recordings, tap by tap; created by `Comparison.of`.

    Hidden states of one tap share a large common component, so that cosines are high: differences
    between taps and over time are more informative than the values themselves.

    Attributes:
        taps: from shallow to deep.
        cosines: shape (taps,): of the means over all rows, as `encode` gives them.
        by_time: shape (taps, columns): of rows at the same time, averaged over a column.
        column_seconds: length of a column; columns end with the shorter recording.
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
        """Compare results of `activations` for both, a pair per tap; pairs may be a generator.

        Raises:
            OptionError: for no pairs, hidden states of different taps, and fewer than one column.
        """
        columns = whole_number_option("columns", columns, 1)
        taps: list[str] = []
        cosines, by_time, seconds = [], [], 0.0
        for one, other in pairs:
            if one.tap != other.tap:
                raise OptionError(f"{one.tap} can't be compared with {other.tap}: pair equal taps")
            rows, other_rows = one.data[one.rows("audio")], other.data[other.rows("audio")]
            if not taps:
                shared = min(len(rows), len(other_rows))
                seconds = shared * one.hop_seconds
                columns = min(columns, max(1, shared // 4))  # no more than the coarsest tap has
            taps.append(str(one.tap))
            cosines.append(_cosines(rows.mean(0)[None], other_rows.mean(0)[None])[0])
            shared = min(len(rows), len(other_rows))
            row_cosines = _cosines(rows[:shared], other_rows[:shared])
            edges = np.linspace(0, shared, columns + 1).astype(int)[:-1]
            counts = np.diff([*edges, shared])
            by_time.append(np.add.reduceat(row_cosines, edges) / counts)
        if not taps:
            raise OptionError("there is nothing to compare: give a pair of HiddenStates per tap")
        return cls(
            tuple(taps),
            np.array(cosines, np.float32),
            np.array(by_time, np.float32),
            seconds / columns,
        )

    def save(self, path: str | Path) -> Path:
        """Write the arrays (.npz), or a table with a row per tap and column (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        facts = {"taps": self.taps, "column_seconds": self.column_seconds}
        arrays = {"cosines": self.cosines, "by_time": self.by_time}
        return save_numbers(path, facts, arrays, self.table)

    def table(self) -> list[dict[str, Any]]:
        """One row per tap and column."""
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
