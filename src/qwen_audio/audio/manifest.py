"""Manifests: tables of recordings with further columns (.csv, .tsv, .jsonl)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError

from .source import ColumnValue, Source

__all__ = ["MANIFEST_SUFFIXES", "read_manifest", "source_from_row"]

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl")

_COLUMNS = ("source", "path", "file", "file_name", "audio", "uri")
"""Columns of a manifest that may hold the recording's path or URI; the first that is set does."""


def read_manifest(path: Path) -> Iterator[Source]:
    """Recordings of a manifest (.csv, .tsv, .jsonl), one a row; paths are relative to its folder.

    Raises:
        OptionError: if it can't be read or is empty, or a row names no recording.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # with line ends in quoted cells as they are
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            rows = [
                {name: value if name is None else _number(value) for name, value in row.items()}
                for row in csv.DictReader(
                    io.StringIO(text, newline=""), delimiter=delimiter, strict=True
                )
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise OptionError(
            f"{path} can't be read as a manifest ({error}): use .csv, .tsv or .jsonl in UTF-8"
        ) from error
    if not rows:
        raise OptionError(f"{path} holds no rows: expected one per recording")
    for number, row in enumerate(rows, start=1):
        yield source_from_row(row, path.parent, f"{path}, row {number}")


def source_from_row(row: Any, folder: Path, row_name: str) -> Source:
    """The recording that a manifest's row names, with the row's other columns.

    Args:
        folder: relative paths are relative to it.
        row_name: shown in messages.

    Raises:
        OptionError: if it names no recording, or a column holds a list or an object.
    """
    if not isinstance(row, Mapping) or None in row:
        raise OptionError(
            f"{row_name} is not a row of named columns: give every value a column with a name"
        )
    column = next((name for name in _COLUMNS if row.get(name)), None)
    if column is None:
        raise OptionError(f"{row_name} names no recording: use a column {', '.join(_COLUMNS)}")
    location = str(row[column])
    path = location if "://" in location else folder / location
    nested = [name for name, value in row.items() if isinstance(value, dict | list)]
    if nested:
        raise OptionError(
            f"{row_name}: column {nested[0]} holds a list or an object: use text, numbers or "
            "booleans"
        )
    unwritable = [name for name, value in row.items() if name != column and _has_surrogates(value)]
    if unwritable:
        raise OptionError(
            f"{row_name}: column {unwritable[0]} holds half of a character (a lone surrogate): "
            "write the text in UTF-8"
        )
    return Source.from_path(path, {name: value for name, value in row.items() if name != column})


def _has_surrogates(value: Any) -> bool:
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def _number(text: str | None) -> ColumnValue:
    """A CSV cell as a number where it is one, None where it is empty, else as text."""
    if not text:
        return None
    for number_type in (int, float):
        try:
            value = number_type(text)
        except ValueError:
            continue
        # 007 is text, not a number.
        return value if str(value) == text or number_type is float else text
    return text
