"""Spans: which rows of a tap are audio, prompt or generated, and their times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from qwen_audio.audio.window import Window

from .row_index import RowIndex

__all__ = [
    "Segment",
    "Span",
    "SpanKind",
    "WindowRows",
    "index_of_spans",
    "indices_of_kind",
    "spans_and_times",
]

SpanKind = Literal["audio", "prompt", "generated"]


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


def indices_of_kind(spans: Iterable[Span], kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
    """Indices of the rows of one kind, in order."""
    rows = [np.arange(span.start, span.stop) for span in spans if span.kind == kind]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def index_of_spans(
    source: str,
    spans: Sequence[Span],
    seconds: Float64[np.ndarray, "rows"],
    windows: Sequence[Window],
    hop_seconds: float,
    tokens: Sequence[str] | None,
) -> RowIndex:
    """The index of consecutive spans: a row ends a hop after it starts, or with its window.

    Args:
        seconds: the time at which each row starts.
        tokens: the text at each row; None where rows are no positions of the language model.
    """
    lengths = [len(span) for span in spans]
    window = np.repeat(np.array([span.window for span in spans], np.int64), lengths)
    window_end = np.array([window.end_seconds for window in windows])[window]
    return RowIndex.of_recording(
        source,
        window,
        seconds,
        np.minimum(seconds + hop_seconds, window_end),
        np.repeat(np.array([span.kind for span in spans], np.str_), lengths),
        None if tokens is None else np.array(tokens, np.str_),
    )


def spans_and_times(
    windows: Iterable[tuple[Window, Sequence[Segment]]], hop_seconds: float
) -> tuple[tuple[Span, ...], Float64[np.ndarray, "rows"]]:
    """Spans of consecutive windows, and the time at which each row starts (NaN for text), in s.

    Args:
        windows: each with the segments of its rows, in order.
        hop_seconds: from one audio row to the next.
    """
    spans: list[Span] = []
    seconds: list[np.ndarray] = [np.zeros(0)]
    row = 0
    for number, (window, segments) in enumerate(windows):
        for kind, count in segments:
            spans.append(Span(kind, row, row + count, number))
            row += count
            hops = np.arange(count) * hop_seconds + window.start_seconds
            seconds.append(hops if kind == "audio" else np.full(count, np.nan))
    return tuple(spans), np.concatenate(seconds)
