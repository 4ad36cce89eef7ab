from __future__ import annotations

import pytest

from qwen_audio.audio.timecode import format_duration, format_time, format_timecode


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (7, 0, "0:07"),
        (245.4, 0, "4:05"),
        (3723, 0, "1:02:03"),
        (59.6, 0, "1:00"),
        (7.25, 2, "0:07.25"),
        (7.05, 2, "0:07.05"),
        (750, 2, "12:30"),
        (59.996, 2, "1:00"),
    ],
)
def test_timecode(seconds: float, decimals: int, text: str) -> None:
    assert format_timecode(seconds, decimals) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "40 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (6.5, "6.5 s"),
        (119, "119 s"),
        (245, "4:05 min"),
        (3599.7, "1:00:00 h"),
        (3723, "1:02:03 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_time_has_as_many_decimals_as_its_spacing_needs() -> None:
    assert [format_time(0.04, 0.05), format_time(0.6, 0.6), format_time(66.4, 66.4)] == [
        *("0.04", "0.6", "66")
    ]
    assert format_time(150, 15, as_timecode=True) == "2:30"
