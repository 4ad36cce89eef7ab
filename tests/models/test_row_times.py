"""Times of rows: at a constant rate, and in a pattern that repeats."""

from __future__ import annotations

import numpy as np
import pytest

from qwen_audio.models.row_times import RowTimes

THIRTEEN = RowTimes((0.08,) * 12 + (0.04,))
"""Rows of a convolution of stride 8 over chunks of a second, whose last row is half as long."""


def test_a_constant_rate() -> None:
    times = RowTimes.every(0.04)
    assert (times.hop_seconds, times.rate_hz) == (0.04, 25.0)
    np.testing.assert_array_equal(times.starts(800), np.arange(800) * 0.04)
    np.testing.assert_array_equal(times.durations([0.3, 0.0, np.nan]), [0.04] * 3)


def test_a_pattern() -> None:
    assert (THIRTEEN.rate_hz, THIRTEEN.hop_seconds) == (13.0, 1 / 13)
    starts = THIRTEEN.starts(13 * 600 + 1)
    durations = THIRTEEN.durations(starts)
    np.testing.assert_allclose(starts[::13], np.arange(601), atol=1e-9)
    np.testing.assert_allclose(starts[:-1] + durations[:-1], starts[1:], atol=1e-9)
    assert durations[12] == durations[-2] == 0.04
    shuffled = np.random.default_rng(0).permutation(len(starts))
    np.testing.assert_array_equal(THIRTEEN.durations(starts[shuffled]), durations[shuffled])


@pytest.mark.parametrize("times", [RowTimes.every(0.01), RowTimes.every(0.02), THIRTEEN])
def test_rows_before_a_time(times: RowTimes) -> None:
    """At the start of a row there are as many before it as its number, in spite of rounding."""
    starts = times.starts(2000)
    np.testing.assert_array_equal(times.rows_before(starts), np.arange(2000))
    np.testing.assert_array_equal(times.rows_before(starts + 1e-9), np.arange(2000))


@pytest.mark.parametrize("pattern", [(), (0.0,), (0.1, -0.1)])
def test_rows_last_some_time(pattern: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="durations of rows"):
        RowTimes(pattern)
