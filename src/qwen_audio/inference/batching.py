"""Inputs of any kind → windows with their log-mel spectrograms, in batches of one pass each.

Decoding, resampling and mel run in threads while the model works on the batch before. The lookahead
is bounded, so that memory does not grow with the number of recordings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.weights.device import batch_frames
from qwen_audio.weights.worker_threads import WorkerThreads

from .memory_budget import batch_by_size
from .pipeline import Pipeline
from .prefetch import prefetch, prefetch_map

__all__ = ["FailedRecording", "batched_windows", "batched_windows_and_failures"]

_THREADS = min(4, os.cpu_count() or 1)
"""Decoding releases the GIL; more threads would mean more memory, as each has its own heap."""
_RECORDINGS_AHEAD = 4
_BATCHES_AHEAD = 1
_FRAMES_OF_A_FAILURE = 60
"""Counted as a short clip, so that a stream of nothing but failures still fills batches."""


@dataclass(frozen=True)
class FailedRecording:
    """A recording that can't be decoded, in its place among the others.

    Attributes:
        recording_index: its index among the inputs.
    """

    recording_index: int
    error: AudioError


def batched_windows(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    load_options: LoadOptions,
    window_config: WindowConfig,
) -> Iterator[list[AudioWindow]]:
    """Windows of all recordings in order, in batches of at most `batch_frames` encoder frames.

    Raises:
        AudioError: for the first recording that can't be decoded.
    """
    for batch in batched_windows_and_failures(pipeline, inputs, load_options, window_config):
        for item in batch:
            if isinstance(item, FailedRecording):
                raise item.error
        yield cast("list[AudioWindow]", batch)


def batched_windows_and_failures(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    load_options: LoadOptions,
    window_config: WindowConfig,
) -> Iterator[list[AudioWindow | FailedRecording]]:
    """As `batched_windows`, with a `FailedRecording` in place of one that can't be decoded."""
    _ = pipeline.checkpoint.feature_extractor  # created before threads ask for it
    windows = _windows(pipeline, inputs, load_options, window_config)
    budget = batch_frames(pipeline.device)
    return prefetch(batch_by_size(windows, _frames, [budget]), _BATCHES_AHEAD)


def _windows(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    load_options: LoadOptions,
    window_config: WindowConfig,
) -> Iterator[AudioWindow | FailedRecording]:
    settings: dict[str, Any] = dict(vars(load_options))

    def load(numbered: tuple[int, Any]) -> tuple[int, Waveform] | FailedRecording:
        clip, audio = numbered
        try:
            if callable(audio):  # opened only now
                audio = audio()
                if isinstance(audio, Waveform):  # decoded by itself
                    return clip, audio
            return clip, load_waveform(audio, **settings)
        except AudioError as error:
            return FailedRecording(clip, error)

    with WorkerThreads(_THREADS, "audio") as threads:
        for loaded in prefetch_map(load, enumerate(inputs), threads, _RECORDINGS_AHEAD):
            if isinstance(loaded, FailedRecording):
                yield loaded
                continue
            clip, waveform = loaded
            # In this one thread, not in the pool: a spectrogram already uses several cores, and
            # each thread that computes them would need memory of its own.
            for window in waveform.windows(window_config):
                log_mel = pipeline.log_mel(waveform.samples_in(window))
                yield AudioWindow(clip, waveform.info, window, log_mel)


def _frames(item: AudioWindow | FailedRecording) -> tuple[int]:
    if isinstance(item, FailedRecording):
        return (_FRAMES_OF_A_FAILURE,)
    return (item.log_mel.encoder_frames,)
