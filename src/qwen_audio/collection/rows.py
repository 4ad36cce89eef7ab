"""All rows of a collection at one version, without their vectors: ids, order and a text filter."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Bool, Float, Int64

from qwen_audio.errors import CollectionError, OptionError
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.paths import file_name, path_from_text, printable

from .conditions import Condition
from .table import WindowTable
from .vectors import stored_vectors

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CollectionRows", "read_rows", "read_rows_without_vectors"]

_ID = re.compile("([0-9a-f]{16})-([0-9]{1,9})")
_HIDDEN = {
    *("source", "window", "content_hash", "source_bytes", "source_changed", "indexed_at", "vector")
}
"""Columns of the collection's own bookkeeping."""


class CollectionRows(Sequence[dict[str, Any]]):
    """The rows of a collection by source and window, without `vector`; made by `Collection.rows`.

    Attributes:
        table: the rows as an Arrow table.
        version: of the collection's table that they were read from.
    """

    def __init__(self, table: pa.Table, version: int = 0) -> None:
        self.table, self.version = table, version

    @cached_property
    def _encoded_sources(self) -> tuple[list[str], Int64[np.ndarray, "rows"]]:
        """All sources, and for each row its source's index among them."""
        encoded = self.table["source"].combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        return encoded.dictionary.to_pylist(), codes

    @cached_property
    def _digests(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        sources, codes = self._encoded_sources
        return np.array([_digest(source) for source in sources], np.uint64)[codes]

    @cached_property
    def _windows(self) -> Int64[np.ndarray, "rows"]:
        return np.asarray(self.table["window"].to_numpy(), np.int64)

    @cached_property
    def file_names(self) -> list[str]:
        """The name of every row's file, to be shown."""
        sources, codes = self._encoded_sources
        names = [file_name(source) for source in sources]
        return [names[code] for code in codes]

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """The columns without those of the collection's own bookkeeping."""
        return tuple(name for name in self.table.schema.names if name not in _HIDDEN)

    def column(self, name: str) -> pa.ChunkedArray | pa.Array:
        """A column's values; besides the table's columns `recording`, the file's name, and
        `folder`, its parent folder's name, unless a manifest has added these."""
        if name in self.table.schema.names:
            return self.table[name]
        import pyarrow as pa

        sources, codes = self._encoded_sources
        if name == "recording":
            texts = [file_name(source) for source in sources]
        elif name == "folder":
            texts = [printable(PurePath(path_from_text(source)).parent.name) for source in sources]
        else:
            raise OptionError(f"there is no column {name!r:.40}")
        return pa.array(texts, pa.string()).take(pa.array(codes))

    def id(self, index: int) -> str:
        """A row's public id: it doesn't change with the collection, and tells no path.

        The first 16 hexadecimal digits of the SHA-256 of its source, and the window's number.
        """
        return f"{self._digests[index]:016x}-{self._windows[index]}"

    def find(self, row_id: str) -> int:
        """The index of the row of an id. Raises CollectionError if there is none."""
        if match := _ID.fullmatch(row_id):
            found = self._find(int(match[1], 16), int(match[2]))
            if found is not None:
                return found
        raise CollectionError(
            f"the collection has no row {row_id!r:.40}: it was removed, or indexed again with "
            "other windows"
        )

    def index_of(self, source: str, window: int) -> int | None:
        """The index of a window's row; None if there is none."""
        return self._find(_digest(source), window)

    def _find(self, digest: int, window: int) -> int | None:
        found = np.flatnonzero((self._digests == np.uint64(digest)) & (self._windows == window))
        return int(found[0]) if found.size else None

    def first_windows(self, name: str) -> list[dict[str, Any]]:
        """The first row of every recording whose file has a name."""
        sources, codes = self._encoded_sources
        wanted = [code for code, source in enumerate(sources) if file_name(source) == name]
        _, first = np.unique(codes, return_index=True)
        return [self[int(first[code])] for code in wanted]

    def order(self, column: str, *, is_descending: bool = False) -> Int64[np.ndarray, "rows"]:
        """Indices of the rows sorted by a column, rows without a value last."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = self.column(column)
        if pa.types.is_string(values.type):
            values = pc.utf8_lower(values)
        order = "descending" if is_descending else "ascending"
        indices = pc.sort_indices(pa.table({"key": values}), sort_keys=[("key", order)])
        return np.asarray(indices.to_numpy(zero_copy_only=False), np.int64)

    def containing(self, text: str) -> Bool[np.ndarray, "rows"]:
        """Which rows contain every word of a text, in any case, in the file's name or a column."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = [
            n for n in self.shown_columns if pa.types.is_string(self.table.schema.field(n).type)
        ]
        columns = [self.column("recording"), *(self.column(name) for name in names)]
        kept = np.ones(len(self), bool)
        for word in printable(text).split():
            found = np.zeros(len(self), bool)
            for column in columns:
                hits = pc.match_substring(column, word, ignore_case=True).fill_null(False)
                found |= np.asarray(hits.to_numpy(zero_copy_only=False), bool)
            kept &= found
        return kept

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        (row,) = self.table.slice(index % len(self), 1).to_pylist()
        return dict(row)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches():
            yield from batch.to_pylist()

    def __len__(self) -> int:
        return int(self.table.num_rows)


def _digest(source: str) -> int:
    return int(hashlib.sha256(source.encode()).hexdigest()[:16], 16)


def read_rows(
    collection: WindowTable,
    where: Condition | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[CollectionRows, Float[np.ndarray, "rows width"]]:
    """The rows of the newest version, and their vectors as they are stored, in the same order."""
    import pyarrow as pa

    collection.table.checkout_latest()
    version = int(collection.table.version)
    names, total, done = collection.table.schema.names, collection.count(where), 0
    others = [name for name in names if name != "vector"]
    parts = [collection.table.schema.empty_table().replace_schema_metadata().select(others)]
    vectors = [stored_vectors(collection.table.schema.empty_table()["vector"])]
    for batch in collection.batches(names, where):
        if on_progress is not None:
            on_progress("reading", done, total, "rows")
        done += len(batch)
        parts.append(batch.replace_schema_metadata().select(others))
        vectors.append(stored_vectors(batch["vector"]))
    table = pa.concat_tables(parts)
    rows, order = _sorted(table, version)
    return rows, np.concatenate(vectors)[order]


def read_rows_without_vectors(collection: WindowTable) -> CollectionRows:
    """The rows of the newest version."""
    collection.table.checkout_latest()
    version = int(collection.table.version)
    names = [name for name in collection.table.schema.names if name != "vector"]
    return _sorted(collection.columns(names).replace_schema_metadata(), version)[0]


def _sorted(table: pa.Table, version: int) -> tuple[CollectionRows, Int64[np.ndarray, "rows"]]:
    import pyarrow.compute as pc

    order = pc.sort_indices(table, sort_keys=[("source", "ascending"), ("window", "ascending")])
    indices = np.asarray(order.to_numpy(zero_copy_only=False), np.int64)
    return CollectionRows(table.take(order), version), indices
