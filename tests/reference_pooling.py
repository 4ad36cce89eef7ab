"""Reference implementation of pooling: over all rows of a recording at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from qwen_audio.inference.hidden_states import HiddenStates

Rows = np.ndarray[Any, np.dtype[np.float32]]


def last_rows(frames: HiddenStates) -> list[int]:
    """The last row of each window before any generated token."""
    last = {s.window: s.stop - 1 for s in frames.spans if s.kind != "generated" and len(s)}
    return [last[window] for window in sorted(last)]


def rows_of_span(frames: HiddenStates, span: str) -> Rows:
    """The rows of a span."""
    if span == "all":
        return frames.data
    rows = last_rows(frames) if span == "last" else frames.indices(span)  # type: ignore[arg-type]
    return frames.data[rows]


def pool(frames: HiddenStates, span: str, pooling: str) -> Rows:
    """The pooled vector of a span, or its rows for pooling "none"."""
    rows = rows_of_span(frames, span)
    if pooling == "mean":
        return rows.astype(np.float64).mean(axis=0).astype(np.float32)
    if pooling == "mean+std":
        rows_64 = rows.astype(np.float64)
        return np.concatenate([rows_64.mean(axis=0), rows_64.std(axis=0)]).astype(np.float32)
    return {"max": lambda: np.amax(rows, axis=0), "last": lambda: rows[-1], "none": lambda: rows}[
        pooling
    ]()
