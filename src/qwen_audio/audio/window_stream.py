"""Windows of a recording, decoded as they are needed: the whole of it is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError
from qwen_audio.paths import printable

from .decode import AudioDecoder
from .load import decoded_samples, open_audio, recording_info, warn_of
from .load_options import LoadOptions
from .log_mel import FFT_SAMPLES, SpectrogramPeak, Surroundings
from .waveform import SAMPLE_RATE_HZ, RecordingInfo, SampleCheck, Waveform
from .window import Window, WindowConfig

__all__ = ["NewPeak", "SampledWindow", "stream_windows"]

NewPeak = Callable[[], SpectrogramPeak]
"""Measures a recording, of which windows are given with what surrounds them."""

_REACH_SAMPLES = FFT_SAMPLES // 2
"""How far a frame reaches beyond its middle."""
_PART_SAMPLES = 30 * SAMPLE_RATE_HZ
"""Of a waveform, measured at once."""


@dataclass(frozen=True, eq=False)
class SampledWindow:
    """One window of a recording, with its samples.

    Attributes:
        name: of the recording.
        window: start and end within the recording.
        samples: at 16 kHz, shape (samples,).
        recording: metadata of the whole recording; of its last window only, as its length, and what
            is missing, is known at its end.
        surroundings: of a window of several, where they were asked for.
    """

    name: str
    window: Window
    samples: Float32[np.ndarray, "samples"]
    recording: RecordingInfo | None = None
    surroundings: Surroundings | None = None


def stream_windows(
    audio: Any, options: LoadOptions, window_config: WindowConfig, new_peak: NewPeak | None = None
) -> Generator[SampledWindow]:
    """The windows of `load_waveform(audio).windows(window_config)`, one after another.

    What is wrong with the end of a file is known at its end: the last window is given only when the
    whole recording is in order, and windows before it may precede an error.

    Args:
        new_peak: None for windows without surroundings. Else a recording of several windows is
            decoded twice, the first time to its end, before any window is given.

    Raises:
        AudioError, OptionError: as `load_waveform`; also for a file that changes between both
            passes.
    """
    opened = open_audio(audio, options)
    if isinstance(opened, Waveform):
        if options.limits is not None:
            options.limits.check_seconds(opened.name, opened.duration_seconds)
        yield from _windows_of(opened, window_config, new_peak)
        return
    size, peak = None, None
    divider = _Divider(printable(opened.name), window_config)
    parts: Iterable[np.ndarray]
    with closing(opened), closing(decoded_samples(opened)) as parts:
        if new_peak is not None:
            parts, size, peak = _measured(parts, divider, new_peak)
        if peak is None:
            for part in parts:
                yield from divider.add(part)
    if peak is not None:
        divider = _Divider(printable(opened.name), window_config, peak)
        opened = opened.reopen()
        with closing(opened), closing(decoded_samples(opened)) as parts:
            for part in parts:
                yield from divider.add(part)
    yield from _last_windows(opened, divider, options, size)


def _last_windows(
    opened: AudioDecoder, divider: _Divider, options: LoadOptions, expected_size: int | None
) -> Iterator[SampledWindow]:
    """Those that are complete when the recording is, the last one with its metadata."""
    *others, last = divider.finish()
    yield from others
    if expected_size not in (None, divider.size):
        raise AudioError(
            f"{printable(opened.name)} changes while it is read: try again when it is complete"
        )
    recording = recording_info(opened, divider.size / SAMPLE_RATE_HZ)
    warn_of(recording, options)
    if options.limits is not None:
        options.limits.check_seconds(recording.name, recording.duration_seconds)
    yield replace(last, name=recording.name, recording=recording)


def _measured(
    parts: Iterable[np.ndarray], divider: _Divider, new_peak: NewPeak
) -> tuple[Iterable[np.ndarray], int, float | None]:
    """The samples of a recording of one window, or none of a longer one; how many there are, and
    the peak of a longer one."""
    check, kept = SampleCheck(divider.name, divider.min_seconds), list[np.ndarray]()
    peak: SpectrogramPeak | None = None
    for part in parts:
        check.add(part)
        kept.append(part)
        if check.size > divider.window_samples:
            peak = peak or new_peak()
            for samples in kept:
                peak.add(samples)
            kept = []
    return kept, check.size, None if peak is None else peak.finish()


def _windows_of(
    waveform: Waveform, window_config: WindowConfig, new_peak: NewPeak | None
) -> Iterator[SampledWindow]:
    """The windows of a waveform."""
    windows, samples = waveform.windows(window_config), waveform.samples
    level = None
    if new_peak is not None and len(windows) > 1:
        peak = new_peak()
        for start in range(0, samples.size, _PART_SAMPLES):
            peak.add(samples[start : start + _PART_SAMPLES])
        level = peak.finish()
    for window in windows:
        recording = waveform.info if window is windows[-1] else None
        start, end = (
            round(seconds * SAMPLE_RATE_HZ)
            for seconds in (window.start_seconds, window.end_seconds)
        )
        around = None if level is None else _surroundings(samples, start, end, level)
        yield SampledWindow(waveform.name, window, samples[start:end], recording, around)


def _surroundings(
    samples: Float32[np.ndarray, "samples"], start: int, end: int, peak: float
) -> Surroundings:
    before = samples[max(0, start - _REACH_SAMPLES) : start]
    return Surroundings(before.copy(), samples[end : end + _REACH_SAMPLES].copy(), peak)


class _Divider:
    """Divides consecutive samples into windows, as `Waveform.windows` does.

    Window k starts at k hops. It isn't the last one if audio follows its end.

    Args:
        peak: of the recording, if windows are to have surroundings.
    """

    def __init__(self, name: str, window_config: WindowConfig, peak: float | None = None) -> None:
        self.name, self.min_seconds = name, window_config.limits.min_seconds
        self.window_samples = round(window_config.window_seconds * SAMPLE_RATE_HZ)
        self._check, self._peak = SampleCheck(name, self.min_seconds), peak
        self._reach = 0 if peak is None else _REACH_SAMPLES
        self._min_samples = round(self.min_seconds * SAMPLE_RATE_HZ)
        self._hop_samples = round(window_config.resolved_hop_seconds * SAMPLE_RATE_HZ)
        self._next_start = 0
        self._kept = np.zeros(0, np.float32)
        self._kept_start = 0
        self._parts: list[np.ndarray] = []

    @property
    def size(self) -> int:
        """How many samples there are so far."""
        return self._check.size

    def add(self, part: Float32[np.ndarray, "part"]) -> Iterator[SampledWindow]:
        """The windows that are complete, and not the last one, with these samples."""
        self._check.add(part)
        self._parts.append(part)
        if self.size <= self._next_start + self.window_samples + self._reach:
            return
        self._join()
        yield from self._complete(self.size - self._reach)
        # One that begins less than an audio token before the end begins earlier: see `finish`.
        first = max(self._kept_start, self._next_start - self._min_samples - self._reach)
        self._kept = self._kept[first - self._kept_start :].copy()
        self._kept_start = first

    def finish(self) -> Iterator[SampledWindow]:
        """The windows that are left, up to the last one.

        Raises:
            AudioError: if all samples together are too few.
        """
        self._check.finish()
        self._join()
        yield from self._complete(self.size)
        start = min(self._next_start, self.size - self._min_samples)
        yield self._cut(start, min(start + self.window_samples, self.size))

    def _complete(self, size: int) -> Iterator[SampledWindow]:
        """The windows that end before so many samples."""
        while size > (end := self._next_start + self.window_samples):
            yield self._cut(self._next_start, end)
            self._next_start += self._hop_samples

    def _join(self) -> None:
        self._kept = np.concatenate([self._kept, *self._parts])
        self._parts = []

    def _cut(self, start: int, end: int) -> SampledWindow:
        first, last = start - self._kept_start, end - self._kept_start
        window = Window(start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ)
        samples, around = self._kept[first:last].copy(), None
        if self._peak is not None:
            around = _surroundings(self._kept, first, last, self._peak)
        return SampledWindow(self.name, window, samples, None, around)
