"""Content of recordings, by which embeddings are cached: identified first, decoded later."""

from __future__ import annotations

from dataclasses import replace

from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion, hash_source, load_source
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import AudioError

__all__ = ["content_id", "identify", "load_identified"]


def identify(source: Source) -> SourceVersion:
    """The version of a recording; a remote one is read for its hash only where its file system
    states no version.

    Raises:
        AudioError: if it can't be read.
    """
    if source.audio is not None:
        return SourceVersion(0, "", hash_source(source))
    version = SourceVersion(*source.stat())
    if not source.is_local and version.modified:
        return version
    return replace(version, content_hash=hash_source(source))


def content_id(source: Source, version: SourceVersion) -> str:
    """An identity of a recording's content: its hash; of a remote one its version, if stated."""
    if not source.is_local and version.modified:
        return f"{source.uri} {version.size_bytes} {version.modified}"
    return version.content_hash


def load_identified(source: Source, identified: SourceVersion, track: int | None) -> Waveform:
    """Decode a recording. Raises AudioError unless its content is still the one identified."""
    if source.audio is not None:
        return load_waveform(source.audio, track=track)
    is_hashed = bool(identified.content_hash)
    waveform, version = load_source(source, track=track, known=identified if is_hashed else None)
    if content_id(source, version) != content_id(source, identified):
        raise AudioError(f"{source.uri} has changed since it was first read: start again")
    return waveform
