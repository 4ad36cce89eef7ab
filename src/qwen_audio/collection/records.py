"""Recordings as rows of a collection: versions of sources, manifest columns, Arrow tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.errors import AudioError

from .conditions import Condition, source_condition
from .table import WindowTable

if TYPE_CHECKING:
    import pyarrow as pa

    from qwen_audio.audio.waveform import Waveform
    from qwen_audio.inference.pooling import PooledWindow
    from qwen_audio.inference.reader import CapturedRecording

__all__ = [
    "PendingSource",
    "SourceVersion",
    "failed_versions",
    "indexed_versions",
    "load_indexed",
    "manifest_values",
    "recording_rows",
    "to_arrow_table",
]


@dataclass(frozen=True)
class SourceVersion:
    """Size, modification time (or ETag) and, once it was read, SHA-256 of a source."""

    size_bytes: int
    modified: str
    content_hash: str = ""


class PendingSource:
    """A recording that is to be encoded.

    Attributes:
        source: where it is.
        version: which version of it; the content hash is set by `open`.
        indexed: whether the collection holds another version of it.
    """

    def __init__(self, source: Source, version: SourceVersion, *, indexed: bool) -> None:
        self.source, self.version, self.indexed = source, version, indexed

    def open(self) -> Any:
        """Hash the file and return what `load_waveform` takes; called in a prefetch thread.

        Raises:
            AudioError: if it can't be read.
        """
        audio, content_hash = self.source.audio_input_and_hash()
        self.version = replace(self.version, content_hash=content_hash)
        return audio


def load_indexed(source: Source, indexed: SourceVersion, track: int | None = None) -> Waveform:
    """The waveform of a source, if it still has the content that was indexed.

    It is hashed only where its size or modification time differs.

    Raises:
        AudioError: if it is gone, has changed, or can't be decoded.
    """
    from qwen_audio.audio.load import load_waveform

    if source.stat() == (indexed.size_bytes, indexed.modified):
        return load_waveform(source.audio_input(), track=track)
    audio, content_hash = source.audio_input_and_hash()
    if content_hash != indexed.content_hash:
        raise AudioError(f"{source.uri} has changed since it was indexed: index it again")
    return load_waveform(audio, track=track)


def recording_rows(
    pending: PendingSource,
    reading: CapturedRecording[PooledWindow],
    vector_of: Callable[[dict[Any, PooledWindow]], np.ndarray],
) -> Iterator[dict[str, Any]]:
    """One row per window of a recording: columns by name, the vector of length 1."""
    recording, now = reading.recording, datetime.now(UTC)
    for number, (window, pooled) in enumerate(zip(reading.windows, reading.outputs, strict=True)):
        vector = vector_of(pooled).astype(np.float64)
        norm = math.sqrt(float(vector @ vector))
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
            "vector": (vector / max(norm, 1e-30)).astype(np.float32),
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
    if sources is not None:
        if not sources:
            return
        where = Condition(f"{where} AND {source_condition(sources)}")
    table = collection.columns(("source", *names), where)
    columns = (table[name].to_pylist() for name in ("source", *names))
    for uri, *values in zip(*columns, strict=True):
        yield uri, tuple(values)


def failed_versions(collection: WindowTable) -> dict[str, tuple[SourceVersion, str]]:
    """Source → the version that could not be decoded, and why."""
    table = collection.failures.to_arrow()
    names = ("source", "source_bytes", "source_changed", "reason")
    columns = (table[name].to_pylist() for name in names)
    return {
        uri: (SourceVersion(size_bytes, modified), reason)
        for uri, size_bytes, modified, reason in zip(*columns, strict=True)
    }
