"""What a collection holds of its sources: versions, failures, values of manifest columns, audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_content import SourceVersion, hash_source, load_source
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window
from qwen_audio.errors import AudioError, CollectionError, whole_number_option

from .conditions import Condition, source_condition, sql_literal
from .table import WindowTable

__all__ = [
    "failed_versions",
    "indexed_versions",
    "load_indexed",
    "load_recording",
    "manifest_values",
    "unknown_source",
]


_MAX_SOURCES = 4096
"""In a condition; for more of them all rows are read."""


def load_indexed(source: Source, indexed: SourceVersion, track: int | None = None) -> Waveform:
    """The waveform of a source, if it still has the content that was indexed.

    It is hashed only where its size or modification time differs, or it was changed just now.

    Raises:
        AudioError: if it is gone, has changed, or can't be decoded.
    """
    changed = AudioError(f"{source.uri} has changed since it was indexed: index it again")
    known = SourceVersion(*source.stat(), indexed.content_hash)
    if known != indexed and hash_source(source) != indexed.content_hash:
        raise changed
    waveform, version = load_source(source, track=track, known=known)
    if version.content_hash != indexed.content_hash:
        raise changed
    return waveform


def unknown_source(collection: WindowTable, source: str) -> CollectionError:
    """The error for a source that the collection doesn't have."""
    return CollectionError(
        f"{collection.location} has no recording {source!r}: give a source as "
        "`qwen-audio collection list` shows it"
    )


def load_recording(collection: WindowTable, source: str, window: int | None) -> Waveform:
    """The audio of one of its recordings, or of one of its windows."""
    if window is not None:
        window = whole_number_option("window", window, 0)
    uri = Source.from_path(source).uri
    versions = indexed_versions(collection, [uri])
    if uri not in versions:
        raise unknown_source(collection, source)
    waveform = load_indexed(Source(uri), versions[uri], collection.spec.track)
    if window is None:
        return waveform
    rows = collection.columns(
        ("start_seconds", "end_seconds"),
        Condition(f'source = {sql_literal(uri)} AND "window" = {window}'),
    ).to_pylist()
    if not rows:
        raise CollectionError(f"{collection.location}: {source!r} has no window {window}")
    return Waveform(waveform.samples_in(Window(**rows[0])), waveform.name)


def indexed_versions(
    collection: WindowTable, sources: Sequence[str] | None = None
) -> dict[str, SourceVersion]:
    """Source → the version that the collection holds; of all sources, or of some."""
    rows = _first_windows(collection, ("source_bytes", "source_changed", "content_hash"), sources)
    return {uri: SourceVersion(*values) for uri, values in rows}


def manifest_values(
    collection: WindowTable, columns: Sequence[str], sources: Sequence[str] | None = None
) -> dict[str, dict[str, ColumnValue]]:
    """Source → stored values of manifest columns, by column; of all sources, or of some."""
    rows = _first_windows(collection, columns, sources) if columns else ()
    return {uri: dict(zip(columns, values, strict=True)) for uri, values in rows}


def _first_windows(
    collection: WindowTable, names: Sequence[str], sources: Sequence[str] | None
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Source and some columns of the first window, of every source or of some."""
    where = Condition('"window" = 0')
    if sources is not None and len(sources) <= _MAX_SOURCES:
        if not sources:
            return
        where = Condition(f"{where} AND {source_condition(sources)}")
    table = collection.columns(("source", *names), where)
    columns = (table[name].to_pylist() for name in ("source", *names))
    wanted = None if sources is None else set(sources)
    for uri, *values in zip(*columns, strict=True):
        if wanted is None or uri in wanted:
            yield uri, tuple(values)


def failed_versions(collection: WindowTable) -> dict[str, tuple[SourceVersion, str]]:
    """Source → the version that could not be decoded, and why."""
    return {
        row["source"]: (SourceVersion(row["source_bytes"], row["source_changed"]), row["reason"])
        for row in collection.failure_rows()
    }
