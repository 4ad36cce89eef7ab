"""Maintenance of a collection: statistics, list of recordings, prune, remove."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError
from qwen_audio.inference.html_table import facts_table

from .conditions import Condition, source_condition
from .records import unknown_source
from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

__all__ = ["CollectionInfo", "info", "list_recordings", "prune", "remove"]

_SOURCES_PER_DELETE = 8192


@dataclass(frozen=True)
class CollectionInfo:
    """Statistics of a collection. `dataclasses.asdict` gives plain data.

    Attributes:
        rows: windows.
        sources: recordings.
        failures: recordings that could not be decoded.
        bytes: size of the table's folder; on object storage that of the newest version's rows.
        vectors: Arrow type of the `vector` column.
        captions: whether windows have captions.
        indices: index → rows that are not in it yet (searches scan them as well).
        version: of the Lance table.
        fingerprint, spec: how the vectors are made.
    """

    path: str
    rows: int
    sources: int
    failures: int
    audio_seconds: float
    bytes: int
    vectors: str
    captions: bool
    columns: tuple[str, ...]
    indices: dict[str, int]
    version: int
    fingerprint: str
    spec: dict[str, Any]

    def _repr_html_(self) -> str:
        return facts_table(
            f"Collection {self.path}",
            recordings=self.sources,
            windows=self.rows,
            hours=round(self.audio_seconds / 3600, 3),
            failures=self.failures,
            columns=", ".join(self.columns),
            spec=", ".join(f"{name} {value}" for name, value in self.spec.items()),
        )


def info(collection: WindowTable) -> CollectionInfo:
    """Count rows, recordings, failures, seconds and bytes of the newest version."""
    table = collection.table
    table.checkout_latest()
    durations = collection.columns(["duration_seconds"], Condition('"window" = 0'))[
        "duration_seconds"
    ]
    stats = {index.name: table.index_stats(index.name) for index in table.list_indices()}
    return CollectionInfo(
        path=str(collection.location),
        rows=table.count_rows(),
        sources=len(durations),
        failures=len(collection.failure_rows()),
        audio_seconds=float(np.sum(durations.to_numpy())) if len(durations) else 0.0,
        bytes=_size_bytes(collection),
        vectors=str(table.schema.field("vector").type),
        captions=collection.has_captions,
        columns=tuple(table.schema.names),
        indices={name: stat.num_unindexed_rows if stat else 0 for name, stat in stats.items()},
        version=table.version,
        fingerprint=collection.spec.fingerprint,
        spec=collection.spec.settings,
    )


def _size_bytes(collection: WindowTable) -> int:
    if collection.location.is_remote:
        stats: Any = collection.table.stats()  # a dictionary, though its type says otherwise
        return int(stats["total_bytes"])
    files = collection.location.path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def list_recordings(collection: WindowTable, where: str | None = None) -> list[dict[str, Any]]:
    """Source, `duration_seconds`, number of `windows` and `captions` of every recording, by source.

    Raises OptionError for a condition that can't be used.
    """
    names = ["source", "window", "start_seconds", "end_seconds", "duration_seconds", "caption"]
    recordings: dict[str, dict[str, Any]] = {}
    rows = collection.columns(names, collection.condition(where)).to_pylist()
    for row in sorted(rows, key=lambda row: int(row["window"])):
        new = {"source": row["source"], "duration_seconds": row["duration_seconds"]}
        recording = recordings.setdefault(row["source"], {**new, "windows": 0, "captions": []})
        recording["windows"] += 1
        if row["caption"] is not None:
            caption = {name: row[name] for name in ("start_seconds", "end_seconds", "caption")}
            recording["captions"].append(caption)
    return [recordings[source] for source in sorted(recordings)]


def prune(collection: WindowTable) -> list[str]:
    """Delete the rows of sources that no longer exist. Returns these sources.

    A source that is only unreachable just now (a disk that isn't mounted, a network that is down)
    counts as gone: mount it first.
    """
    sources = sorted(set(collection.columns(["source"])["source"].to_pylist()))
    gone = [source for source in sources if not _exists(source)]
    failed = [row["source"] for row in collection.failure_rows() if not _exists(row["source"])]
    if not (gone or failed):
        return []
    collection.write(lambda table: _delete(collection, table, gone, failed))
    return gone


def remove(collection: WindowTable, sources: str | Path | Iterable[str | Path]) -> int:
    """Delete the rows and failures of these sources. Returns the number of rows.

    Raises:
        CollectionError: naming the first that the collection doesn't have; nothing is deleted then.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    uris = [Source.from_path(source).uri for source in sources]
    stored = set(collection.columns(["source"])["source"].to_pylist())
    failed = {row["source"] for row in collection.failure_rows()}
    for source, uri in zip(sources, uris, strict=True):
        if uri not in stored | failed:
            raise unknown_source(collection, str(source))
    failed_here = sorted(failed.intersection(uris))
    return collection.write(lambda table: _delete(collection, table, uris, failed_here))


def _delete(
    collection: WindowTable, table: Table, sources: Sequence[str], failed: Sequence[str]
) -> int:
    """Delete the rows of some sources and the failures of some. Returns the number of rows."""
    rows = 0
    for start in range(0, len(sources), _SOURCES_PER_DELETE):
        condition = source_condition(sources[start : start + _SOURCES_PER_DELETE])
        rows += table.count_rows(condition)
        table.delete(condition)
    for source in failed:
        collection.failures.delete(source_condition([source]))
    return rows


def _exists(source: str) -> bool:
    try:
        Source(source).stat()
    except AudioError:
        return False
    return True
