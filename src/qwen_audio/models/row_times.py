"""When the rows of a tap begin, and how long they last: a pattern of durations that repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

__all__ = ["RowTimes"]


@dataclass(frozen=True)
class RowTimes:
    """Times of consecutive rows, from the start of a window.

    Attributes:
        pattern_seconds: durations that repeat: one at a constant rate; an encoder that makes 13
            rows of a second by strides of 8 frames has twelve of 0.08 s and one of 0.04 s.
        stride: every so many of these rows is left.

    Raises:
        ValueError: unless all are greater than 0.
    """

    pattern_seconds: tuple[float, ...]
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.pattern_seconds or min(self.pattern_seconds) <= 0:
            raise ValueError(f"durations of rows: {self.pattern_seconds}")

    @classmethod
    def every(cls, seconds: float) -> RowTimes:
        """Rows at a constant rate."""
        return cls((seconds,))

    def every_nth(self, n: int) -> RowTimes:
        """Of every nth of these rows, from the first on; each lasts as long as before."""
        return RowTimes(self.pattern_seconds, self.stride * n)

    @property
    def hop_seconds(self) -> float:
        """Seconds of audio from one row to the next; on average, where that differs."""
        return self.stride * math.fsum(self.pattern_seconds) / len(self.pattern_seconds)

    @property
    def rate_hz(self) -> float:
        """Rows per second of audio, on average."""
        return len(self.pattern_seconds) / math.fsum(self.pattern_seconds) / self.stride

    def starts(self, count: int) -> Float64[np.ndarray, "count"]:
        """Shape (count,): when the first rows begin, in seconds after the window's start."""
        rows = np.arange(count) * self.stride
        if len(self.pattern_seconds) == 1:
            return rows * self.pattern_seconds[0]
        periods, places = np.divmod(rows, len(self.pattern_seconds))
        return periods * math.fsum(self.pattern_seconds) + self._offsets[places]

    def durations(self, starts: Sequence[float] | np.ndarray) -> Float64[np.ndarray, "rows"]:
        """Shape (rows,): how long rows last that begin at these seconds after the window's start;
        any of them, in any order. Of one at NaN, a row of text, it means nothing."""
        pattern = np.array(self.pattern_seconds)
        if len(pattern) == 1:
            return np.full(len(starts), pattern[0])
        # Times carry rounding errors: half of the shortest row decides which one is meant.
        times = np.nan_to_num(np.asarray(starts, np.float64)) + pattern.min() / 2
        in_period = np.mod(times, math.fsum(self.pattern_seconds))
        return pattern[np.searchsorted(self._offsets, in_period, side="right") - 1]

    def rows_before(self, seconds: np.ndarray) -> np.ndarray:
        """For each of these times, how many rows begin before it, in whole rows."""
        tolerance = min(self.pattern_seconds) / 2
        count = math.ceil(float(np.max(seconds, initial=0.0)) * self.rate_hz) + 1
        return np.searchsorted(self.starts(count), seconds - tolerance, side="left")

    @property
    def _offsets(self) -> Float64[np.ndarray, "pattern"]:
        """When the rows of a period begin."""
        return np.concatenate([[0.0], np.cumsum(self.pattern_seconds)[:-1]])
