"""LanceDB table of windows and their vectors: schema, metadata, transactions and queries.

`music.lance` is the table itself: Lance, LanceDB and other tools that read Lance open it directly.
Beside it are `music.failures.lance`, the recordings that could not be decoded, and in a folder the
lock file of writers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qwen_audio.errors import CollectionError, OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec, spec_differences
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.paths import exists
from qwen_audio.weights.option_values import quantize_name

from .conditions import Condition, check_condition, condition_error
from .database import check_installed, connect, drop_table, find_table, table_exists
from .location import TableLocation
from .schema import (
    STANDARD_COLUMNS,
    check_collection_schema,
    collection_schema,
    failures_schema,
    set_primary_key,
)
from .storage_errors import error_reason, what_to_check
from .transaction import remove_lock, write

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

__all__ = ["WindowTable"]

_METADATA_KEY = b"qwen_audio_spec"
_BATCH_ROWS = 4096

T = TypeVar("T")


class WindowTable:
    """A LanceDB table with one row per window. Made by `create` or `open`.

    Rows hold `vector`, of length 1, and `norm`, its length before: vector × norm is what `encode`
    gives for the window alone.

    Attributes:
        location: of the table, a folder or a URI.
        table: LanceDB's table.
        spec: how its vectors are made.
        has_captions: whether its windows have captions.
    """

    def __init__(
        self, location: TableLocation, table: Table, spec: EmbeddingSpec, *, has_captions: bool
    ) -> None:
        self.location, self.table, self.spec = location, table, spec
        self.has_captions = has_captions
        self._failures: Table | None = None

    @classmethod
    def exists(cls, path: str | Path, storage_options: Mapping[str, str] | None = None) -> bool:
        """Whether there is a table. Raises CollectionError if object storage can't be reached."""
        return table_exists(TableLocation.parse(path, storage_options))

    @classmethod
    def open(
        cls, path: str | Path, storage_options: Mapping[str, str] | None = None
    ) -> WindowTable:
        """The collection's table.

        Raises:
            CollectionError: if there is none, or if it isn't a collection, or one of another
                version of this package that can't be read; if object storage can't be reached.
            OptionError: for a name that doesn't end in .lance.
            MissingExtraError: without the extra `collections`.
        """
        check_installed()
        location = TableLocation.parse(path, storage_options)
        table = find_table(location)
        if table is None:
            raise CollectionError(f"{location}: no such collection: `qwen-audio index` makes one")
        metadata = table.schema.metadata or {}
        if _METADATA_KEY not in metadata:
            raise CollectionError(f"{location} is a Lance table, but not a collection")
        try:
            settings = json.loads(metadata[_METADATA_KEY])
            spec = EmbeddingSpec.from_settings(**settings["spec"])
            has_captions = bool(settings["describes"])
            check_collection_schema(table.schema)
        except (ValueError, KeyError, TypeError, OptionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise CollectionError(
                f"{location} was made by another version of this package ({reason}): make it "
                "again with `qwen-audio index`, from the recordings that its column `source` names"
            ) from error
        return cls(location, table, spec, has_captions=has_captions)

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: EmbeddingSpec,
        width: int,
        *,
        has_captions: bool,
        float32: bool = False,
        storage_options: Mapping[str, str] | None = None,
    ) -> WindowTable:
        """An empty table for vectors of `width` numbers, float16 or float32.

        Raises:
            CollectionError: if it can't be written there.
            OptionError: for a name that doesn't end in .lance.
            MissingExtraError: without the extra `collections`.
        """
        check_installed()
        import pyarrow as pa

        location = TableLocation.parse(path, storage_options)
        number_type = pa.float32() if float32 else pa.float16()
        schema = collection_schema(width, number_type).with_metadata(
            {
                _METADATA_KEY: json.dumps(
                    {
                        "spec": spec.settings,
                        "fingerprint": spec.fingerprint,
                        "describes": has_captions,
                        "vector": f"{number_type}, of length 1: times `norm` it is the vector",
                    }
                ).encode()
            }
        )
        is_new = not location.is_remote and not exists(location.path)
        try:
            if not location.is_remote:
                location.path.parent.mkdir(parents=True, exist_ok=True)
            table = connect(location).create_table(location.stem, schema=schema)
        except (OSError, RuntimeError, ValueError) as error:
            if is_new and not table_exists(location):  # another process may have created it
                drop_table(location)
            raise CollectionError(
                f"{location} can't be created ({error_reason(error)}): {what_to_check(location)}"
            ) from error
        return cls(location, table, spec, has_captions=has_captions)

    def check(self, spec: EmbeddingSpec) -> None:
        """Raises CollectionError with the `spec_differences`, if there are any."""
        differences = spec_differences(self.spec, spec)
        if not differences:
            return
        stored, requested = self.spec.settings, spec.settings
        quantize = quantize_name(stored.get("quantization"))
        is_other = any(stored.get(k) != requested.get(k) for k in ("dtype", "quantization"))
        loading = f"dtype={stored['dtype']!r}" + (f", quantize={quantize!r}" if quantize else "")
        hint = f" (load with {loading})" if is_other else ""
        raise CollectionError(
            f"{self.location} holds vectors of another embedding spec ({self.spec.fingerprint}, "
            f"not {spec.fingerprint}): {differences}; use its settings{hint}, or another "
            "collection"
        )

    def failure_rows(self) -> list[dict[str, Any]]:
        """The recordings that could not be decoded; nothing is written."""
        table = self._find_failures()
        rows: list[dict[str, Any]] = [] if table is None else table.to_arrow().to_pylist()
        return rows

    @property
    def failures(self) -> Table:
        """LanceDB's table of `failure_rows`, created if there is none."""
        table = self._find_failures()
        if table is None:
            location = self.location.failures
            table = connect(location).create_table(
                location.stem, schema=failures_schema(), exist_ok=True
            )
        if self.location.is_remote:
            set_primary_key(table, ("source",))
        return table

    def _find_failures(self) -> Table | None:
        """The newest version of the table of failures, if there is one; it is opened once."""
        if self._failures is None:
            self._failures = find_table(self.location.failures)
        else:
            self._failures.checkout_latest()
        return self._failures

    def drop(self) -> None:
        """Delete the table, and all files beside it that belong to it."""
        for location in (self.location, self.location.failures):
            drop_table(location)
        remove_lock(self.location)

    @property
    def width(self) -> int:
        """Width of its vectors."""
        return int(self.table.schema.field("vector").type.list_size)

    @property
    def manifest_columns(self) -> tuple[str, ...]:
        """The columns that manifests have added."""
        return tuple(name for name in self.table.schema.names if name not in STANDARD_COLUMNS)

    def write(self, change: Callable[[Table], T]) -> T:
        """What a change to the newest version of the table returns; see `transaction.write`."""
        return write(self.location, self.table, change)

    def condition(self, where: str | None) -> Condition | None:
        """A user's SQL condition, checked against the newest version of the table.

        Raises OptionError unless it can be used.
        """
        self.table.checkout_latest()
        return check_condition(self.table, where)

    def columns(self, names: Sequence[str], where: Condition | None = None) -> pa.Table:
        """Some columns of all rows, or of those for which a condition holds.

        Raises OptionError for a condition that fails for a row, such as a division by zero.
        """
        query = self.table.search().select(list(names)).limit(self.table.count_rows())
        try:
            return (query if where is None else query.where(where)).to_arrow()
        except (RuntimeError, ValueError, OSError) as error:
            raise self.read_error(where, error) from error

    def batches(self, names: Sequence[str], where: Condition | None = None) -> Iterator[pa.Table]:
        """`columns`, a few thousand rows at a time."""
        import pyarrow as pa

        query = self.table.search().select(list(names)).limit(self.table.count_rows())
        try:
            for batch in (query if where is None else query.where(where)).to_batches(_BATCH_ROWS):
                yield pa.Table.from_batches([batch])
        except (RuntimeError, ValueError, OSError) as error:
            raise self.read_error(where, error) from error

    def rows(self, where: Condition | None, on_progress: OnProgress | None) -> pa.Table:
        """All columns, as `columns` gives them, in as many steps as there are `batches`."""
        import pyarrow as pa

        names, total, done = self.table.schema.names, self.count(where), 0
        parts = [self.table.schema.empty_table().replace_schema_metadata()]
        for batch in self.batches(names, where):
            if on_progress is not None:
                on_progress("reading", done, total, "rows")
            done += len(batch)
            parts.append(batch.replace_schema_metadata())
        return pa.concat_tables(parts)

    def read_error(self, where: Condition | None, error: Exception) -> Exception:
        """The error for a query that LanceDB can't complete."""
        if where is not None:
            return condition_error(where, error)
        return CollectionError(
            f"{self.location} can't be read ({error_reason(error)}): check its files, or make it "
            "again"
        )

    def count(self, where: Condition | None = None) -> int:
        """Number of rows. Raises OptionError for a condition that fails for a row."""
        try:
            return int(self.table.count_rows(where))
        except (RuntimeError, ValueError, OSError) as error:
            raise self.read_error(where, error) from error

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Add columns that are missing; rows have nulls there."""

        def add_missing(table: Table) -> None:  # another indexer may have added some meanwhile
            missing = [field for field in fields if field.name not in table.schema.names]
            if missing:
                table.add_columns(missing)

        if fields:
            self.write(add_missing)
