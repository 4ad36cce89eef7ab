"""Plan: which sources of an index operation are to be encoded; the others are settled at once."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_audio.audio.damage import without_partial_advice
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_content import SourceVersion, hash_source
from qwen_audio.errors import AudioError

from .encoding import PendingSource
from .progress import IndexCounter
from .records import failed_versions, indexed_versions, manifest_values
from .table import WindowTable
from .writer import IndexWriter

__all__ = ["IndexPlan"]


class IndexPlan:
    """What a collection holds, against the sources that are to be indexed.

    Args:
        columns: manifest columns of these sources.
        writer: takes what is written for sources that are unchanged or can't be encoded.
        retry: whether sources that failed before, and haven't changed, are encoded again.
    """

    def __init__(
        self,
        collection: WindowTable,
        columns: Sequence[str],
        writer: IndexWriter,
        counter: IndexCounter,
        *,
        retry: bool,
    ) -> None:
        self._writer, self._counter, self._retry = writer, counter, retry
        self._indexed = indexed_versions(collection)
        stored = [name for name in columns if name in collection.table.schema.names]
        self._stored_values = manifest_values(collection, stored)
        self._failed_before = failed_versions(collection)

    def settle(self, source: Source) -> PendingSource | None:
        """None for a source that is unchanged or can't be reached; else it is to be encoded."""
        indexed = self._indexed.get(source.uri)
        try:
            version = SourceVersion(*source.stat())
        except AudioError as error:
            self.fail(PendingSource(source, SourceVersion(-1, "")), error)
            return None
        if indexed is not None and (indexed.size_bytes, indexed.modified) == (
            version.size_bytes,
            version.modified,
        ):
            self._keep(source, indexed, version)
            return None
        failed_before = self._failed_before.get(source.uri)
        if failed_before and not self._retry and failed_before[0] == version:
            self._counter.failures[source.uri] = failed_before[1]
            self._counter.known_failures.append(source.uri)
            return None
        if (
            indexed is not None
            and indexed.size_bytes == version.size_bytes
            and _has_content(source, indexed)
        ):
            self._keep(source, indexed, version)
            return None
        return PendingSource(source, version)

    def fail(self, item: PendingSource, error: AudioError) -> None:
        """Count and queue a source that can't be encoded."""
        reason = without_partial_advice(str(error))
        self._counter.failures[item.source.uri] = reason
        if self._failed_before.get(item.source.uri, (None,))[0] == item.version:
            self._counter.known_failures.append(item.source.uri)
        self._writer.add_failure(item, reason)

    def _keep(self, source: Source, indexed: SourceVersion, version: SourceVersion) -> None:
        """Keep the rows of unchanged content; update time and manifest columns if they differ."""
        stored = self._stored_values.get(source.uri, {})
        differs = any(not _equal(value, stored.get(name)) for name, value in source.extra.items())
        if differs or indexed.modified != version.modified:
            row = {"source": source.uri, "source_changed": version.modified}
            self._writer.add_update({**row, **source.extra})
        if source.uri in self._failed_before:  # repaired, or there again
            self._writer.add_repaired(source.uri)
        if differs:
            self._counter.updated += 1
        else:
            self._counter.unchanged += 1


def _has_content(source: Source, indexed: SourceVersion) -> bool:
    """Whether a source whose modification time differs has the hash it had."""
    try:
        return hash_source(source) == indexed.content_hash
    except AudioError:
        return False


def _equal(one: ColumnValue, other: ColumnValue) -> bool:
    return one == other or (one != one and other != other)  # NaN equals NaN here
