"""Many rows → one vector. Pure functions over the rows of a span; nothing here can see padding."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32

from .errors import OptionError
from .frames import Frames
from .tap import Tap

__all__ = ["PoolingName", "SpanName", "check_pooling", "check_span", "pool", "select"]

PoolingName = Literal["mean", "max", "last", "none"]
SpanName = Literal["audio", "prompt", "last", "all"]


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


def select(frames: Frames, span: SpanName = "audio") -> Float32[np.ndarray, "chosen width"]:
    """The rows of a span.

    audio: one per hop; prompt: the text around it, markers included; last: the position before the
    answer begins, one per window; all: whatever the frames hold.

    Raises:
        OptionError: if the tap has no such span.
    """
    check_span(span, frames.tap)
    if span == "all":
        return frames.data
    rows = frames.last_rows() if span == "last" else frames.rows(span)
    return frames.data[rows]


def pool(
    rows: Float32[np.ndarray, "rows width"], pooling: PoolingName = "mean"
) -> Float32[np.ndarray, "*pooled width"]:
    """mean, max or last over rows gives (width,); none gives the rows themselves.

    Raises:
        OptionError: if there are no rows, or no such pooling.
    """
    check_pooling(pooling)
    if pooling == "none":
        return rows
    if not len(rows):
        raise OptionError("there are no rows to pool: choose a span that the frames hold")
    if pooling == "mean":  # summed in float64, so that the order of long sums does not show
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return rows.max(axis=0) if pooling == "max" else rows[-1].copy()
