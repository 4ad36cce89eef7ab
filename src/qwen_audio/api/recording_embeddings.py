"""The embeddings of one recording, from what pooling kept of its windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from qwen_audio.audio.window import Window
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.options import PoolingUnit, ReturnTensors
from qwen_audio.inference.pooling import PooledWindow, Pooling
from qwen_audio.inference.reader import CapturedRecording
from qwen_audio.inference.row_index import ALL_WINDOWS, RowIndex
from qwen_audio.inference.spans import index_of_spans, spans_and_times
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Tap

from .embeddings import Embeddings

__all__ = ["recording_embeddings", "stacked"]


def recording_embeddings(
    captured: CapturedRecording[PooledWindow],
    pool: Pooling,
    spec: EmbeddingSpec,
    tap: Tap,
    row_times: Callable[[Tap], RowTimes],
    per: PoolingUnit,
    token_texts: Callable[[Sequence[int]], Sequence[str]],
) -> Embeddings | torch.Tensor:
    """What a recording's pooled windows add up to: one vector, one a window, or all rows.

    Args:
        row_times: of a tap; asked for where rows aren't pooled.
        pool: that reduced the windows; a tensor is returned if it kept them on the device.
        token_texts: the text of each position of the language model, "" for audio.
    """
    windows: Sequence[PooledWindow] = [output[tap] for output in captured.outputs]
    if per == "window":
        vectors = torch.stack([pool.combine_tensors([window]) for window in windows])
    else:
        vectors = pool.combine_tensors(windows)
    if pool.device is not None:
        return vectors
    source = captured.recording.name
    if pool.pooling == "none":
        index = _index_of_rows(captured, windows, pool, tap, row_times(tap), token_texts)
    elif per == "window":
        index = _index_of_windows(source, range(len(windows)), captured.windows, pool.span)
    else:
        first, last = captured.windows[0], captured.windows[-1]
        whole = Window(first.start_seconds, last.end_seconds)
        index = _index_of_windows(source, [ALL_WINDOWS], [whole], pool.span)
    return Embeddings(vectors.float().numpy(), index, spec)


def _index_of_windows(
    source: str, numbers: Sequence[int], windows: Sequence[Window], span: str
) -> RowIndex:
    return RowIndex.of_recording(
        source,
        np.array(numbers, np.int64),
        np.array([window.start_seconds for window in windows]),
        np.array([window.end_seconds for window in windows]),
        np.full(len(windows), span),
    )


def _index_of_rows(
    captured: CapturedRecording[Any],
    windows: Sequence[PooledWindow],
    pool: Pooling,
    tap: Tap,
    row_times: RowTimes,
    token_texts: Callable[[Sequence[int]], Sequence[str]],
) -> RowIndex:
    """As `HiddenStates.index`, of the rows of one span."""
    segments = [window.segments for window in windows]
    spans, seconds = spans_and_times(zip(captured.windows, segments, strict=True), row_times)
    tokens = None
    if tap.in_language_model:
        if pool.span == "audio":
            tokens = [""] * sum(count for parts in segments for _, count in parts)
        else:
            chosen = [_of_span(token_texts(ids), pool.span) for ids in captured.token_ids]
            tokens = list(itertools.chain.from_iterable(chosen))
    index = index_of_spans(
        captured.recording.name, spans, seconds, captured.windows, row_times, tokens
    )
    return replace(index, span=np.full(len(index), "last")) if pool.span == "last" else index


def _of_span(texts: Sequence[str], span: str) -> Sequence[str]:
    """The texts of the positions in a span other than the audio's."""
    if span == "all":
        return texts
    if span == "last":
        return texts[-1:]
    return [text for text in texts if text]


def stacked(
    parts: Sequence[Any], width: int, spec: EmbeddingSpec, return_tensors: ReturnTensors
) -> Any:
    """One row for each of several recordings, or none, of vectors or tensors."""
    if return_tensors == "pt":
        return torch.stack(list(parts)) if parts else torch.zeros(0, width)
    if parts:
        return Embeddings.concatenate(parts)
    return Embeddings(np.zeros((0, width)), RowIndex.concatenate([]), spec)
