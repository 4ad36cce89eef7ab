"""Hidden states of one recording at one tap, with the time and the span of each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from qwen_audio.audio.window import Window
from qwen_audio.models.tap import Tap

__all__ = [
    "HiddenStates",
    "Segment",
    "Span",
    "SpanKind",
    "WindowRows",
    "concatenate_windows",
    "rows_of_kind",
    "spans_and_times",
]

SpanKind = Literal["audio", "prompt", "generated"]


Segment = tuple[SpanKind, int]
"""(kind, count): consecutive rows of one kind."""

WindowRows = tuple[Float32[np.ndarray, "_rows _width"], tuple[Segment, ...]]
"""The rows of one window at one tap, and their segments."""


@dataclass(frozen=True)
class Span:
    """Rows start … stop−1, of one kind and one window (an index into `HiddenStates.windows`)."""

    kind: SpanKind
    start: int
    stop: int
    window: int = 0

    def __len__(self) -> int:
        return self.stop - self.start


def rows_of_kind(spans: Iterable[Span], kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
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


@dataclass(frozen=True, eq=False, repr=False)
class HiddenStates:
    """The rows of one tap for one recording, all windows concatenated.

    Attributes:
        data: shape (rows, width).
        tap: that the rows were captured at.
        seconds: shape (rows,): the time in the recording at which each row starts; NaN for text.
        spans: which rows are audio, prompt or generated; together they are all rows, in order.
        windows: the parts of the recording that were encoded at once; spans index into it.
        dtype: of the computation ("float32", "bfloat16"); `data` is always float32.
    """

    data: Float32[np.ndarray, "rows width"]
    tap: Tap
    seconds: Float64[np.ndarray, "rows"]
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        covered = 0
        for span in self.spans:
            if span.start != covered or span.stop < span.start:
                raise ValueError(f"spans must be consecutive, without gaps: {self.spans}")
            covered = span.stop
        if not covered == len(self.data) == len(self.seconds):
            raise ValueError(
                f"{len(self.data)} rows, {len(self.seconds)} times and spans over {covered}"
            )

    @property
    def hop_seconds(self) -> float:
        """Seconds of audio from one audio row to the next."""
        return self.tap.hop_seconds

    def rows(self, kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
        """Indices of the rows of one kind, in order."""
        return rows_of_kind(self.spans, kind)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        rows, width = self.data.shape
        kinds = dict.fromkeys(span.kind for span in self.spans)
        spans = ", ".join(f"{kind} {len(self.rows(kind))}" for kind in kinds)
        rate = f"{self.tap.rate_hz:g} Hz"
        rate = f"positions (audio at {rate})" if self.tap.in_language_model else rate
        windows = ", ".join(str(window) for window in self.windows[:3])
        more = f" … {self.windows[-1]}" if len(self.windows) > 3 else ""
        return (
            f"HiddenStates({self.tap}: {rows} rows × {width}, {rate}; {spans}; "
            f"windows {windows}{more}; {self.dtype})"
        )


def concatenate_windows(
    windows: tuple[Window, ...],
    outputs: Sequence[dict[Tap, WindowRows]],
    taps: Iterable[Tap],
    dtype: str,
) -> dict[Tap, HiddenStates]:
    """The windows of one recording as one `HiddenStates` for each tap.

    Args:
        outputs: for each window and tap its rows and segments (see `rows_and_segments`).
    """
    hidden_states: dict[Tap, HiddenStates] = {}
    for tap in taps:
        rows = [output[tap] for output in outputs]
        segments = zip(windows, (segments for _, segments in rows), strict=True)
        spans, seconds = spans_and_times(segments, tap.hop_seconds)
        data = np.concatenate([data for data, _ in rows])
        hidden_states[tap] = HiddenStates(data, tap, seconds, spans, windows, dtype)
    return hidden_states
