"""RowIndex: the recording, window, time and span that each row of an array of vectors is of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from qwen_audio.errors import counted

__all__ = ["ALL_WINDOWS", "IndexedRows", "RowIndex"]

ALL_WINDOWS = -1
"""The window of a row that pools all windows of its recording."""


@dataclass(frozen=True, eq=False, repr=False)
class RowIndex:
    """Where the rows of an array are from, in parallel arrays.

    Attributes:
        sources: the recordings, each once: paths, URIs or names.
        recording: shape (rows,): index into `sources`.
        window: shape (rows,): number of the window within the recording; −1 where a row pools all
            of them.
        start_seconds, end_seconds: shape (rows,): in the recording; NaN for rows of text.
        span: shape (rows,): "audio", "prompt" or "generated" for rows of a tap, the span that was
            pooled ("audio", "prompt", "last", "all") for pooled ones.
        token: shape (rows,): the text of the token at each row of text, "" for audio; None where
            rows are no positions of the language model.
    """

    sources: tuple[str, ...]
    recording: Int64[np.ndarray, "rows"]
    window: Int64[np.ndarray, "rows"]
    start_seconds: Float64[np.ndarray, "rows"]
    end_seconds: Float64[np.ndarray, "rows"]
    span: np.ndarray
    token: np.ndarray | None = None

    def __post_init__(self) -> None:
        arrays = (self.recording, self.window, self.start_seconds, self.end_seconds, self.span)
        lengths = {len(array) for array in arrays}
        if len(lengths | ({len(self.token)} if self.token is not None else set())) != 1:
            raise ValueError(f"parallel arrays of different lengths: {sorted(lengths)}")

    @classmethod
    def of_recording(
        cls,
        source: str,
        window: Int64[np.ndarray, "rows"],
        start_seconds: Float64[np.ndarray, "rows"],
        end_seconds: Float64[np.ndarray, "rows"],
        span: np.ndarray,
        token: np.ndarray | None = None,
    ) -> RowIndex:
        """Rows that are all of one recording."""
        recording = np.zeros(len(window), np.int64)
        return cls((source,), recording, window, start_seconds, end_seconds, span, token)

    @property
    def source(self) -> np.ndarray:
        """Shape (rows,): the recording of each row, by name."""
        return np.array(self.sources or ("",))[self.recording]

    def __len__(self) -> int:
        return len(self.window)

    def __getitem__(self, rows: Any) -> RowIndex:
        """Of some rows: an integer, a slice, a mask or indices."""
        if isinstance(rows, int | np.integer):
            rows = [rows]
        return RowIndex(
            self.sources,
            self.recording[rows],
            self.window[rows],
            self.start_seconds[rows],
            self.end_seconds[rows],
            self.span[rows],
            None if self.token is None else self.token[rows],
        )

    def between(self, start_seconds: float, end_seconds: float) -> np.ndarray:
        """Mask of the rows whose time overlaps start … end; False for rows of text."""
        return (self.end_seconds > start_seconds) & (self.start_seconds < end_seconds)

    def columns(self) -> dict[str, np.ndarray]:
        """The parallel arrays by name: source, window, start_seconds, end_seconds, span and, where
        rows are positions of the language model, token."""
        columns = {
            "source": self.source,
            "window": self.window,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "span": self.span,
        }
        return columns if self.token is None else {**columns, "token": self.token}

    @classmethod
    def concatenate(cls, parts: Sequence[RowIndex]) -> RowIndex:
        """The rows of all parts, one after another; a part's recordings are its own."""
        offsets = np.cumsum([0, *(len(part.sources) for part in parts)])
        tokens = [
            part.token if part.token is not None else np.full(len(part), "") for part in parts
        ]
        has_tokens = any(part.token is not None for part in parts)
        return cls(
            tuple(source for part in parts for source in part.sources),
            _joined(
                (part.recording + offset for part, offset in zip(parts, offsets, strict=False)),
                np.int64,
            ),
            _joined((part.window for part in parts), np.int64),
            _joined((part.start_seconds for part in parts), np.float64),
            _joined((part.end_seconds for part in parts), np.float64),
            _joined((part.span for part in parts), np.str_),
            _joined(tokens, np.str_) if has_tokens else None,
        )

    def __repr__(self) -> str:
        count = len(np.unique(self.recording))
        return f"RowIndex({counted(len(self), 'row')} of {counted(count, 'recording')})"


class IndexedRows:
    """What every result of several rows has: where each row is from, in arrays of shape (rows,).

    Beside these, each has `start_seconds`: where a row begins in its recording; NaN for text.
    """

    if TYPE_CHECKING:

        @property
        def index(self) -> RowIndex:
            """Where the rows are from."""

    @property
    def source(self) -> np.ndarray:
        """Shape (rows,): the recording of each row: its path, or its name."""
        return self.index.source

    @property
    def window(self) -> np.ndarray:
        """Shape (rows,): the number of the window; −1 where a row pools all of them."""
        return self.index.window

    @property
    def end_seconds(self) -> np.ndarray:
        """Shape (rows,): where each row ends in its recording; NaN for text."""
        return self.index.end_seconds

    @property
    def span(self) -> np.ndarray:
        """Shape (rows,): the span of each row: see `RowIndex`."""
        return self.index.span


def _joined(arrays: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays])
