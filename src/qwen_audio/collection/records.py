"""A recording on its way into a collection: which version of it, and its windows as rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.errors import OptionError
from qwen_audio.inference.pooling import Pooled
from qwen_audio.inference.reader import Reading

from .table import WindowTable, sql_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "PendingSource",
    "SourceVersion",
    "arrow_rows",
    "failed_states",
    "fitted",
    "known_extras",
    "known_states",
    "window_rows",
]


@dataclass(frozen=True)
class SourceVersion:
    """Which version of a source is meant."""

    bytes: int
    changed: str
    content_hash: str = ""


class PendingSource:
    """One recording that is to be heard."""

    def __init__(self, source: Source, state: SourceVersion, known: bool) -> None:
        self.source, self.state, self.known = source, state, known

    def open(self) -> Any:
        """Called in a thread when its turn comes."""
        audio, digest = self.source.audio_input_and_hash()
        self.state = replace(self.state, content_hash=digest)
        return audio


def window_rows(
    item: PendingSource,
    reading: Reading[Pooled],
    vector_of: Callable[[dict[Any, Pooled]], np.ndarray],
) -> Iterator[dict[str, Any]]:
    """Of one recording, a row a window: columns by name, the vector of length 1."""
    about, now = reading.recording, datetime.now(UTC)
    for number, (window, kept) in enumerate(zip(reading.windows, reading.kept, strict=True)):
        vector = vector_of(kept).astype(np.float64)
        norm = math.sqrt(float(vector @ vector))
        yield {
            **item.source.extra,
            "source": item.source.uri,
            "window": number,
            "start_seconds": window.start_seconds,
            "end_seconds": window.end_seconds,
            "duration_seconds": about.duration_seconds,
            "sampling_rate": about.rate_hz,
            "channels": about.channels,
            "format": about.format,
            "title": about.tags.get("title"),
            "artist": about.tags.get("artist"),
            "album": about.tags.get("album"),
            "caption": reading.said[number] if reading.said else None,
            "source_bytes": item.state.bytes,
            "source_changed": item.state.changed,
            "content_hash": item.state.content_hash,
            "indexed_at": now,
            "norm": norm,
            "vector": (vector / max(norm, 1e-30)).astype(np.float32),
        }


def fitted(sources: Iterable[Source], schema: pa.Schema) -> Iterator[Source]:
    """Recordings with the further columns of their manifests as the table's columns hold them.

    Raises:
        OptionError: for a value that its column can't hold.
    """
    import pyarrow as pa

    for source in sources:
        extra = dict(source.extra)
        for name, value in extra.items():
            kind = schema.field(name).type
            if value is not None and pa.types.is_string(kind) and not isinstance(value, str):
                value = json.dumps(value)
            try:
                extra[name] = pa.scalar(value, kind).as_py()
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise OptionError(
                    f"column {name!r} holds {kind} in the collection, but {source.uri} has "
                    f"{value!r} there: correct the manifest, or give the column another name"
                ) from error
        yield replace(source, extra=extra)


def arrow_rows(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Table:
    """As Arrow has them, in the columns of the table."""
    import pyarrow as pa

    columns = []
    for column in schema:
        values: list[Any] = [row.get(column.name) for row in rows]
        if column.name == "vector":
            flat = np.concatenate(values) if values else np.zeros(0, np.float32)
            numbers = pa.array(flat.astype(column.type.value_type.to_pandas_dtype()))
            columns.append(pa.FixedSizeListArray.from_arrays(numbers, column.type.list_size))
        else:
            columns.append(pa.array(values, column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def known_states(
    collection: WindowTable, sources: list[str] | None = None
) -> dict[str, SourceVersion]:
    """Which version of each source is in the collection."""
    rows = _first_rows(collection, ("source_bytes", "source_changed", "content_hash"), sources)
    return {uri: SourceVersion(*values) for uri, values in rows}


def known_extras(
    collection: WindowTable, columns: Sequence[str], sources: list[str] | None = None
) -> dict[str, dict[str, ColumnValue]]:
    """What stands in columns of manifests, by source."""
    rows = _first_rows(collection, columns, sources) if columns else ()
    return {uri: dict(zip(columns, values, strict=True)) for uri, values in rows}


def _first_rows(
    collection: WindowTable, names: Sequence[str], sources: list[str] | None
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Of every source, or of some, and some columns of its first window."""
    where = '"window" = 0'
    if sources is not None:
        if not sources:
            return
        where += f" AND source IN ({', '.join(map(sql_text, sources))})"
    table = collection.columns(("source", *names), where)
    columns = (table[name].to_pylist() for name in ("source", *names))
    for uri, *values in zip(*columns, strict=True):
        yield uri, tuple(values)


def failed_states(collection: WindowTable) -> dict[str, tuple[SourceVersion, str]]:
    """Which version of each source could not be heard, and why."""
    table = collection.failures.to_arrow()
    names = ("source", "source_bytes", "source_changed", "reason")
    columns = (table[name].to_pylist() for name in names)
    return {
        uri: (SourceVersion(size, changed), reason)
        for uri, size, changed, reason in zip(*columns, strict=True)
    }
