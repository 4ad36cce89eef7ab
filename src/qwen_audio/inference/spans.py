"""Spans: which rows of a tap are audio, prompt or generated, and their times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from qwen_audio.audio.window import Window

__all__ = [
    "Segment",
    "Span",
    "SpanKind",
    "WindowRows",
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
