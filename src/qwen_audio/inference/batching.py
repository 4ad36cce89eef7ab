"""Inputs of any kind → windows with their log-mel spectrograms, in batches for one pass each.

Decoding, resampling and mel run ahead of the model, which works on the batch before. How
far ahead is bounded, so that memory does not grow with the number of recordings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.models.packed_attention import T
from qwen_audio.weights.device import batch_frames

from .pipeline import Pipeline
from .prefetch import prefetch, prefetch_map

__all__ = ["Failed", "batched_windows", "batched_windows_or_errors", "batches"]

_THREADS = min(4, os.cpu_count() or 1)
"""Decoding lets go of Python's lock; each thread keeps some memory to itself."""
_RECORDINGS_AHEAD = 4
_BATCHES_AHEAD = 1


@dataclass(frozen=True)
class Failed:
    """A recording that can't be heard, in its place among the others."""

    recording_index: int
    error: AudioError


def batched_windows(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    sampling_rate: int | None,
    window_config: WindowConfig,
) -> Iterator[list[AudioWindow]]:
    """As `pieces_in_batches`, for callers who need every recording.

    Raises:
        AudioError: for the first that can't be heard.
    """
    for batch in batched_windows_or_errors(pipeline, inputs, sampling_rate, window_config):
        for piece in batch:
            if isinstance(piece, Failed):
                raise piece.error
        yield cast("list[AudioWindow]", batch)


def batched_windows_or_errors(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    sampling_rate: int | None,
    window_config: WindowConfig,
) -> Iterator[list[AudioWindow | Failed]]:
    """Windows of all recordings in order, grouped by a budget of encoder frames."""
    _ = pipeline.checkpoint.extractor  # made once, before threads ask for it
    pieces = _pieces(pipeline, inputs, sampling_rate, window_config)
    return prefetch(batches(pieces, _frames, batch_frames(pipeline.device)), _BATCHES_AHEAD)


def _pieces(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    sampling_rate: int | None,
    window_config: WindowConfig,
) -> Iterator[AudioWindow | Failed]:
    def load(numbered: tuple[int, Any]) -> tuple[int, Waveform] | Failed:
        clip, audio = numbered
        try:
            if callable(audio):  # opened when its turn comes, and not before
                audio = audio()
            return clip, load_waveform(audio, sampling_rate=sampling_rate)
        except AudioError as error:
            return Failed(clip, error)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="audio") as threads:
        for loaded in prefetch_map(load, enumerate(inputs), threads, _RECORDINGS_AHEAD):
            if isinstance(loaded, Failed):
                yield loaded
                continue
            clip, waveform = loaded
            # In this one thread, which runs ahead of the model's: a spectrogram is made by several
            # processors as it is, and each thread that makes them would keep memory to itself.
            for window in waveform.windows(window_config):
                yield AudioWindow(
                    clip, waveform.info, window, pipeline.mel(waveform.samples_in(window))
                )


def _frames(piece: AudioWindow | Failed) -> int:
    return 60 if isinstance(piece, Failed) else piece.log_mel.encoder_frames  # else it never fills


def batches(items: Iterable[T], size: Any, budget: int) -> Iterator[list[T]]:
    """Neighbours grouped so that the sum of `size(item)` stays within a budget.

    An item larger than the budget makes a batch of its own; order is kept, nothing is left out.
    """
    batch: list[T] = []
    filled = 0
    for item in items:
        if batch and filled + size(item) > budget:
            yield batch
            batch, filled = [], 0
        batch.append(item)
        filled += size(item)
    if batch:
        yield batch
