"""Comparison of two recordings: cosine similarity at every tap, overall and over time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from qwen_audio.errors import OptionError, counted, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates

from .files import save_numbers
from .picture import Picture

__all__ = ["COLUMNS", "Comparison", "TapCosines"]

COLUMNS = 60


class TapCosines:
    """Cosines of two recordings at one tap, collected window by window.

    Args:
        hop_seconds: from one row to the next.
    """

    def __init__(self, tap: str, hop_seconds: float) -> None:
        self.tap, self.hop_seconds = tap, hop_seconds
        self._sums: list[Float64[np.ndarray, "width"] | None] = [None, None]
        self._by_row: list[Float32[np.ndarray, "rows"]] = []

    def add(self, *states: HiddenStates | None) -> None:
        """The next window of both recordings; None of one that has ended."""
        audio = [None if one is None else one.data[one.indices("audio")] for one in states]
        for number, rows in enumerate(audio):
            if rows is not None:  # the mean's length does not change its cosine
                total = rows.sum(0, dtype=np.float64)
                before = self._sums[number]
                self._sums[number] = total if before is None else before + total
        one, other = audio
        if one is not None and other is not None:
            shared = min(len(one), len(other))
            self._by_row.append(_cosines(one[:shared], other[:shared]))

    @property
    def by_row(self) -> Float32[np.ndarray, "rows"]:
        """Of rows at the same time."""
        return np.concatenate(self._by_row)

    @property
    def of_means(self) -> float:
        """Of the means over all rows, as `encode` gives them."""
        one, other = (np.zeros((1, 1)) if sum_ is None else sum_[None] for sum_ in self._sums)
        return float(_cosines(one, other)[0])


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Picture):
    """Cosines of the audio rows of two recordings, tap by tap; returned by `AudioModel.compare`.

    Hidden states of one tap share a large common component, so that cosines are high: differences
    between taps and over time are more informative than the values themselves.

    Attributes:
        taps: from shallow to deep.
        cosines: shape (taps,): of the means over all rows, as `encode` gives them.
        by_time: shape (taps, columns): of rows at the same time, averaged over a column.
        column_seconds: length of a column; columns end with the shorter recording.
        names: of the recordings.
    """

    taps: tuple[str, ...]
    cosines: Float32[np.ndarray, "taps"]
    by_time: Float32[np.ndarray, "taps columns"]
    column_seconds: float
    names: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        if not len(self.taps) == len(self.cosines) == len(self.by_time):
            raise ValueError(f"{len(self.taps)} taps, {self.by_time.shape}, {self.cosines.shape}")

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[HiddenStates, HiddenStates]], columns: int = COLUMNS
    ) -> Comparison:
        """Compare results of `activations` for both, a pair per tap; pairs may be a generator.

        Raises:
            OptionError: for no pairs, hidden states of different taps, and fewer than one column.
        """
        columns = whole_number_option("columns", columns, 1)
        cosines: list[TapCosines] = []
        names = ("", "")
        for one, other in pairs:
            if one.tap != other.tap:
                raise OptionError(f"{one.tap} can't be compared with {other.tap}: pair equal taps")
            cosines.append(TapCosines(str(one.tap), one.hop_seconds))
            cosines[-1].add(one, other)
            names = (one.name, other.name)
        if not cosines:
            raise OptionError("there is nothing to compare: give a pair of HiddenStates per tap")
        return cls.from_cosines(cosines, names, columns)

    @classmethod
    def from_cosines(
        cls, cosines: Iterable[TapCosines], names: tuple[str, str], columns: int = COLUMNS
    ) -> Comparison:
        """What was collected, in at most so many columns.

        Raises:
            OptionError: for fewer than one column.
        """
        if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
            raise OptionError(f"columns={columns!r}: use a whole number from 1 on")
        collected = list(cosines)
        by_tap = [tap.by_row for tap in collected]
        columns = min(columns, *(max(1, len(rows) // 4) for rows in by_tap))
        by_time = []
        for rows in by_tap:
            edges = np.linspace(0, len(rows), columns + 1).astype(int)[:-1]
            by_time.append(np.add.reduceat(rows, edges) / np.diff([*edges, len(rows)]))
        return cls(
            tuple(tap.tap for tap in collected),
            np.array([tap.of_means for tap in collected], np.float32),
            np.array(by_time, np.float32),
            len(by_tap[0]) * collected[0].hop_seconds / columns,
            names,
        )

    @property
    def by_time_scaled(self) -> Float32[np.ndarray, "taps columns"]:
        """`by_time` with the range of each tap scaled to 0 … 1, so that taps of high cosines and of
        a small range show when recordings differ, too."""
        low, high = (edge(self.by_time, axis=1, keepdims=True) for edge in (np.min, np.max))
        return np.asarray((self.by_time - low) / np.maximum(high - low, 1e-9), np.float32)

    def save(self, path: str | Path) -> Path:
        """Write the arrays (.npz), or a table with a row per tap and column (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        facts = {
            "names": self.names,
            "taps": self.taps,
            "column_seconds": self.column_seconds,
        }
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
        size = f"{counted(taps, 'tap')} × {counted(columns, 'column')}"
        return f"Comparison({size} of {self.column_seconds:.3g} s)"


def _cosines(
    one: Float[np.ndarray, "rows width"], other: Float[np.ndarray, "rows width"]
) -> Float32[np.ndarray, "rows"]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / np.maximum(lengths, 1e-12), np.float32)
