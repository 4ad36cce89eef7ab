"""Spans: which rows of a tap are audio, prompt or generated, and their times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from qwen_audio.audio.window import Window
from qwen_audio.models.row_times import RowTimes

from .row_index import RowIndex

__all__ = [
    "Segment",
    "Span",
    "SpanKind",
    "WindowRows",
    "audio_segments",
    "index_of_spans",
    "indices_of_kind",
    "spans_and_times",
]

SpanKind = Literal["audio", "padding", "prompt", "generated"]
"""Padding: positions that a model which pads audio gives its language model after it."""

Segment = tuple[SpanKind, int]
"""(kind, count): consecutive rows of one kind."""

WindowRows = tuple[Any, tuple[Segment, ...]]
"""The rows of one window at one tap, (rows, width), an array or a tensor, and their segments."""


@dataclass(frozen=True)
class Span:
    """Rows start … stop−1, of one kind and one window (an index into `HiddenStates.windows`)."""

    kind: SpanKind
    start: int
    stop: int
    window: int = 0

    def __len__(self) -> int:
        return self.stop - self.start


def audio_segments(rows: int, audio: int) -> tuple[Segment, ...]:
    """Rows of audio, and of padding after them."""
    return (("audio", audio), *((("padding", rows - audio),) if rows > audio else ()))


def indices_of_kind(spans: Iterable[Span], kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
    """Indices of the rows of one kind, in order."""
    rows = [np.arange(span.start, span.stop) for span in spans if span.kind == kind]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def index_of_spans(
    source: str,
    spans: Sequence[Span],
    seconds: Float64[np.ndarray, "rows"],
    windows: Sequence[Window],
    row_times: RowTimes,
    tokens: Sequence[str] | None,
) -> RowIndex:
    """The index of consecutive spans: a row ends when the next one begins, or with its window.

    Args:
        seconds: the time at which each row starts.
        row_times: of the tap.
        tokens: the text at each row; None where rows are no positions of the language model.
    """
    lengths = [len(span) for span in spans]
    window = np.repeat(np.array([span.window for span in spans], np.int64), lengths)
    window_start = np.array([window.start_seconds for window in windows])[window]
    window_end = np.array([window.end_seconds for window in windows])[window]
    durations = row_times.durations(seconds - window_start)
    return RowIndex.of_recording(
        source,
        window,
        seconds,
        np.minimum(seconds + durations, window_end),
        np.repeat(np.array([span.kind for span in spans], np.str_), lengths),
        None if tokens is None else np.array(tokens, np.str_),
    )


def spans_and_times(
    windows: Iterable[tuple[Window, Sequence[Segment]]], row_times: RowTimes
) -> tuple[tuple[Span, ...], Float64[np.ndarray, "rows"]]:
    """Spans of consecutive windows, and the time at which each row starts (NaN for text), in s.

    Args:
        windows: each with the segments of its rows, in order.
        row_times: of the tap; of a window's audio, which is in one segment.
    """
    spans: list[Span] = []
    seconds: list[np.ndarray] = [np.zeros(0)]
    row = 0
    for number, (window, segments) in enumerate(windows):
        for kind, count in segments:
            spans.append(Span(kind, row, row + count, number))
            row += count
            starts = row_times.starts(count) + window.start_seconds
            seconds.append(starts if kind == "audio" else np.full(count, np.nan))
    return tuple(spans), np.concatenate(seconds)
