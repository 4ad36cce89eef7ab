"""Hidden states of one recording at one tap, with the time and the span of each row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, cast

import numpy as np
from jaxtyping import Bool, Float64, Int64
from typing_extensions import TypeVar

from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError, counted
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Tap

from .data_array import to_xarray
from .data_frame import to_pandas
from .embedding_spec import EmbeddingSpec
from .html_table import rows_table
from .row_index import IndexedRows, RowIndex
from .spans import Span, SpanKind, WindowRows, index_of_spans, indices_of_kind, spans_and_times

if TYPE_CHECKING:
    import pandas as pd
    import torch
    import xarray as xr

__all__ = ["HiddenStates", "concatenate_windows"]

RowsT = TypeVar("RowsT", default=np.ndarray)
"""float32 arrays, or tensors, of shape (rows, width)."""


@dataclass(frozen=True, eq=False, repr=False)
class HiddenStates(IndexedRows, Generic[RowsT]):
    """The rows of one tap for one recording, all windows concatenated.

    `np.asarray` gives the rows. Indexing gives the hidden states of some rows: `states[100:200]`,
    a mask or indices; by time in seconds, `states[2.0:4.0]` (see `between`); `states[7]` is one
    row, as an array.

    Attributes:
        data: shape (rows, width): a float32 array, or, if tensors were asked for, a tensor on the
            model's device in its dtype.
        tap: that the rows were captured at.
        start_seconds: shape (rows,): where each row begins in the recording; NaN for text. Also
            `end_seconds`, `window`, `span` and `source`: see `index`.
        spans: which rows are audio, prompt or generated; together they are all rows, in order.
        windows: the parts of the recording that were encoded at once; spans index into it.
        row_times: how long the rows of audio are.
        dtype: of the computation ("float32", "bfloat16").
        name: of the recording: its path, or what it was given with.
        tokens: the text of the token at each position of the language model, "" for audio; empty
            at taps before it.
        spec: what the rows were computed with.
    """

    data: RowsT
    tap: Tap
    start_seconds: Float64[np.ndarray, "rows"]
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]
    row_times: RowTimes
    dtype: str = "float32"
    name: str = ""
    tokens: tuple[str, ...] = ()
    spec: EmbeddingSpec | None = None

    def __post_init__(self) -> None:
        covered = 0
        for span in self.spans:
            if span.start != covered or span.stop < span.start:
                raise ValueError(f"spans must be consecutive, without gaps: {self.spans}")
            covered = span.stop
        if len(cast(Any, self.data).shape) != 2:
            raise ValueError(f"data of shape {cast(Any, self.data).shape}: expected (rows, width)")
        if not covered == len(self) == len(self.start_seconds):
            raise ValueError(
                f"{len(self)} rows, {len(self.start_seconds)} times and spans over {covered}"
            )
        if self.tokens and len(self.tokens) != covered:
            raise ValueError(f"{covered} rows, {len(self.tokens)} tokens")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)."""
        rows, width = cast(Any, self.data).shape
        return rows, width

    @property
    def hop_seconds(self) -> float:
        """Seconds of audio from one audio row to the next; on average, where that differs."""
        return self.row_times.hop_seconds

    @property
    def index(self) -> RowIndex:
        """The recording, window, time, span and token of each row; a row of audio ends where the
        next begins, or with its window."""
        return index_of_spans(
            self.name,
            self.spans,
            self.start_seconds,
            self.windows,
            self.row_times,
            self.tokens or None,
        )

    def indices(self, kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
        """Indices of the rows of one kind, in order."""
        return indices_of_kind(self.spans, kind)

    def mask(self, kind: SpanKind) -> Bool[np.ndarray, "rows"]:
        """Shape (rows,): whether each row is of this kind."""
        mask = np.zeros(len(self), bool)
        mask[self.indices(kind)] = True
        return mask

    def between(self, start_seconds: float, end_seconds: float) -> HiddenStates[RowsT]:
        """The audio rows whose time overlaps start … end, in seconds."""
        return self[self.index.between(start_seconds, end_seconds)]

    def to_torch(self) -> torch.Tensor:
        """The rows as a tensor, which shares their memory."""
        import torch

        if isinstance(self.data, np.ndarray):
            return torch.from_numpy(self.data)
        return cast("torch.Tensor", self.data)

    def to_pandas(self) -> pd.DataFrame:
        """One line a row: source, window, start_seconds, end_seconds, span, token (at taps in the
        language model), tap and vector.

        Raises:
            MissingExtraError: without pandas.
        """
        return to_pandas(self.index, str(self.tap), np.asarray(self))

    def to_xarray(self) -> xr.DataArray:
        """Dimensions row and feature; coordinates of rows as the columns of `to_pandas`, and the
        tap as the name.

        Raises:
            MissingExtraError: without xarray.
        """
        return to_xarray(self.index, str(self.tap), np.asarray(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        is_array = isinstance(self.data, np.ndarray)
        data = self.data if is_array else self.to_torch().float().cpu().numpy()
        return np.array(data, dtype, copy=copy)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            return cast(Any, self.data)[rows]
        if isinstance(rows, slice) and any(
            isinstance(bound, float) for bound in (rows.start, rows.stop)
        ):
            if rows.step is not None:
                raise OptionError(f"{rows}: seconds can't have a step: use indices of rows")
            start, stop = (
                default if bound is None else bound
                for bound, default in ((rows.start, 0.0), (rows.stop, float("inf")))
            )
            return self.between(start, stop)
        index = np.arange(len(self))[rows]
        if index.ndim != 1:
            raise OptionError(f"{rows!r:.60}: index rows only, and their numbers in `data`")
        return self._chosen(index)

    def _chosen(self, index: Int64[np.ndarray, "chosen"]) -> HiddenStates[RowsT]:
        kinds = [(span.kind, span.window) for span in self.spans for _ in range(len(span))]
        runs = itertools.groupby(kinds[row] for row in index)
        spans, start = [], 0
        for (kind, window), members in runs:
            stop = start + sum(1 for _ in members)
            spans.append(Span(kind, start, stop, window))
            start = stop
        return replace(
            self,
            data=cast(Any, self.data)[index],
            start_seconds=self.start_seconds[index],
            spans=tuple(spans),
            tokens=tuple(self.tokens[row] for row in index) if self.tokens else (),
        )

    def _repr_html_(self) -> str:
        return rows_table(self.index, np.asarray(self), repr(self))

    def __repr__(self) -> str:
        rows, width = self.shape
        kinds = dict.fromkeys(span.kind for span in self.spans)
        spans = ", ".join(f"{kind} {len(self.indices(kind))}" for kind in kinds)
        rate = f"{self.row_times.rate_hz:g} Hz"
        rate = f"positions (audio at {rate})" if self.tap.in_language_model else rate
        windows = ", ".join(str(window) for window in self.windows[:3])
        more = f" … {self.windows[-1]}" if len(self.windows) > 3 else ""
        return (
            f"HiddenStates({self.tap}: {counted(rows, 'row')} × {width}, {rate}; {spans}; "
            f"windows {windows}{more}; {self.dtype})"
        )


def concatenate_windows(
    windows: tuple[Window, ...],
    outputs: Sequence[dict[Tap, WindowRows]],
    specs: Mapping[Tap, EmbeddingSpec],
    row_times: Callable[[Tap], RowTimes],
    *,
    name: str,
    tokens: tuple[str, ...],
) -> dict[Tap, HiddenStates]:
    """The windows of one recording as one `HiddenStates` for each tap.

    Args:
        outputs: for each window and tap its rows and segments (see `rows_and_segments`).
        specs: of each tap.
        row_times: of each tap.
        tokens: see `HiddenStates`; of taps in the language model.
    """
    hidden_states: dict[Tap, HiddenStates] = {}
    for tap, spec in specs.items():
        rows = [output[tap] for output in outputs]
        segments = zip(windows, (segments for _, segments in rows), strict=True)
        times = row_times(tap)
        spans, seconds = spans_and_times(segments, times)
        hidden_states[tap] = HiddenStates(
            _concatenate([data for data, _ in rows]),
            tap,
            seconds,
            spans,
            windows,
            times,
            spec.dtype,
            name,
            tokens if tap.in_language_model else (),
            spec,
        )
    return hidden_states


def _concatenate(parts: Sequence[Any]) -> Any:
    """Arrays or tensors, one after another; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))
