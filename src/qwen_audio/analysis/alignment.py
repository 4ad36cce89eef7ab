"""Alignment of two recordings in time: dynamic time warping of their rows at one tap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8

from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import HiddenStates

__all__ = ["ALIGNMENTS", "Alignment", "AlignmentKind", "check_alignment", "dtw", "paired_rows"]

AlignmentKind: TypeAlias = Literal["time", "dtw"]
ALIGNMENTS: tuple[AlignmentKind, ...] = get_args(AlignmentKind)
"""Rows at the same time, or paired by dynamic time warping."""
MAX_CELLS = 36_000_000
"""Of the matrix of distances: 144 MB, and four minutes with four minutes at 25 rows a second."""
_SAME_SECONDS = 1e-6
"""Times that differ by less are equal but for rounding."""
_FIRST, _SECOND = 1, 2
"""Steps of a path in the first recording only, and in the second only; 0 is a step in both."""
_ALL = slice(None)


def check_alignment(alignment: str) -> AlignmentKind:
    """The kind of alignment of this name.

    Raises:
        OptionError: for any other name.
    """
    for known in ALIGNMENTS:
        if alignment == known:
            return known
    raise OptionError(f"alignment={alignment!r:.80}: use {', '.join(ALIGNMENTS)}")


@dataclass(frozen=True, eq=False)
class Alignment:
    """Which rows of two recordings belong together, at the tap at which they were aligned.

    Attributes:
        tap: whose rows were aligned.
        path: shape (steps, 2): numbers of rows of both; from one step to the next at least one
            grows, by 1, and none falls.
        starts: when the rows of each recording begin, in seconds.
        distance: mean over the path: 0 if the recordings are equal but for their timing.
    """

    tap: str
    path: Int64[np.ndarray, "steps two"]
    starts: tuple[Float64[np.ndarray, "_first"], Float64[np.ndarray, "_second"]]
    distance: float

    @classmethod
    def of(cls, one: HiddenStates, other: HiddenStates) -> Alignment:
        """Of the audio rows of two recordings at one tap, by dynamic time warping.

        Raises:
            OptionError: for different taps, and recordings too long for it.
        """
        if one.tap != other.tap:
            raise OptionError(f"{one.tap} can't be aligned with {other.tap}: give equal taps")
        audio = [states.indices("audio") for states in (one, other)]
        return cls.of_rows(
            str(one.tap),
            (one.data[audio[0]], other.data[audio[1]]),
            (one.start_seconds[audio[0]], other.start_seconds[audio[1]]),
        )

    @classmethod
    def of_rows(
        cls,
        tap: str,
        rows: tuple[Float[np.ndarray, "_first width"], Float[np.ndarray, "_second width"]],
        starts: tuple[Float64[np.ndarray, "_first"], Float64[np.ndarray, "_second"]],
    ) -> Alignment:
        """Of rows and their times; see `of`."""
        one, other = map(len, rows)
        if one * other > MAX_CELLS:
            raise OptionError(
                f"alignment='dtw' of {one} rows with {other} rows at {tap}: the product may be at "
                f"most {MAX_CELLS:,}: give shorter recordings, or alignment='time'"
            )
        path, total = dtw(_distances(*rows))
        return cls(tap, path, starts, total / (one + other))

    @property
    def path_seconds(self) -> Float64[np.ndarray, "steps two"]:
        """Shape (steps, 2): when the aligned rows of both begin."""
        return np.stack([self.starts[k][self.path[:, k]] for k in (0, 1)], axis=1)

    def pairs(
        self,
        one: HiddenStates,
        other: HiddenStates,
        offsets: tuple[float, float] = (0.0, 0.0),
        steps: slice = _ALL,
    ) -> Int64[np.ndarray, "pairs two"]:
        """Audio rows of another tap that belong together, as numbers among the audio rows.

        Args:
            one, other: of the recordings, or of a window of each.
            offsets: when the windows begin, in seconds.
            steps: of the path, which are within the windows.
        """
        times = [
            states.start_seconds[states.indices("audio")] + offset
            for states, offset in zip((one, other), offsets, strict=True)
        ]
        return paired_rows(self.path[steps], self.starts, (times[0], times[1]))

    def runs(
        self, counts: tuple[Sequence[int], Sequence[int]]
    ) -> list[tuple[tuple[int, int], slice]]:
        """The windows of both recordings that the path goes through, and its steps in them.

        Args:
            counts: of rows in each window of each recording.
        """
        windows = np.stack(
            [np.searchsorted(np.cumsum(counts[k]), self.path[:, k], side="right") for k in (0, 1)],
            axis=1,
        )
        changes = np.flatnonzero(np.any(np.diff(windows, axis=0) != 0, axis=1)) + 1
        edges = [0, *changes.tolist(), len(windows)]
        return [
            ((int(windows[start, 0]), int(windows[start, 1])), slice(start, stop))
            for start, stop in itertools.pairwise(edges)
        ]


def dtw(
    distances: Float[np.ndarray, "first second"],
) -> tuple[Int64[np.ndarray, "steps two"], float]:
    """Dynamic time warping: the path of least total distance from the first pair to the last.

    Sakoe & Chiba, "Dynamic programming algorithm optimization for spoken word recognition", 1978:
    the symmetric form without a slope constraint, in which a step in both counts twice, so that
    all paths have the same weight, first + second.

    Returns:
        The path, shape (steps, 2), and its total weighted distance.
    """
    rows, columns = distances.shape
    steps = np.zeros((rows, columns), np.uint8)
    # Cells of an anti-diagonal depend on the two before it only. A row's total is at number + 1.
    before, last = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)
    before[0] = 0.0  # the first pair is a step in both
    for diagonal in range(rows + columns - 1):
        number = np.arange(max(0, diagonal - columns + 1), min(rows - 1, diagonal) + 1)
        distance = distances[number, diagonal - number].astype(np.float64)
        totals = np.stack([before[number] + 2 * distance, last[number], last[number + 1]])
        totals[1:] += distance
        best = totals.argmin(0)
        steps[number, diagonal - number] = best
        before, last = last, np.full(rows + 1, np.inf)
        last[number + 1] = totals[best, np.arange(len(number))]
    return _trace_back(steps), float(last[rows])


def _trace_back(steps: UInt8[np.ndarray, "first second"]) -> Int64[np.ndarray, "steps two"]:
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    path = [(row, column)]
    while row or column:
        step = steps[row, column]
        row -= step != _SECOND
        column -= step != _FIRST
        path.append((row, column))
    return np.array(path[::-1], np.int64)


def _distances(
    one: Float[np.ndarray, "first width"], other: Float[np.ndarray, "second width"]
) -> Float32[np.ndarray, "first second"]:
    """1 − cosine of all pairs, after subtracting each recording's own mean row: what stays the same
    in one of them, such as its voice or room, does not count (as in cepstral mean subtraction)."""
    units = []
    for rows in (one, other):
        centred = rows - rows.mean(0, dtype=np.float64).astype(np.float32)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        units.append(centred / np.maximum(norms, 1e-12))
    return np.asarray(1 - units[0] @ units[1].T, np.float32).clip(0, 2)


def paired_rows(
    path: Int64[np.ndarray, "steps two"],
    starts: tuple[Float64[np.ndarray, "_first"], Float64[np.ndarray, "_second"]],
    row_starts: tuple[Float64[np.ndarray, "_first_rows"], Float64[np.ndarray, "_second_rows"]],
) -> Int64[np.ndarray, "pairs two"]:
    """Rows of another tap that a path pairs, whatever their rate.

    A row of the first recording that begins some time after a row of the path belongs to what is
    heard as long after the row that the path pairs with it.

    Args:
        starts: of the path's rows, in seconds.
        row_starts: of the other tap's rows.

    Returns:
        Numbers of rows of both, in the order of the path.
    """
    first_of = np.searchsorted(row_starts[0], starts[0] - _SAME_SECONDS)
    counts = np.diff([*first_of, len(row_starts[0])])[path[:, 0]]
    step = np.repeat(np.arange(len(path)), counts)
    within = np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
    one = first_of[path[step, 0]] + within
    after = row_starts[0][one] - starts[0][path[step, 0]]
    moments = starts[1][path[step, 1]] + after
    other = np.searchsorted(row_starts[1], moments + _SAME_SECONDS, side="right") - 1
    return np.stack([one, other.clip(0)], axis=1)
