"""Content of a source: decoded together with the hash of exactly what was decoded."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError
from qwen_audio.paths import printable

from .load import load_waveform
from .load_options import LoadOptions
from .source import Source
from .waveform import Waveform
from .window import WindowConfig
from .window_stream import NewPeak, SampledWindow, stream_windows

__all__ = ["SourceVersion", "hash_source", "load_source", "stream_source"]

_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3
_HELD_SECONDS = 60.0
"""Of windows that are given only when the file is known not to have changed."""
_MODIFIED_RESOLUTION_NS = 2_000_000_000
_CHANGED_RESOLUTION_NS = 20_000_000
"""Within the resolution of a file's times a file may change once more without another time: 2 s for
modification times, as FAT stores them, and a tick of the clock for the system's own."""


@dataclass(frozen=True)
class SourceVersion:
    """Size, modification time (or ETag) and, once it was read, SHA-256 of a source."""

    size_bytes: int
    modified: str
    content_hash: str = ""


def load_source(
    source: Source, *, track: int | None = None, known: SourceVersion | None = None
) -> tuple[Waveform, SourceVersion]:
    """Decode a file. Returns it with the version that was decoded.

    A file that changes between hashing and the end of decoding is read again, a few times.

    Args:
        known: a version whose hash is taken over where size and modification time are the same.

    Raises:
        AudioError: if it can't be read or decoded, or doesn't stop changing.
        OptionError: for a track that it doesn't have.
    """
    for _ in range(_ATTEMPTS):
        reading = _Reading(source, known)
        failure = None
        try:
            waveform = load_waveform(reading.audio, track=track)
        except AudioError as error:  # perhaps because the file changed
            failure = error
        if reading.is_unchanged():
            if failure is not None:
                raise failure
            return waveform, reading.version
        known = None
    raise _changes(source)


def stream_source(
    source: Source,
    window_config: WindowConfig,
    *,
    track: int | None = None,
    new_peak: NewPeak | None = None,
    on_version: Callable[[SourceVersion], object],
) -> Iterator[SampledWindow]:
    """The windows of a file, decoded as they are needed.

    A short file that changes meanwhile is read again, a few times. Of a longer one, windows have
    been given by then, and it is an error.

    Args:
        new_peak: see `stream_windows`.
        on_version: called with the version that was decoded, before the last window is given.

    Raises:
        AudioError, OptionError: as `load_source` does; the last window is not given then.
    """
    for _ in range(_ATTEMPTS):
        reading, held, held_seconds, failure = _Reading(source), [], 0.0, None
        options = LoadOptions(track=track)
        windows = stream_windows(reading.audio, options, window_config, new_peak)
        with closing(windows):
            try:
                for window in windows:
                    held.append(window)
                    held_seconds += window.window.duration_seconds
                    if held_seconds > _HELD_SECONDS:
                        break
            except AudioError as error:  # perhaps because the file changed
                failure = error
            if failure is None and held[-1].recording is None:
                yield from _unchanged_to_the_end(reading, chain(held, windows), on_version)
                return
        if reading.is_unchanged():
            if failure is not None:
                raise failure
            on_version(reading.version)
            yield from held
            return
    raise _changes(source)


def _unchanged_to_the_end(
    reading: _Reading,
    windows: Iterable[SampledWindow],
    on_version: Callable[[SourceVersion], object],
) -> Iterator[SampledWindow]:
    try:
        for window in windows:
            if window.recording is not None:
                if not reading.is_unchanged():
                    raise _changes(reading.source)
                on_version(reading.version)
            yield window
    except AudioError:
        if not reading.is_unchanged():
            raise _changes(reading.source) from None
        raise


class _Reading:
    """A source that is about to be decoded: its content, and what tells whether it changes.

    Args:
        known: a version whose hash is taken over where size and modification time are the same.
    """

    def __init__(self, source: Source, known: SourceVersion | None = None) -> None:
        self.source = source
        size_bytes, modified = source.stat()
        self._state, self._recent = _state(source)
        self.audio = source.audio_input()
        is_known = known is not None and (known.size_bytes, known.modified) == (
            size_bytes,
            modified,
        )
        if known is not None and is_known and not self._recent:
            content_hash = known.content_hash
        else:
            content_hash = _hash(source, self.audio)
        self.version = SourceVersion(size_bytes, modified, content_hash)

    def is_unchanged(self) -> bool:
        """Whether the source is still what it was. Raises AudioError if it can't be read."""
        source, version = self.source, self.version
        return (
            source.stat() == (version.size_bytes, version.modified)
            and _state(source)[0] == self._state
            and not (
                self._recent
                and source.is_local
                and _hash(source, self.audio) != version.content_hash
            )
        )


def _changes(source: Source) -> AudioError:
    return AudioError(
        f"{printable(source.path)} changes while it is read: try again when it is complete"
    )


def hash_source(source: Source) -> str:
    """SHA-256 of a file's bytes in hexadecimal; of what is in memory, of its samples at 16 kHz.

    Raises:
        AudioError: if it can't be read.
    """
    if source.audio is not None:
        return hashlib.sha256(load_waveform(source.audio).samples.data).hexdigest()
    return _hash(source, source.audio_input())


def _hash(source: Source, audio: Any) -> str:
    """The hash of `source.audio_input()`."""
    if isinstance(audio, io.BytesIO):
        return hashlib.sha256(audio.getbuffer()).hexdigest()
    digest = hashlib.sha256()
    try:
        with Path(audio).open("rb", buffering=0) as opened:
            while block := opened.read(_BLOCK_BYTES):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise source.unreadable(error) from error
    return digest.hexdigest()


def _state(source: Source) -> tuple[Any, bool]:
    """What differs if a local file was replaced or written to, and whether that was just now."""
    if not source.is_local:
        return None, False
    try:
        status = os.stat(source.path)  # noqa: PTH116 (as `Source.stat`, with more fields)
    except OSError as error:
        raise source.unreadable(error) from error
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    now = time.time_ns()
    recent = (
        now - status.st_mtime_ns < _MODIFIED_RESOLUTION_NS
        or now - status.st_ctime_ns < _CHANGED_RESOLUTION_NS
    )
    return state, recent
