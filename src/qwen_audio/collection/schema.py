"""Columns that every collection has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

__all__ = [
    "PRIMARY_KEY",
    "STANDARD_COLUMNS",
    "check_collection_schema",
    "collection_schema",
    "failures_schema",
    "set_primary_key",
    "standard_schema",
]

PRIMARY_KEY = ("source", "window")
"""A row's identity. Lance checks it between transactions only: of two that insert the same key at
the same time, the second is made again on top of the first. Without a key both rows would stay."""
_KEY_METADATA = {"lance-schema:unenforced-primary-key": "true"}

STANDARD_COLUMNS = (
    "source",
    "window",
    "start_seconds",
    "end_seconds",
    "duration_seconds",
    "sampling_rate",
    "channels",
    "format",
    "title",
    "artist",
    "album",
    "caption",
    "source_bytes",
    "source_changed",
    "content_hash",
    "indexed_at",
    "norm",
    "vector",
)
"""Columns of every collection; columns of manifests are added to them."""


def check_collection_schema(schema: pa.Schema) -> None:
    """Raises ValueError unless a table has the standard columns, and vectors of one width."""
    import pyarrow as pa

    missing = [name for name in STANDARD_COLUMNS if name not in schema.names]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}")
    if not pa.types.is_fixed_size_list(schema.field("vector").type):
        raise ValueError("vectors of any width")


def collection_schema(width: int, number_type: pa.DataType) -> pa.Schema:
    """The standard columns, with vectors of a width and number type."""
    import pyarrow as pa

    types = {
        "source": pa.string(),
        "window": pa.int32(),
        "start_seconds": pa.float64(),
        "end_seconds": pa.float64(),
        "duration_seconds": pa.float64(),
        "sampling_rate": pa.int32(),
        "channels": pa.int32(),
        "format": pa.string(),
        "title": pa.string(),
        "artist": pa.string(),
        "album": pa.string(),
        "caption": pa.string(),
        "source_bytes": pa.int64(),
        "source_changed": pa.string(),
        "content_hash": pa.string(),
        "indexed_at": pa.timestamp("us", "UTC"),
        "norm": pa.float32(),
        "vector": pa.list_(number_type, width),
    }
    return _schema_with_key({name: types[name] for name in STANDARD_COLUMNS}, PRIMARY_KEY)


def standard_schema(schema: pa.Schema) -> pa.Schema:
    """The standard columns of a table, with the types that they have there."""
    import pyarrow as pa

    return pa.schema([(name, schema.field(name).type) for name in STANDARD_COLUMNS])


def failures_schema() -> pa.Schema:
    """The columns of recordings that can't be decoded."""
    import pyarrow as pa

    types = {
        "source": pa.string(),
        "reason": pa.string(),
        "source_bytes": pa.int64(),
        "source_changed": pa.string(),
        "failed_at": pa.timestamp("us", "UTC"),
    }
    return _schema_with_key(types, ("source",))


def set_primary_key(table: Table, names: Sequence[str]) -> None:
    """Give a table its primary key, if it was made without one; no data are written.

    Lance has no call for a key of several columns, but reads it from the metadata of fields.
    """
    fields = [table.schema.field(name) for name in names]
    if all(_has_key_metadata(field) for field in fields):
        return
    if any(field.nullable for field in fields):
        alterations: list[Any] = [{"path": name, "nullable": False} for name in names]
        table.alter_columns(*alterations)
    table.update_field_metadata(*({"path": name, "metadata": _KEY_METADATA} for name in names))


def _has_key_metadata(field: pa.Field) -> bool:
    stored = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return stored.items() >= _KEY_METADATA.items()


def _schema_with_key(types: Mapping[str, pa.DataType], key: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, kind, nullable=False, metadata=_KEY_METADATA)
            if name in key
            else pa.field(name, kind)
            for name, kind in types.items()
        ]
    )
