"""Inputs of any kind → windows with their log-mel spectrograms, in batches of one pass each.

Decoding, resampling and mel run in threads while the model works on the batch before. The lookahead
is bounded, so that memory grows neither with the number of recordings nor with their length.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow, stream_windows
from qwen_audio.errors import AudioError
from qwen_audio.weights.worker_threads import WorkerThreads

from .memory_budget import batch_by_size
from .pipeline import Pipeline
from .prefetch import prefetch, prefetch_map

__all__ = ["FailedRecording", "batched_windows", "batched_windows_and_failures"]

_THREADS = min(4, os.cpu_count() or 1)
"""Decoding releases the GIL; more threads would mean more memory, as each has its own heap."""
_RECORDINGS_AHEAD = 4
_SECONDS_AHEAD = 60.0
"""Of each of these recordings: what it takes to decode short clips in parallel, and little memory
of long ones."""
_WINDOWS_AHEAD = 2
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
    """Windows of all recordings in order, in batches of at most `MemoryBudget.max_frames`.

    Recordings are decoded as their windows are needed: only with its last window, the one that has
    `AudioWindow.recording`, is a recording known to be in order.

    Args:
        inputs: anything that `load_waveform` takes, generators of windows, and functions without
            arguments that return one of these, called when its turn comes.

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
    """As `batched_windows`, with a `FailedRecording` in place of one that can't be decoded, or of
    the rest of it."""
    _ = pipeline.checkpoint.feature_extractor  # created before threads ask for it
    windows = _windows(pipeline, inputs, load_options, window_config)
    limit, family = pipeline.memory.max_frames, pipeline.checkpoint.family

    def frames(item: AudioWindow | FailedRecording) -> tuple[int]:
        if isinstance(item, FailedRecording):
            return (_FRAMES_OF_A_FAILURE,)
        return (family.encoder_rows(item.log_mel.valid_frames),)

    return prefetch(batch_by_size(windows, frames, [limit]), _BATCHES_AHEAD)


def _windows(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    load_options: LoadOptions,
    window_config: WindowConfig,
) -> Iterator[AudioWindow | FailedRecording]:
    new_peak = pipeline.new_peak

    def begin(numbered: tuple[int, Any]) -> tuple[int, _BegunStream | AudioError]:
        clip, audio = numbered
        try:
            options = load_options
            if callable(audio):  # opened only now
                audio = audio()
                if isinstance(audio, Waveform):  # decoded by itself
                    options = LoadOptions()
            if not isinstance(audio, Generator):
                audio = stream_windows(audio, options, window_config, new_peak)
            return clip, _BegunStream(audio)
        except AudioError as error:
            return clip, error

    with WorkerThreads(_THREADS, "audio") as threads:
        for clip, begun in prefetch_map(begin, enumerate(inputs), threads, _RECORDINGS_AHEAD):
            if isinstance(begun, AudioError):
                yield FailedRecording(clip, begun)
                continue
            # In this one thread, not in the pool: a spectrogram already uses several cores, and
            # each thread that computes them would need memory of its own.
            try:
                for window in begun.windows():
                    log_mel = pipeline.log_mel(window.samples, window.surroundings)
                    yield AudioWindow(clip, window.name, window.window, log_mel, window.recording)
            except AudioError as error:
                yield FailedRecording(clip, error)


class _BegunStream:
    """The windows of a recording, of which the first are there already.

    Raises:
        AudioError: for what is wrong with these.
    """

    def __init__(self, stream: Generator[SampledWindow]) -> None:
        self._first: list[SampledWindow] = []
        self._rest: Generator[SampledWindow] | None = None
        seconds = 0.0
        for window in stream:
            self._first.append(window)
            seconds += window.window.duration_seconds
            if window.recording is None and seconds >= _SECONDS_AHEAD:
                self._rest = stream
                return

    def windows(self) -> Iterator[SampledWindow]:
        """All of them; those after the first are decoded ahead in a thread."""
        yield from self._first
        self._first = []
        if self._rest is not None:
            yield from prefetch(self._rest, _WINDOWS_AHEAD)
