"""Content of a source: decoded together with the hash of exactly what was decoded."""

from __future__ import annotations

import hashlib
import io
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError
from qwen_audio.paths import printable

from .load import load_waveform
from .source import Source
from .waveform import Waveform

__all__ = ["SourceVersion", "hash_source", "load_source"]

_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3
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
        size_bytes, modified = source.stat()
        state, recent = _state(source)
        is_known = known is not None and (known.size_bytes, known.modified) == (
            size_bytes,
            modified,
        )
        audio = source.audio_input()
        if known is not None and is_known and not recent:
            content_hash = known.content_hash
        else:
            content_hash = _hash(source, audio)
        failure = None
        try:
            waveform = load_waveform(audio, track=track)
        except AudioError as error:  # perhaps because the file changed
            failure = error
        if (
            source.stat() == (size_bytes, modified)
            and _state(source)[0] == state
            and not (recent and source.is_local and _hash(source, audio) != content_hash)
        ):
            if failure is not None:
                raise failure
            return waveform, SourceVersion(size_bytes, modified, content_hash)
        known = None
    raise AudioError(
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
