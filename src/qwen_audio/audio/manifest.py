"""Manifests: tables of recordings with further columns (.csv, .tsv, .jsonl)."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioWarning, OptionError
from qwen_audio.paths import is_file, printable

from .manifest_file import read_rows
from .source import ColumnValue, Source

__all__ = [
    "LOCATION_COLUMNS",
    "MANIFEST_SUFFIXES",
    "manifest_rows",
    "read_manifest",
    "source_from_row",
]

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl")

_SURROGATE = re.compile("[\ud800-\udfff]")

_INDEX = re.compile(r"Unnamed: [0-9]+(_level_[0-9]+)?(\.[0-9]+)?")

_LOCATION_TYPES = (str, os.PathLike, int, float)
LOCATION_COLUMNS = ("source", "path", "file", "file_name", "filename", "audio", "uri")
"""Columns of a manifest that may hold the recording's path or URI; the first that is set does."""


def read_manifest(path: Path) -> Iterator[Source]:
    """Recordings of a manifest (.csv, .tsv, .jsonl), one a row; paths are relative to its folder.

    Raises:
        OptionError: if it can't be read or is empty, or a row names no recording.
    """
    for place, row in manifest_rows(path):
        yield source_from_row(row, path.parent, place)


def manifest_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a manifest, each after its place for messages.

    Raises:
        OptionError: if it can't be read or is empty.
    """
    try:
        rows = read_rows(path, LOCATION_COLUMNS)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise OptionError(f"{path} can't be read as a manifest ({reason}): check it") from error
    if not rows:
        raise OptionError(f"{path} holds no rows: expected one per recording")
    warned: set[str] = set()
    for number, (line, row) in enumerate(rows, start=1):
        place = f"{path}, line {line}, row {number}"
        yield place, _without_index(row, str(path), warned)


def _without_index(row: Any, place: str, warned: set[str]) -> Any:
    """A row without the columns that pandas has named as they had no name: an index, in general.

    Args:
        place: shown in the warning.
        warned: names that there was a warning for; another is added.
    """
    if not isinstance(row, Mapping):
        return row
    names = [name for name in row if isinstance(name, str) and _INDEX.fullmatch(name)]
    for name in names:
        if row[name] is not None and name not in warned:
            warned.add(name)
            number = int(re.findall("[0-9]+", name)[0]) + 1
            warnings.warn(
                f"{place}: column {number} has no name, as an index that pandas has written: it "
                "is left out",
                AudioWarning,
                stacklevel=2,
            )
    return {name: row[name] for name in row if name not in names} if names else row


def source_from_row(row: Any, folder: Path, row_name: str) -> Source:
    """The recording that a manifest's row names, with the row's other columns.

    Args:
        folder: relative paths are relative to it.
        row_name: shown in messages.

    Returns:
        Where the row holds the audio itself, as rows of Hugging Face's `datasets` do: the file that
        it comes from, if that is there, else a source in memory.

    Raises:
        OptionError: if it names no recording, or a column holds a list or an object.
    """
    row = _without_index(row, "a row", set())
    if not isinstance(row, Mapping) or not all(isinstance(name, str) and name for name in row):
        raise OptionError(
            f"{row_name} is not a row of named columns: give every value a column with a name"
        )
    if any(_SURROGATE.search(name) for name in row):
        raise OptionError(f"{row_name} has a column name that isn't Unicode: write it in UTF-8")
    candidates = {name: row[name] for name in LOCATION_COLUMNS if row.get(name) is not None}
    held = next((name for name, value in candidates.items() if _holds_audio(value)), None)
    texts = (name for name, value in candidates.items() if isinstance(value, _LOCATION_TYPES))
    column = next((name for name in texts if str(row[name])), None)
    if column is None and held is None:
        others = ", ".join(name for name in row if name not in LOCATION_COLUMNS)
        raise OptionError(
            f"{row_name} names no recording: use a column {', '.join(LOCATION_COLUMNS)}"
            + f" (there are {printable(others):.200})" * bool(others)
        )
    location = "" if column is None else str(row[column])
    path = location if "://" in location else folder / location
    if column is not None and (held is None or is_file(path)):
        return Source.from_path(path, _column_values(row, {column, held}, row_name))
    values = _column_values(row, {held}, row_name)
    noted, is_there = _noted_path(row[held])
    if is_there:
        return Source.from_path(noted, values)
    return Source(f"{row_name} ({noted})" if noted else row_name, values, row[held])


def _holds_audio(value: Any) -> bool:
    if value is None or isinstance(value, _LOCATION_TYPES):
        return False
    from .unwrap import is_wrapped

    return is_wrapped(value) or hasattr(value, "__array__")


def _column_values(
    row: Mapping[str, Any], but: set[str | None], row_name: str
) -> dict[str, ColumnValue]:
    """The other columns of a row. Raises OptionError for a value that no column can hold."""
    values: dict[str, ColumnValue] = {}
    for name, value in row.items():
        if name in but:
            continue
        if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of NumPy or torch
            value = value.item()
        if not isinstance(value, str | int | float | None):
            kind = type(value).__name__
            raise OptionError(
                f"{row_name}: column {name} holds a {kind}: use text, numbers or booleans"
            )
        if isinstance(value, str) and _SURROGATE.search(value):
            raise OptionError(
                f"{row_name}: column {name} holds half of a character (a lone surrogate): write "
                "the text in UTF-8"
            )
        values[name] = value
    return values


def _noted_path(audio: Any) -> tuple[str, bool]:
    """The path that is noted beside audio in a row, and whether it is that of a file with it."""
    content = None
    if isinstance(audio, Mapping):
        path, content = str(audio.get("path") or ""), audio.get("bytes")
        is_decoded = audio.get("array") is not None
    else:
        path, is_decoded = str(getattr(getattr(audio, "metadata", None), "path", None) or ""), True
    if not path or not is_file(path):
        return path, False
    if content is not None:
        return path, Path(path).read_bytes() == content
    # Beside decoded samples, a relative path names a file inside an archive.
    return path, not is_decoded or Path(path).is_absolute()
