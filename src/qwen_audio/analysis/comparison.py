"""Comparison of two recordings at every tap, overall and over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from qwen_audio.errors import OptionError, counted, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates

from .alignment import Alignment, AlignmentKind
from .files import save_numbers, where_set
from .picture import Picture
from .row_metrics import Metric, check_metric, row_metric

__all__ = ["COLUMNS", "Comparison", "TapComparison"]

COLUMNS = 60


class TapComparison:
    """Two recordings at one tap, collected window by window.

    Args:
        hop_seconds: from one row to the next.
    """

    def __init__(self, tap: str, hop_seconds: float, metric: Metric = "cosine") -> None:
        self.tap, self.hop_seconds, self.metric = tap, hop_seconds, metric
        self._sums: list[Float64[np.ndarray, "width"] | None] = [None, None]
        self._counts = [0, 0]
        self._first_rows: list[int] = []
        self._rows: list[Int64[np.ndarray, "pairs"]] = []
        self._values: list[Float32[np.ndarray, "pairs"]] = []

    def add_window(self, one: HiddenStates | None, other: HiddenStates | None) -> None:
        """The next window of both recordings, for means; None of one that has ended."""
        self._first_rows.append(self._counts[0])
        for number, states in enumerate((one, other)):
            if states is not None:
                rows = _audio_rows(states)
                total, before = rows.sum(0, dtype=np.float64), self._sums[number]
                self._sums[number] = total if before is None else before + total
                self._counts[number] += len(rows)

    def add_pairs(
        self,
        window: int,
        one: HiddenStates,
        other: HiddenStates,
        pairs: Int64[np.ndarray, "pairs two"] | None = None,
    ) -> None:
        """Rows that belong together.

        Args:
            window: number of the first recording's, which was added. For centred_cosine all
                windows were.
            pairs: numbers of rows of both windows; None: those at the same time.
        """
        rows = _audio_rows(one), _audio_rows(other)
        if pairs is None:
            shared = min(map(len, rows))
            numbers = np.arange(shared)
            chosen = rows[0][:shared], rows[1][:shared]
        else:
            numbers = pairs[:, 0]
            chosen = rows[0][numbers], rows[1][pairs[:, 1]]
        centres = self._means if self.metric == "centred_cosine" else None
        self._rows.append(self._first_rows[window] + numbers)
        self._values.append(row_metric(*chosen, self.metric, centres))

    @property
    def rows(self) -> int:
        """How many of the first recording have a value."""
        return 1 + max((int(rows.max(initial=-1)) for rows in self._rows), default=-1)

    def by_time(self, columns: int) -> Float64[np.ndarray, "columns"]:
        """The mean over the pairs of each column; columns divide the first recording's rows."""
        rows, values = np.concatenate(self._rows), np.concatenate(self._values)
        edges = np.linspace(0, self.rows, columns + 1).astype(int)
        column = np.searchsorted(edges, rows, side="right") - 1
        totals = np.bincount(column, values, columns)
        return np.asarray(totals / np.bincount(column, minlength=columns), np.float64)

    @property
    def overall(self) -> float:
        """Of the means over all rows, as `encode` gives them; of centred_cosine, to which means are
        zero, the mean over the pairs."""
        if self.metric == "centred_cosine":
            return float(np.concatenate(self._values).mean())
        one, other = self._means
        return float(row_metric(one[None], other[None], self.metric)[0])

    @property
    def _means(self) -> tuple[Float64[np.ndarray, "width"], Float64[np.ndarray, "width"]]:
        one, other = (
            np.zeros(1) if total is None else total / count
            for total, count in zip(self._sums, self._counts, strict=True)
        )
        return one, other


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Picture):
    """How alike the audio rows of two recordings are, tap by tap; returned by `AudioModel.compare`.

    Hidden states of one tap share a large common component, so that cosines are high: differences
    between taps and over time are more informative than the values themselves, or take
    metric="centred_cosine".

    Attributes:
        taps: from shallow to deep.
        overall: shape (taps,): of the means over all rows, as `encode` gives them. Of
            centred_cosine, to which means are zero, the mean over all pairs of rows.
        by_time: shape (taps, columns): of rows that belong together, averaged over a column.
        column_seconds: length of a column, in the time of the first recording. Without alignment
            columns end with the shorter one.
        names: of the recordings.
        metric: what the values are: "cosine", "correlation", "centred_cosine" (1 is alike) or
            "relative_distance" (0 is alike); see `row_metric`.
        alignment: which rows belong together: those at the same "time", or by "dtw" (dynamic time
            warping).
        path_seconds: shape (steps, 2): when the rows that were aligned begin in both recordings;
            None without "dtw".
        path_distance: its mean distance: 0 if they are equal but for their timing; None without.
    """

    taps: tuple[str, ...]
    overall: Float32[np.ndarray, "taps"]
    by_time: Float32[np.ndarray, "taps columns"]
    column_seconds: float
    names: tuple[str, str] = ("", "")
    metric: Metric = "cosine"
    path_seconds: Float64[np.ndarray, "steps two"] | None = None
    path_distance: float | None = None

    def __post_init__(self) -> None:
        if not len(self.taps) == len(self.overall) == len(self.by_time):
            raise ValueError(f"{len(self.taps)} taps, {self.by_time.shape}, {self.overall.shape}")

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[HiddenStates, HiddenStates]],
        columns: int = COLUMNS,
        *,
        metric: Metric = "cosine",
        alignment: Alignment | None = None,
    ) -> Comparison:
        """Compare results of `activations` for both, a pair per tap; pairs may be a generator.

        Args:
            columns: at most so many columns of time.
            alignment: of both recordings (`Alignment.of`); None: rows at the same time.

        Raises:
            OptionError: for no pairs, hidden states of different taps, fewer than one column, and
                an unknown metric.
        """
        columns, metric = whole_number_option("columns", columns, 1), check_metric(metric)
        collected: list[TapComparison] = []
        names = ("", "")
        for one, other in pairs:
            if one.tap != other.tap:
                raise OptionError(f"{one.tap} can't be compared with {other.tap}: pair equal taps")
            tap = TapComparison(str(one.tap), one.hop_seconds, metric)
            tap.add_window(one, other)
            rows = None if alignment is None else alignment.pairs(one, other)
            tap.add_pairs(0, one, other, rows)
            collected.append(tap)
            names = (one.name, other.name)
        if not collected:
            raise OptionError("there is nothing to compare: give a pair of HiddenStates per tap")
        return cls.from_taps(collected, names, columns, alignment)

    @classmethod
    def from_taps(
        cls,
        taps: Sequence[TapComparison],
        names: tuple[str, str],
        columns: int = COLUMNS,
        alignment: Alignment | None = None,
    ) -> Comparison:
        """What was collected at each tap, in at most so many columns.

        Raises:
            OptionError: for fewer than one column.
        """
        columns = whole_number_option("columns", columns, 1)
        columns = min(columns, *(max(1, tap.rows // 4) for tap in taps))
        return cls(
            tuple(tap.tap for tap in taps),
            np.array([tap.overall for tap in taps], np.float32),
            np.array([tap.by_time(columns) for tap in taps], np.float32),
            taps[0].rows * taps[0].hop_seconds / columns,
            names,
            taps[0].metric,
            None if alignment is None else alignment.path_seconds,
            None if alignment is None else alignment.distance,
        )

    @property
    def alignment(self) -> AlignmentKind:
        """Which rows belong together."""
        return "time" if self.path_seconds is None else "dtw"

    def other_seconds(
        self, seconds: Float64[np.ndarray, "moments"]
    ) -> Float64[np.ndarray, "moments"]:
        """The moments of the second recording that belong to moments of the first one."""
        if self.path_seconds is None:
            return seconds
        starts, others = self.path_seconds.T
        step = np.searchsorted(starts, seconds + 1e-6, side="right") - 1
        step = np.searchsorted(starts, starts[step.clip(0)] - 1e-6)  # the first of equal ones
        return np.asarray(others[step] + seconds - starts[step], np.float64)

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
            "metric": self.metric,
            "alignment": self.alignment,
            "column_seconds": self.column_seconds,
            **where_set(path_distance=self.path_distance),
        }
        arrays = {
            "overall": self.overall,
            "by_time": self.by_time,
            "path_seconds": self.path_seconds,
        }
        return save_numbers(path, facts, arrays, self.table)

    def table(self) -> list[dict[str, Any]]:
        """One row per tap and column: its value is named after the metric."""
        starts = np.arange(self.by_time.shape[1]) * self.column_seconds
        others = self.other_seconds(starts)
        return [
            {
                "tap": tap,
                f"{self.metric}_overall": float(whole),
                "start_seconds": float(starts[column]),
                "other_start_seconds": float(others[column]),
                self.metric: float(there),
            }
            for tap, whole, row in zip(self.taps, self.overall, self.by_time, strict=True)
            for column, there in enumerate(row)
        ]

    def __repr__(self) -> str:
        taps, columns = self.by_time.shape
        size = f"{counted(taps, 'tap')} × {counted(columns, 'column')}"
        metric = "" if self.metric == "cosine" else f"{self.metric}; "
        how = "" if self.path_seconds is None else ", aligned by dtw"
        return f"Comparison({metric}{size} of {self.column_seconds:.3g} s{how})"


def _audio_rows(states: HiddenStates) -> Float32[np.ndarray, "rows width"]:
    rows: Float32[np.ndarray, "rows width"] = states.data[states.indices("audio")]
    return rows
