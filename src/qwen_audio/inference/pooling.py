"""Pooling: many rows → one vector, window by window. No row is padding: clips are packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from qwen_audio.errors import OptionError
from qwen_audio.weights.device import float64_device

from .options import PoolingName, SpanName, check_pooling
from .spans import Segment

__all__ = [
    "PooledWindow",
    "Pooling",
    "pooled_width",
]


def pooled_width(pooling: str, width: int) -> int:
    """Width of the pooled vector of rows of `width`."""
    return 2 * width if pooling == "mean+std" else width


@dataclass(frozen=True, eq=False)
class PooledWindow:
    """What pooling keeps of one window.

    Attributes:
        values: "mean": the sum of the rows, (width,), float64; "mean+std": their sum and the sum of
            their squares, (2, width), float64; "max": (width,), "last": (1, width), "none": (rows,
            width), all in the dtype of the rows.
        row_count: rows of the span in this window.
        segments: of these rows.
    """

    values: Float[Tensor, "... width"]
    row_count: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Pooling:
    """Pooling of the rows of a span to one vector, window by window, so that rows can be freed.

    Poolings: mean; max; mean+std, the mean followed by the (population) standard deviation, twice
    as wide; last, the last row; none, all rows.

    Spans: audio, one row per hop; prompt, the text around it, markers included; last, the position
    before the answer begins, one per window; all, every row of the window.

    Attributes:
        device: where vectors are to be; values stay on it, as views of the rows where they are
            unpooled. None: they are copied to the CPU, so that rows are freed.

    Raises:
        OptionError: for an unknown pooling.
    """

    pooling: PoolingName = "mean"
    span: SpanName = "audio"
    device: torch.device | None = None

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    def pool_window(
        self, rows: Float[Tensor, "rows width"], segments: Sequence[Segment]
    ) -> PooledWindow:
        """One window's rows, reduced (a `RowReducer`)."""
        chosen, chosen_segments = self._span_rows(rows, segments)
        count = len(chosen)
        if self.pooling == "mean":
            chosen = _in_float64(chosen).sum(0)
        elif self.pooling == "mean+std":
            chosen = _in_float64(chosen)
            chosen = torch.stack([chosen.sum(0), chosen.square().sum(0)])
        elif self.pooling == "max" and count:
            chosen = chosen.amax(0)
        elif self.pooling == "last":
            chosen = chosen[-1:]
        if self.device is None:
            chosen = chosen.to("cpu", copy=True)
        return PooledWindow(chosen, count, chosen_segments)

    def combine(self, windows: Sequence[PooledWindow]) -> Float32[np.ndarray, "... width"]:
        """All windows of a recording, in order, as one vector (pooling "none": as rows).

        Raises:
            OptionError: if there are no rows to pool.
        """
        return self.combine_tensors(windows).float().cpu().numpy()

    def combine_tensors(self, windows: Sequence[PooledWindow]) -> Float[Tensor, "... width"]:
        """As `combine`: float32 for means, else in the dtype of the rows.

        Raises:
            OptionError: if there are no rows to pool.
        """
        if self.pooling == "none":
            parts = [window.values for window in windows]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        filled = [window for window in windows if window.row_count]
        if not filled:
            raise OptionError("there are no rows to pool: choose a span that the windows have")
        values = torch.stack([window.values for window in filled])
        total = sum(window.row_count for window in filled)
        if self.pooling == "mean":  # float64 sums: their order doesn't change the result
            return (values.sum(0) / total).float().to(device=self.device)
        if self.pooling == "mean+std":
            mean, mean_square = values.sum(0) / total
            std = (mean_square - mean**2).clamp(min=0).sqrt()
            return torch.cat([mean, std]).float().to(device=self.device)
        return values.amax(0) if self.pooling == "max" else values[-1][-1]

    def _span_rows(
        self, rows: Float[Tensor, "rows width"], segments: Sequence[Segment]
    ) -> tuple[Float[Tensor, "_span_rows width"], tuple[Segment, ...]]:
        if self.span == "all":
            return rows, tuple(segments)
        if self.span == "last":
            before_generated = sum(count for kind, count in segments if kind != "generated")
            return rows[before_generated - 1 : before_generated], (("prompt", 1),)
        chosen = tuple((kind, count) for kind, count in segments if kind == self.span)
        if len(segments) == 1 and chosen:
            return rows, chosen
        blocks = zip(rows.split([count for _, count in segments]), segments, strict=True)
        parts = [block for block, (kind, _) in blocks if kind == self.span]
        if len(parts) == 1:
            return parts[0], chosen
        return (torch.cat(parts) if parts else rows.new_empty(0, rows.shape[1])), chosen


def _in_float64(rows: Float[Tensor, "rows width"]) -> Float64[Tensor, "rows width"]:
    return rows.to(float64_device(rows.device)).double()
