"""Pooling as one would write it down: over all rows of a recording at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from qwen_audio.inference.hidden_states import HiddenStates

Rows = np.ndarray[Any, np.dtype[np.float32]]


def last_rows(frames: HiddenStates) -> list[int]:
    """For each window its last row before anything generated."""
    last = {s.window: s.stop - 1 for s in frames.spans if s.kind != "generated" and len(s)}
    return [last[window] for window in sorted(last)]


def rows_of(frames: HiddenStates, span: str) -> Rows:
    """The rows of a span."""
    if span == "all":
        return frames.data
    rows = last_rows(frames) if span == "last" else frames.rows(span)  # type: ignore[arg-type]
    return frames.data[rows]


def pooled_at_once(frames: HiddenStates, span: str, pooling: str) -> Rows:
    """One vector for all rows of a span, or the rows themselves."""
    rows = rows_of(frames, span)
    if pooling == "mean":
        return rows.astype(np.float64).mean(axis=0).astype(np.float32)
    if pooling == "mean+std":
        exact = rows.astype(np.float64)
        return np.concatenate([exact.mean(axis=0), exact.std(axis=0)]).astype(np.float32)
    return {"max": lambda: np.amax(rows, axis=0), "last": lambda: rows[-1], "none": lambda: rows}[
        pooling
    ]()
