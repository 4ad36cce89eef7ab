"""Columns that every collection has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["STANDARD_COLUMNS", "check_collection_schema", "collection_schema", "standard_schema"]

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
    return pa.schema([(name, types[name]) for name in STANDARD_COLUMNS])


def standard_schema(schema: pa.Schema) -> pa.Schema:
    """The standard columns of a table, with the types that they have there."""
    import pyarrow as pa

    return pa.schema([(name, schema.field(name).type) for name in STANDARD_COLUMNS])
