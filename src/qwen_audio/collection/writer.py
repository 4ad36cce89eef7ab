"""Transactions of an index operation: new rows, updates of manifest columns, failures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.source import ColumnValue, Source

from .conditions import source_condition
from .encoding import EncodedRecording, PendingSource
from .progress import IndexCounter
from .records import indexed_versions, manifest_values
from .table import WindowTable
from .write_queue import WriteQueue

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["IndexWriter"]

_ROWS_PER_COMMIT = 512
_SECONDS_PER_COMMIT = 2.0
"""Rows are written when either is reached: what a kill can lose besides the current batch."""
_COMMITS_PER_OPTIMIZE = 200
"""Every commit adds files to the table; after so many they are compacted."""


class IndexWriter:
    """Queues of what an index operation has to write; a recording's rows are written together.

    One thread adds what it finds unchanged or failed while another commits.

    The order of transactions leaves no wrong state if the process is killed between two of them:
    a failure is forgotten before the rows of the repaired recording are written. At worst a
    recording is in neither table, and is encoded by the next run.

    Args:
        new_columns: manifest columns that the table lacks; added with the first rows or updates.
        counter: where added and replaced recordings are counted once they are written.
    """

    def __init__(
        self, collection: WindowTable, new_columns: Sequence[pa.Field], counter: IndexCounter
    ) -> None:
        self._collection, self._counter = collection, counter
        self._new_columns = new_columns
        self._encoded: WriteQueue[tuple[Source, EncodedRecording]] = WriteQueue()
        self._updates: WriteQueue[dict[str, Any]] = WriteQueue()
        self._repaired: WriteQueue[str] = WriteQueue()
        self._failed: WriteQueue[tuple[PendingSource, str]] = WriteQueue()
        self._queued_rows = 0
        self._last_commit = time.monotonic()
        self._commits = 0

    def add_recording(self, source: Source, encoded: EncodedRecording) -> None:
        """Queue the rows of a recording."""
        self._encoded.add((source, encoded))
        self._queued_rows += len(encoded.rows)

    def add_update(self, row: dict[str, Any]) -> None:
        """Queue a source's modification time and manifest columns."""
        self._updates.add(row)

    def add_repaired(self, source: str) -> None:
        """Queue a source that is in the table of failures, but fine as it was indexed."""
        self._repaired.add(source)

    def add_failure(self, pending: PendingSource, reason: str) -> None:
        """Queue a recording that can't be decoded."""
        self._failed.add((pending, reason))

    def commit_if_due(self) -> None:
        """Commit when enough rows are queued, or when the last commit is long ago."""
        late = time.monotonic() - self._last_commit > _SECONDS_PER_COMMIT
        if late or self._queued_rows >= _ROWS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write what is queued: new rows and those they replace in one transaction.

        Raises:
            CollectionError: if it can't be written; it stays in the queue.
        """
        with self._repaired.taken() as repaired:
            self._forget_failures(repaired)
        with self._encoded.taken() as encoded:
            self._forget_failures([source.uri for source, _ in encoded])
            self._write_rows(encoded)
            self._queued_rows = 0
        with self._updates.taken() as updates:
            self._write_updates(updates)
        with self._failed.taken() as failed:
            self._write_failures(failed)
        self._last_commit = time.monotonic()
        self._commits += 1
        if self._commits % _COMMITS_PER_OPTIMIZE == 0:
            with self._collection.locked() as table:
                table.optimize()

    def _add_columns(self) -> None:
        self._collection.add_columns(self._new_columns)
        self._new_columns = ()

    def _write_rows(self, encoded: Sequence[tuple[Source, EncodedRecording]]) -> None:
        if not encoded:
            return
        self._add_columns()
        with self._collection.locked() as table:
            stored = indexed_versions(self._collection, [source.uri for source, _ in encoded])
            # Another indexer may have written the same meanwhile.
            new = [item for item in encoded if stored.get(item[0].uri) != item[1].version]
            sources = [source.uri for source, _ in new]
            replaced = [source for source in sources if source in stored]
            values = manifest_values(self._collection, self._collection.manifest_columns, replaced)
            if new:
                batch = _with_manifest_columns(new, values, table.schema)
            if replaced:
                (
                    table.merge_insert(["source", "window"])
                    .when_matched_update_all()
                    .when_not_matched_insert_all()
                    .when_not_matched_by_source_delete(source_condition(sources))
                    .execute(batch)
                )
            elif new:
                table.add(batch)
        self._counter.added += len(sources) - len(replaced)
        self._counter.replaced += len(replaced)
        self._counter.written_by_others += len(encoded) - len(new)

    def _write_updates(self, updates: Sequence[dict[str, Any]]) -> None:
        """Modification time and manifest columns of all windows of recordings."""
        if not updates:
            return
        import pyarrow as pa

        self._add_columns()
        columns = list(dict.fromkeys(name for row in updates for name in row))
        with self._collection.locked() as table:
            # What a row doesn't have stays as it is, also if it was written by others meanwhile.
            given = [name for name in columns if name in self._collection.manifest_columns]
            stored = manifest_values(self._collection, given, [row["source"] for row in updates])
            schema = pa.schema([table.schema.field(name) for name in columns])
            rows = [{**stored.get(row["source"], {}), **row} for row in updates]
            batch = pa.Table.from_pylist(rows, schema)
            table.merge_insert("source").when_matched_update_all().execute(batch)

    def _forget_failures(self, sources: Sequence[str]) -> None:
        """Delete the failures of sources that are fine now."""
        if not sources:
            return
        with self._collection.locked():
            table = self._collection.failures
            condition = source_condition(sources)
            if table.count_rows(condition):
                table.delete(condition)

    def _write_failures(self, failed: Sequence[tuple[PendingSource, str]]) -> None:
        if not failed:
            return
        now = datetime.now(UTC)
        rows = [
            {
                "source": pending.source.uri,
                "reason": reason,
                "source_bytes": pending.version.size_bytes,
                "source_changed": pending.version.modified,
                "failed_at": now,
            }
            for pending, reason in failed
        ]
        with self._collection.locked():
            merge = self._collection.failures.merge_insert("source").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(rows)


def _with_manifest_columns(
    encoded: Sequence[tuple[Source, EncodedRecording]],
    stored: Mapping[str, Mapping[str, ColumnValue]],
    schema: pa.Schema,
) -> pa.Table:
    """The rows of all recordings, at least one, as a table of this schema.

    Args:
        stored: source → values of manifest columns, which a recording keeps unless it has others.
    """
    import pyarrow as pa

    rows = pa.concat_tables([recording.rows for _, recording in encoded])
    values = [
        {**stored.get(source.uri, {}), **source.extra}
        for source, recording in encoded
        for _ in range(len(recording.rows))
    ]
    columns = [
        rows[field.name]
        if field.name in rows.schema.names
        else pa.array([row.get(field.name) for row in values], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
