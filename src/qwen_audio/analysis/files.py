"""Result files: arrays as .npz, tables as .csv, both as .json, each written atomically."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from qwen_audio.errors import OptionError
from qwen_audio.paths import exists, is_folder

__all__ = [
    "NUMBER_SUFFIXES",
    "PLOT_SUFFIXES",
    "atomic_write",
    "check_output_folder",
    "check_output_path",
    "csv_bytes",
    "csv_text",
    "json_rows",
    "json_value",
    "save_arrays",
    "save_numbers",
    "write_errors",
]

NUMBER_SUFFIXES = (".npz", ".csv", ".json")
"""The formats of `save_numbers`."""
PLOT_SUFFIXES = (".png", ".svg", ".pdf", ".html")
"""The formats of `plots.save_plot`."""
_TABLE_DECIMALS = 6
_FORMULA_STARTS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")
"""First characters of formulas in spreadsheets; the last four are their full-width forms."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def check_output_path(path: str | Path, suffixes: Iterable[str]) -> Path:
    """Check a path before the work whose result is written there.

    Args:
        suffixes: those allowed, in lower case and with their dots.

    Raises:
        OptionError: for another suffix, a folder, or a file in a folder that doesn't exist or
            can't be written to.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise OptionError(f"{target}: the suffix decides the format: use {', '.join(suffixes)}")
    if is_folder(target):
        raise OptionError(f"{target} is a folder: name a file to write")
    if not is_folder(target.parent):
        raise OptionError(f"{target}: there is no folder {target.parent}: make it first")
    _check_writable(target, target.parent)
    return target


def check_output_folder(path: str | Path) -> Path:
    """Check a folder for results, which may not exist yet, before the work.

    Raises:
        OptionError: if it can't be made or written to.
    """
    folder = Path(path)
    existing = folder
    while not exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not is_folder(existing):
        raise OptionError(f"{folder} can't be written ({existing} is no folder): name a folder")
    _check_writable(folder, existing)
    return folder


def _check_writable(target: Path, folder: Path) -> None:
    with write_errors(target):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Raise any OSError inside the block as an OptionError that names the target."""
    try:
        yield
    except OSError as error:  # PyArrow's have a path and a number in their text
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OptionError(
            f"{target} can't be written ({reason}): check the folder, its permissions and the "
            "free space"
        ) from error


def atomic_write(target: Path, write: Callable[[Path], object]) -> Path:
    """Write a temporary file in the target's folder, then rename it to the target.

    A process that is stopped, or an error, leaves the target as it was.

    Args:
        write: writes all of the file to the path that it is given, which has the target's suffix.

    Returns:
        The target.

    Raises:
        OptionError: if it can't be written.
    """
    # A short name, as the target's may be as long as names can be.
    temporary = target.with_name(f".{secrets.token_hex(6)}{target.suffix}")
    with write_errors(target):
        try:
            write(temporary)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):  # which would hide the error
                temporary.unlink()
            raise
    return target


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed .npz archive, one array at a time.

    Unlike `np.savez` it takes any file name and any array name, and doesn't pickle.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def save_numbers(
    path: str | Path,
    metadata: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray | None],
    table: Callable[[], list[dict[str, Any]]],
) -> Path:
    """Write a result in the format that the suffix names.

    .npz: the arrays that aren't None, and the metadata as JSON in `facts`; .csv: the table; .json:
    the metadata, and the table as `rows`. Numbers of the table have six decimals; NaN is empty in
    CSV and null in JSON; see `csv_bytes` for text.

    Raises:
        OptionError: for another suffix, or a path that can't be written to.
    """
    target = check_output_path(path, NUMBER_SUFFIXES)
    if target.suffix.lower() == ".npz":
        named = {"facts": np.array(json.dumps(metadata, ensure_ascii=False))}
        named |= {name: array for name, array in arrays.items() if array is not None}
        return atomic_write(target, lambda path: save_arrays(path, named))
    rows = json_rows(table(), decimals=_TABLE_DECIMALS)
    if target.suffix.lower() == ".json":
        text = json.dumps({**metadata, "rows": rows}, ensure_ascii=False, indent=1) + "\n"
        return atomic_write(target, lambda path: path.write_text(text, encoding="utf-8"))

    return atomic_write(target, lambda path: path.write_bytes(csv_bytes(rows)))


def where_set(**facts: Any) -> dict[str, Any]:
    """Those facts that aren't None."""
    return {name: value for name, value in facts.items() if value is not None}


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A table as CSV in UTF-8, with the columns of its first row; None is an empty cell.

    Text that a spreadsheet would take for a formula (it begins with =, +, -, @, a tab or a line
    break) gets a single quote before it, as OWASP advises against CSV injection; numbers don't,
    also those in text.
    """
    file = io.StringIO(newline="")
    columns = list(rows[0]) if rows else []
    writer = csv.writer(file)
    writer.writerow(map(_csv_cell, columns))
    writer.writerows([_csv_cell(row.get(name)) for name in columns] for row in rows)
    return file.getvalue().encode(errors="backslashreplace")


def csv_text(cell: str) -> str:
    """The text of a cell that `csv_bytes` wrote; a quote before a formula is taken for its own."""
    return cell[1:] if cell.startswith("'") and _csv_cell(cell[1:]) == cell else cell


def _csv_cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA_STARTS)
    return f"'{value}" if is_formula and not _NUMBER.fullmatch(value) else value


def json_rows(
    table: Iterable[Mapping[str, Any]], decimals: int | None = None
) -> list[dict[str, Any]]:
    """The rows of a table with every value as `json_value` gives it."""
    return [{name: json_value(value, decimals) for name, value in row.items()} for row in table]


def json_value(value: Any, decimals: int | None = None) -> Any:
    """A single value as JSON can hold it.

    NumPy scalars become Python's, times ISO 8601 text, and NaN, NaT and infinities None (null).
    Anything else is returned unchanged.

    Args:
        decimals: round floats to as many; None: all digits.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if decimals is None else round(value, decimals)
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None
    return value
