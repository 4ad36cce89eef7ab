"""Transactions of an index operation: new rows, updates of manifest columns, failures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.source import ColumnValue, Source

from .conditions import source_condition
from .encoding import EncodedRecording, PendingSource
from .progress import IndexCounter
from .records import indexed_versions, manifest_values
from .schema import PRIMARY_KEY
from .table import WindowTable
from .write_queue import WriteQueue

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.merge import LanceMergeInsertBuilder
    from lancedb.table import Table

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
            self._collection.write(lambda table: table.optimize())

    def _add_columns(self) -> None:
        self._collection.add_columns(self._new_columns)
        self._new_columns = ()

    def _write_rows(self, encoded: Sequence[tuple[Source, EncodedRecording]]) -> None:
        if not encoded:
            return
        self._add_columns()
        added, replaced = self._collection.write(partial(self._merge, encoded))
        self._counter.added += added
        self._counter.replaced += replaced
        self._counter.written_by_others += len(encoded) - added - replaced

    def _merge(
        self, encoded: Sequence[tuple[Source, EncodedRecording]], table: Table
    ) -> tuple[int, int]:
        """Write the rows of recordings. Returns how many were added, and how many replaced."""
        stored = indexed_versions(self._collection, [source.uri for source, _ in encoded])
        # Another indexer may have written the same meanwhile.
        new = [item for item in encoded if stored.get(item[0].uri) != item[1].version]
        sources = [source.uri for source, _ in new]
        replaced = [source for source in sources if source in stored]
        values = manifest_values(self._collection, self._collection.manifest_columns, replaced)
        if not new:
            return 0, 0
        batch = _with_manifest_columns(new, values, table.schema)
        if replaced:
            _replace(table, batch, sources)
        elif not self._collection.location.is_remote:
            table.add(batch)
        elif _merge_builder(table).execute(batch).num_updated_rows:
            # Another writer added some of them meanwhile; they may have had more windows there.
            _replace(table, batch, sources)
        return len(sources) - len(replaced), len(replaced)

    def _write_updates(self, updates: Sequence[dict[str, Any]]) -> None:
        """Modification time and manifest columns of all windows of recordings."""
        if not updates:
            return
        import pyarrow as pa

        self._add_columns()
        columns = list(dict.fromkeys(name for row in updates for name in row))

        def update(table: Table) -> None:
            # What a row doesn't have stays as it is, also if it was written by others meanwhile.
            given = [name for name in columns if name in self._collection.manifest_columns]
            stored = manifest_values(self._collection, given, [row["source"] for row in updates])
            schema = pa.schema([table.schema.field(name) for name in columns])
            rows = [{**stored.get(row["source"], {}), **row} for row in updates]
            batch = pa.Table.from_pylist(rows, schema)
            table.merge_insert("source").when_matched_update_all().execute(batch)

        self._collection.write(update)

    def _forget_failures(self, sources: Sequence[str]) -> None:
        """Delete the failures of sources that are fine now."""
        if not sources:
            return

        def forget(_: Table) -> None:
            table, condition = self._collection.failures, source_condition(sources)
            if table.count_rows(condition):
                table.delete(condition)

        self._collection.write(forget)

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

        import pyarrow as pa

        def add(_: Table) -> None:
            table = self._collection.failures
            merge = table.merge_insert("source").when_matched_update_all()
            batch = pa.Table.from_pylist(rows, schema=table.schema)
            merge.when_not_matched_insert_all().execute(batch)

        self._collection.write(add)


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


def _merge_builder(table: Table) -> LanceMergeInsertBuilder:
    merge = table.merge_insert(PRIMARY_KEY).when_matched_update_all()
    return merge.when_not_matched_insert_all()


def _replace(table: Table, batch: pa.Table, sources: Sequence[str]) -> None:
    """Write the rows of sources in place of those that are there."""
    merge = _merge_builder(table).when_not_matched_by_source_delete(source_condition(sources))
    merge.execute(batch)
