"""Frames: the rows read at one tap, with the seconds and the part of the input each belongs to."""

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
    "assemble",
    "in_order",
    "rows_of_kind",
]

SpanKind = Literal["audio", "prompt", "generated"]


Segment = tuple[SpanKind, int]
"""So many rows of one kind, one after another."""

WindowRows = tuple[Float32[np.ndarray, "_rows _width"], tuple[Segment, ...]]
"""The rows of one window at one tap, and what they are."""


@dataclass(frozen=True)
class Span:
    """Rows start … stop−1, and the window (an index into `HiddenStates.windows`) they belong to."""

    kind: SpanKind
    start: int
    stop: int
    window: int = 0

    def __len__(self) -> int:
        return self.stop - self.start


def rows_of_kind(spans: Iterable[Span], kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
    """Indices of the rows of one kind, in order."""
    chosen = [np.arange(span.start, span.stop) for span in spans if span.kind == kind]
    return np.concatenate([np.zeros(0, np.int64), *chosen])


def in_order(
    windows: Iterable[tuple[Window, Sequence[Segment]]], hop_seconds: float
) -> tuple[tuple[Span, ...], Float64[np.ndarray, "rows"]]:
    """The runs of windows, laid one after another: spans, and when each row starts (NaN for text).

    Args:
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
    """What stands at one tap of the line for one recording, window after window.

    Attributes:
        data: shape (rows, width).
        tap: where it was read.
        seconds: shape (rows,): when in the recording each row's hop starts; NaN for text.
        spans: which rows are audio, prompt or generated; together they are all rows, in order.
        windows: the seconds that the model heard at once; spans point into it.
        dtype: of the arithmetic ("float32", "bfloat16"); `data` is float32 always.
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
                raise ValueError(f"spans must follow one another without gaps: {self.spans}")
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

    def last_rows(self) -> Int64[np.ndarray, "windows"]:
        """For each window the last row that was given to the model, before anything generated."""
        last = {s.window: s.stop - 1 for s in self.spans if s.kind != "generated" and len(s)}
        return np.array([last[window] for window in sorted(last)], np.int64)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        rows, width = self.data.shape
        kinds = dict.fromkeys(span.kind for span in self.spans)
        spans = ", ".join(f"{kind} {len(self.rows(kind))}" for kind in kinds)
        rate = f"{self.tap.rate_hz:g} Hz"
        rate = f"positions (audio at {rate})" if self.tap.in_language_model else rate
        heard = ", ".join(str(window) for window in self.windows[:3])
        more = f" … {self.windows[-1]}" if len(self.windows) > 3 else ""
        return (
            f"HiddenStates({self.tap}: {rows} rows × {width}, {rate}; {spans}; "
            f"windows {heard}{more}; {self.dtype})"
        )


def assemble(
    windows: tuple[Window, ...],
    kept: Sequence[dict[Tap, WindowRows]],
    taps: Iterable[Tap],
    dtype: str,
) -> dict[Tap, HiddenStates]:
    """The windows of one recording, laid one after another, for each tap."""
    frames: dict[Tap, HiddenStates] = {}
    for tap in taps:
        states = [state[tap] for state in kept]
        segments = zip(windows, (segments for _, segments in states), strict=True)
        spans, seconds = in_order(segments, tap.hop_seconds)
        data = np.concatenate([rows for rows, _ in states])
        frames[tap] = HiddenStates(data, tap, seconds, spans, windows, dtype)
    return frames
