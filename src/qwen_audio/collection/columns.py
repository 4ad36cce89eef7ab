"""Columns that manifests add to a collection: names, types, and values cast to these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.errors import OptionError
from qwen_audio.paths import printable

from .schema import STANDARD_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_column_names", "plan_columns"]

_LANCE_COLUMNS = {
    *("_rowid", "_rowaddr", "_rowoffset", "_row_created_at_version"),
    *("_row_last_updated_at_version", "_distance", "_score", "_relevance_score"),
}
"""Columns that LanceDB adds to rows, or to the results of searches."""
_FORBIDDEN = (".", "`", "\0")
"""Characters that LanceDB takes in no column's name, or in no query."""


def check_column_names(names: Iterable[str]) -> None:
    """Raises OptionError for a name that no column of a manifest can have in a collection."""
    for name in names:
        shown = f"the manifest's column {printable(name)!r:.80}"
        if name in STANDARD_COLUMNS:
            raise OptionError(
                f"{shown} is a standard column of every collection: give it another name"
            )
        if name in _LANCE_COLUMNS:
            raise OptionError(f"{shown} is one of LanceDB's own columns: give it another name")
        if name == "*" or any(character in name for character in _FORBIDDEN):
            raise OptionError(
                f"{shown} can't be stored: names in a collection have no dot, no backtick and no "
                "NUL, and are not '*': give it another name"
            )


def plan_columns(
    sources: Sequence[Source], schema: pa.Schema | None = None
) -> tuple[list[pa.Field], tuple[str, ...], list[Source]]:
    """What it takes to store the columns of manifests in a table; nothing is written.

    Args:
        schema: of the table; None for a table that is new.

    Returns:
        The columns to add to the table, the names of the manifests' columns, and the sources with
        the values of these cast to the table's types.

    Raises:
        OptionError: for a name that no column can have, or a value that its column can't hold.
    """
    import pyarrow as pa

    types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    examples = _example_values(sources)
    check_column_names(examples)
    new = [
        pa.field(name, types[type(value)])
        for name, value in examples.items()
        if schema is None or name not in schema.names
    ]
    stored = [field for field in schema or () if field.name not in STANDARD_COLUMNS]
    column_types = {field.name: field.type for field in (*stored, *new)}
    # Without those that are empty in every row, unless the table has them.
    names = dict.fromkeys(name for source in sources for name in source.extra)
    columns = tuple(name for name in names if name in column_types)
    return new, columns, [_cast(source, column_types) for source in sources]


def _cast(source: Source, types: dict[str, pa.DataType]) -> Source:
    import pyarrow as pa

    values: dict[str, ColumnValue] = {}
    for name, given in source.extra.items():
        value, column_type = given, types.get(name)
        if column_type is None:
            continue
        if value is not None and pa.types.is_string(column_type) and not isinstance(value, str):
            value = json.dumps(value)
        try:
            values[name] = pa.scalar(value, column_type).as_py()
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise OptionError(
                f"column {name!r} holds {column_type} in the collection, but {source.uri} has "
                f"{given!r:.80} there: correct the manifest, or give the column another name"
            ) from error
    return replace(source, extra=values)


def _example_values(sources: Iterable[Source]) -> dict[str, ColumnValue]:
    """Manifest column → a value of the type that holds all of its values."""
    examples: dict[str, ColumnValue] = {}
    for source in sources:
        for name, value in source.extra.items():
            if value is None or isinstance(examples.get(name), str):
                continue
            if name in examples and type(value) is not type(examples[name]):
                numbers = {type(value), type(examples[name])} <= {int, float}
                value = 0.0 if numbers else ""
            examples[name] = value
    return examples
