"""Recordings as rows of a collection: versions of sources, manifest columns, Arrow tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_content import SourceVersion, hash_source, load_source, stream_source
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window
from qwen_audio.errors import AudioError, CollectionError, whole_number_option
from qwen_audio.paths import printable

from .conditions import Condition, source_condition, sql_literal
from .table import WindowTable

if TYPE_CHECKING:
    import pyarrow as pa

    from qwen_audio.audio.window import WindowConfig
    from qwen_audio.audio.window_stream import NewPeak, SampledWindow
    from qwen_audio.inference.pooling import PooledWindow
    from qwen_audio.inference.reader import CapturedRecording

__all__ = [
    "PendingSource",
    "failed_versions",
    "indexed_versions",
    "load_indexed",
    "load_recording",
    "manifest_values",
    "recording_rows",
    "to_arrow_table",
    "unknown_source",
]


_MAX_SOURCES = 4096
"""In a condition; for more of them all rows are read."""


class PendingSource:
    """A recording that is to be encoded.

    Attributes:
        source: where it is.
        version: which version of it; that which was decoded, with its hash, once its last window
            is there.
    """

    def __init__(self, source: Source, version: SourceVersion) -> None:
        self.source, self.version = source, version

    def windows(
        self, window_config: WindowConfig, track: int | None, new_peak: NewPeak | None
    ) -> Generator[SampledWindow]:
        """Its windows, decoded as they are needed, in prefetch threads: see `stream_source`.

        Raises:
            AudioError: if it can't be decoded, or changes meanwhile.
        """

        def decoded(version: SourceVersion) -> None:
            self.version = version

        yield from stream_source(
            self.source, window_config, track=track, new_peak=new_peak, on_version=decoded
        )


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


def recording_rows(
    pending: PendingSource,
    reading: CapturedRecording[PooledWindow],
    vector_of: Callable[[dict[Any, PooledWindow]], np.ndarray],
) -> Iterator[dict[str, Any]]:
    """One row per window of a recording: columns by name, the vector of length 1.

    Raises:
        AudioError: for a vector that is not finite, or zero.
    """
    recording, now = reading.recording, datetime.now(UTC)
    for number, (window, pooled) in enumerate(zip(reading.windows, reading.outputs, strict=True)):
        vector = vector_of(pooled).astype(np.float64)
        norm = math.sqrt(float(vector @ vector))
        if not 0 < norm < math.inf:
            raise AudioError(
                f"{printable(pending.source.path)}: the vector at {window} "
                f"{'is zero' if norm == 0 else 'is not finite'}, and can't be compared with "
                "others: check the recording"
            )
        yield {
            **pending.source.extra,
            "source": pending.source.uri,
            "window": number,
            "start_seconds": window.start_seconds,
            "end_seconds": window.end_seconds,
            "duration_seconds": recording.duration_seconds,
            "sampling_rate": recording.rate_hz,
            "channels": recording.channels,
            "format": recording.format,
            "title": recording.tags.get("title"),
            "artist": recording.tags.get("artist"),
            "album": recording.tags.get("album"),
            "caption": reading.captions[number] if reading.captions else None,
            "source_bytes": pending.version.size_bytes,
            "source_changed": pending.version.modified,
            "content_hash": pending.version.content_hash,
            "indexed_at": now,
            "norm": norm,
            "vector": (vector / norm).astype(np.float32),
        }


def to_arrow_table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """The rows as an Arrow table of this schema; columns that rows don't have are null."""
    import pyarrow as pa

    columns = []
    for field in schema:
        values: list[Any] = [row.get(field.name) for row in rows]
        if field.name == "vector":
            # Not `to_pandas_dtype()`, which needs pandas on pyarrow below 26.
            dtype = np.float16 if pa.types.is_float16(field.type.value_type) else np.float32
            flat = np.concatenate(values) if values else np.zeros(0, np.float32)
            numbers = pa.array(flat.astype(dtype))
            columns.append(pa.FixedSizeListArray.from_arrays(numbers, field.type.list_size))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


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
