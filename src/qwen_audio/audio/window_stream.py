"""Windows of a recording, decoded as they are needed: the whole of it is never in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.paths import printable

from .load import decoded_samples, open_audio, recording_info, warn_of
from .load_options import LoadOptions
from .waveform import SAMPLE_RATE_HZ, RecordingInfo, SampleCheck, Waveform
from .window import Window, WindowConfig

__all__ = ["SampledWindow", "stream_windows"]


@dataclass(frozen=True, eq=False)
class SampledWindow:
    """One window of a recording, with its samples.

    Attributes:
        name: of the recording.
        window: start and end within the recording.
        samples: at 16 kHz, shape (samples,).
        recording: metadata of the whole recording; of its last window only, as its length, and what
            is missing, is known at its end.
    """

    name: str
    window: Window
    samples: Float32[np.ndarray, "samples"]
    recording: RecordingInfo | None = None


def stream_windows(
    audio: Any, options: LoadOptions, window_config: WindowConfig
) -> Generator[SampledWindow]:
    """The windows of `load_waveform(audio).windows(window_config)`, one after another.

    What is wrong with the end of a file is known at its end: the last window is given only when the
    whole recording is in order, and windows before it may precede an error.

    Raises:
        AudioError, OptionError: as `load_waveform`.
    """
    opened = open_audio(audio, options)
    if isinstance(opened, Waveform):
        if options.limits is not None:
            options.limits.check_seconds(opened.name, opened.duration_seconds)
        *others, last = opened.windows(window_config)
        for window in others:
            yield SampledWindow(opened.name, window, opened.samples_in(window))
        yield SampledWindow(opened.name, last, opened.samples_in(last), opened.info)
        return
    divider = _Divider(printable(opened.name), window_config)
    with closing(opened), closing(decoded_samples(opened)) as parts:
        for part in parts:
            yield from divider.add(part)
    last_window, last_samples, duration_seconds = divider.finish()
    recording = recording_info(opened, duration_seconds)
    warn_of(recording, options)
    if options.limits is not None:
        options.limits.check_seconds(recording.name, duration_seconds)
    yield SampledWindow(recording.name, last_window, last_samples, recording)


class _Divider:
    """Divides consecutive samples into windows, as `Waveform.windows` does.

    Window k starts at k hops. It isn't the last one if audio follows its end.
    """

    def __init__(self, name: str, window_config: WindowConfig) -> None:
        min_seconds = window_config.limits.min_seconds
        self._name, self._check = name, SampleCheck(name, min_seconds)
        self._min_samples = round(min_seconds * SAMPLE_RATE_HZ)
        self._window_samples = round(window_config.window_seconds * SAMPLE_RATE_HZ)
        self._hop_samples = round(window_config.resolved_hop_seconds * SAMPLE_RATE_HZ)
        self._next_start = 0
        self._kept = np.zeros(0, np.float32)
        self._kept_start = 0
        self._parts: list[np.ndarray] = []

    def add(self, part: Float32[np.ndarray, "part"]) -> Iterator[SampledWindow]:
        """The windows that are complete, and not the last one, with these samples."""
        self._check.add(part)
        self._parts.append(part)
        if self._check.size <= self._next_start + self._window_samples:
            return
        self._join()
        while self._check.size > (end := self._next_start + self._window_samples):
            window, samples = self._cut(self._next_start, end)
            yield SampledWindow(self._name, window, samples)
            self._next_start += self._hop_samples
        # One that begins less than an audio token before the end begins earlier: see `finish`.
        first = max(self._kept_start, self._next_start - self._min_samples)
        self._kept = self._kept[first - self._kept_start :].copy()
        self._kept_start = first

    def finish(self) -> tuple[Window, np.ndarray, float]:
        """The last window and its samples, and the duration of the recording in seconds.

        Raises:
            AudioError: if all samples together are too few.
        """
        self._check.finish()
        self._join()
        size = self._check.size
        start = min(self._next_start, size - self._min_samples)
        return *self._cut(start, min(start + self._window_samples, size)), size / SAMPLE_RATE_HZ

    def _join(self) -> None:
        self._kept = np.concatenate([self._kept, *self._parts])
        self._parts = []

    def _cut(self, start: int, end: int) -> tuple[Window, np.ndarray]:
        samples = self._kept[start - self._kept_start : end - self._kept_start]
        return Window(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ), samples.copy()
