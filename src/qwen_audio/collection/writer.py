"""Transactions of an index operation: new rows, updates of manifest columns, failures."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .conditions import source_condition
from .progress import IndexCounter
from .records import PendingSource, indexed_versions, manifest_values, to_arrow_table
from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

__all__ = ["IndexWriter"]

_ROWS_PER_COMMIT = 512
_SECONDS_PER_COMMIT = 2.0
"""Rows are written when either is reached: what a kill can lose besides the current batch."""
_COMMITS_PER_OPTIMIZE = 200
"""Every commit adds files to the table; after so many they are compacted."""


class IndexWriter:
    """Queue of what an index operation has to write; a recording's rows are written together.

    Args:
        columns: manifest columns of this operation.
        failed_before: sources in the table of failures.
        counter: where added and replaced recordings are counted once they are written.
    """

    def __init__(
        self,
        collection: WindowTable,
        columns: tuple[str, ...],
        failed_before: Container[str],
        counter: IndexCounter,
    ) -> None:
        self._collection, self._columns = collection, columns
        self._failed_before, self._counter = failed_before, counter
        self._last_commit = time.monotonic()
        self._commits = 0
        self._clear()

    def add_recording(self, pending: PendingSource, rows: Iterable[dict[str, Any]]) -> None:
        """Queue the rows of a recording."""
        self._new_rows += rows
        self._encoded.append(pending)

    def add_update(self, row: dict[str, Any]) -> None:
        """Queue a source's modification time and manifest columns."""
        self._updates.append(row)

    def add_failure(self, pending: PendingSource, reason: str) -> None:
        """Queue a recording that can't be decoded."""
        self._failed.append((pending, reason))

    def commit_if_due(self) -> None:
        """Commit when enough rows are queued, or when the last commit is long ago."""
        late = time.monotonic() - self._last_commit > _SECONDS_PER_COMMIT
        if late or len(self._new_rows) >= _ROWS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write what is queued: new rows and those they replace in one transaction."""
        if self._encoded or self._updates:
            with self._collection.locked() as table:
                self._write_rows(table)
                self._write_updates(table)
            self._counter.added += sum(not pending.indexed for pending in self._encoded)
            self._counter.replaced += sum(pending.indexed for pending in self._encoded)
        self._write_failures()
        self._clear()
        self._last_commit = time.monotonic()
        self._commits += 1
        if self._commits % _COMMITS_PER_OPTIMIZE == 0:
            with self._collection.locked() as table:
                table.optimize()

    def _clear(self) -> None:
        self._new_rows: list[dict[str, Any]] = []
        self._encoded: list[PendingSource] = []
        self._failed: list[tuple[PendingSource, str]] = []
        self._updates: list[dict[str, Any]] = []

    def _write_rows(self, table: Table) -> None:
        stored = indexed_versions(self._collection, [item.source.uri for item in self._encoded])
        rows = [
            row
            for row in self._new_rows  # another indexer may have written the same meanwhile
            if row["source"] not in stored
            or stored[row["source"]].content_hash != row["content_hash"]
        ]
        sources = sorted({row["source"] for row in rows})
        replaced = [source for source in sources if source in stored]
        values = manifest_values(self._collection, self._collection.manifest_columns, replaced)
        rows = [{**values.get(row["source"], {}), **row} for row in rows]
        batch = to_arrow_table(table.schema, rows)
        if replaced:
            (
                table.merge_insert(["source", "window"])
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(source_condition(sources))
                .execute(batch)
            )
        elif rows:
            table.add(batch)

    def _write_updates(self, table: Table) -> None:
        """Modification time and manifest columns of all windows of recordings."""
        if not self._updates:
            return
        import pyarrow as pa

        names = ("source", "source_changed", *self._columns)
        schema = pa.schema([table.schema.field(name) for name in names])
        updates = pa.Table.from_pylist(self._updates, schema)
        table.merge_insert("source").when_matched_update_all().execute(updates)

    def _write_failures(self) -> None:
        """Add new failures, and delete those of recordings that were decoded this time."""
        encoded = (pending.source.uri for pending in self._encoded)
        resolved = [source for source in encoded if source in self._failed_before]
        if not (self._failed or resolved):
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
            for pending, reason in self._failed
        ]
        with self._collection.locked():
            table = self._collection.failures
            if rows:
                merge = table.merge_insert("source").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(rows)
            if resolved:
                table.delete(source_condition(resolved))
