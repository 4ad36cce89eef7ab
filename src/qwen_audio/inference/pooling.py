"""Many rows → one vector, window by window; nothing here can see padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from qwen_audio.errors import OptionError
from qwen_audio.models.tap import Tap

from .hidden_states import Segment

__all__ = [
    "Pooled",
    "Pooling",
    "PoolingName",
    "SpanName",
    "check_pooling",
    "check_span",
    "pooled_width",
]

PoolingName = Literal["mean", "max", "mean+std", "last", "none"]
SpanName = Literal["audio", "prompt", "last", "all"]


def pooled_width(pooling: str, width: int) -> int:
    """How wide rows of `width` are once they are pooled."""
    return 2 * width if pooling == "mean+std" else width


def check_pooling(pooling: str) -> None:
    """Raises OptionError for a name that is no pooling."""
    if pooling not in get_args(PoolingName):
        raise OptionError(f"pooling={pooling!r}: use one of {', '.join(get_args(PoolingName))}")


def check_span(span: str, tap: Tap) -> None:
    """Raises OptionError for a name that is no span, or that this tap has no rows of."""
    if span not in get_args(SpanName):
        raise OptionError(f"span={span!r}: use one of {', '.join(get_args(SpanName))}")
    if span in ("prompt", "last") and not tap.in_language_model:
        raise OptionError(
            f"span={span!r} at tap {tap}: only the language model (lm.K, lm.norm) sees a prompt; "
            "use span='audio' here"
        )


@dataclass(frozen=True, eq=False)
class Pooled:
    """What pooling has to keep of one window: the sum of its rows in float64, say, and their count.

    `values` are rows of float32 that are never added up where the pooling isn't "mean" or
    "mean+std".
    """

    values: Float[np.ndarray, "... width"]
    rows: int


@dataclass(frozen=True)
class Pooling:
    """Pooling on the way: each window as soon as its rows are there, so that they can be let go.

    Poolings are: mean; max; mean+std, the mean and after it the standard deviation (of the rows as
    they are, divided by their number), twice as wide; last, the last row; none.

    Spans are: audio, one row per hop; prompt, the text around it, markers included; last, the
    position before the answer begins, one per window; all, whatever the window holds.

    Raises:
        OptionError: for a name that is no pooling.
    """

    pooling: PoolingName = "mean"
    span: SpanName = "audio"

    def __post_init__(self) -> None:
        check_pooling(self.pooling)

    def window(self, rows: Float[Tensor, "rows width"], segments: Sequence[Segment]) -> Pooled:
        """Of one window's rows, which are of the kinds that `runs` says, in order."""
        chosen = rows
        if self.span == "last":
            given = sum(count for kind, count in segments if kind != "generated")
            chosen = rows[given - 1 : given]
        elif self.span != "all":
            counts = [count for _, count in segments]
            parts = zip(rows.split(counts), segments, strict=True)
            mine = [part for part, (kind, _) in parts if kind == self.span]
            chosen = rows.new_empty(0, rows.shape[1]) if not mine else torch.cat(mine)
        count = len(chosen)
        if self.pooling == "mean":
            chosen = chosen.double().sum(0)
        elif self.pooling == "mean+std":
            chosen = chosen.double()
            chosen = torch.stack([chosen.sum(0), chosen.square().sum(0)])
        elif self.pooling == "max" and count:
            chosen = chosen.amax(0).float()
        else:
            chosen = (chosen[-1:] if self.pooling == "last" else chosen).float()
        return Pooled(chosen.cpu().numpy().copy(), count)

    def recording(self, windows: Sequence[Pooled]) -> Float32[np.ndarray, "... width"]:
        """Of all its windows, in order. Raises OptionError if there are no rows to pool."""
        if self.pooling == "none":
            return np.concatenate([window.values for window in windows])
        filled = [window for window in windows if window.rows]
        if not filled:
            raise _nothing_to_pool()
        values = [window.values for window in filled]
        if self.pooling == "mean":  # summed in float64, so that the order of long sums is no matter
            total = np.sum(values, axis=0) / sum(window.rows for window in filled)
            return np.asarray(total, np.float32)
        if self.pooling == "mean+std":
            mean, square = np.sum(values, axis=0) / sum(window.rows for window in filled)
            spread = np.sqrt(np.maximum(square - mean**2, 0))
            return np.asarray(np.concatenate([mean, spread]), np.float32)
        return np.asarray(np.max(values, axis=0)) if self.pooling == "max" else values[-1][-1]


def _nothing_to_pool() -> OptionError:
    return OptionError("there are no rows to pool: choose a span that the frames hold")
