"""Files of rows: .csv, .tsv and .jsonl as mappings of named values, with their line numbers.

Values of JSON have their types. A cell of CSV is text, and a whole column is numbers only where
every cell is one as it would be written again, so that `007`, `12e3`, `1.10` beside `1.1`, `NaN` or
`True` stay what they are.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError

from .source import ColumnValue

__all__ = ["read_rows"]

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LINE_END = re.compile("\r\n|\n|\r")  # str.splitlines also ends lines at U+2028 and others
_SEPARATORS = (",", ";", "\t")
_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")
_SCIENTIFIC = re.compile(r"-?[0-9](\.[0-9]+)?e[-+][0-9]{2,3}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.([0-9]+)")
_LARGEST_INTEGER = 2**63 - 1
_LARGEST_EXACT_FLOAT = 2**53


def read_rows(path: Path, location_columns: Collection[str]) -> list[tuple[int, Any]]:
    """Every row of a file, and the number of the line that it begins in.

    Args:
        location_columns: hold paths, which are text. A .csv file is separated by commas, or by
            semicolons or tabs if only so a column of its header is one of these.

    Raises:
        OptionError: if it isn't in its format. The message has the line, but not the file.
        OSError: if it can't be read.
    """
    text = _decoded(path.read_bytes())
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        lines = enumerate(_LINE_END.split(text), start=1)
        return [(number, _json_row(line, number)) for number, line in lines if line.strip()]
    separators = ("\t",) if suffix == ".tsv" else _SEPARATORS
    return _table_rows(text, separators, location_columns)


def _decoded(data: bytes) -> str:
    """Text of a file in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets write it."""
    try:
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionError(
            f"can't be read as a manifest: line {line} is not UTF-8: save it in UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise OptionError(
            f"can't be read as a manifest: line {line} has a null character: save it in UTF-8"
        )
    return text


def _json_row(line: str, number: int) -> Any:
    try:
        return json.loads(
            line,
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except OptionError as error:
        raise OptionError(f"line {number}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deep"
        raise OptionError(
            f"can't be read as a manifest: line {number} is not JSON ({reason}): write one object "
            "a line"
        ) from error


def _refuse_constant(text: str) -> None:
    raise OptionError(f"{text} is not JSON: write null where there is no value")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise OptionError(f"{text:.40} is more than a number can be: write it as text")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or not -_LARGEST_INTEGER - 1 <= int(text) <= _LARGEST_INTEGER:
        raise OptionError(f"{text:.40} has more than 64 bits: write it as text, in quotes")
    return int(text)


def _table_rows(
    text: str, separators: Sequence[str], location_columns: Collection[str]
) -> list[tuple[int, Any]]:
    separator = _separator(text, separators, location_columns)
    # Without translation of line ends, so that those in quoted cells stay as they are.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    numbered: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                numbered.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise OptionError(
            f"can't be read as a manifest: line {line}: {error}: check its quotes"
        ) from error
    if not numbered:
        return []
    (_, names), *rows = numbered
    nameless = [k for k, name in enumerate(names) if not name.strip()]
    for k in nameless:
        if k and any(cells[k : k + 1] not in ([], [""]) for _, cells in rows):
            raise OptionError(
                f"column {k + 1} has no name: give it one, or remove it (pandas: "
                "to_csv(index=False))"
            )
        names[k] = f"Unnamed: {k}_level_0"  # as pandas calls a column that it has read before
    _without_repeats((name, None) for name in names)
    columns = {
        name: [cells[k] if k < len(cells) else "" for _, cells in rows]
        for k, name in enumerate(names)
    }
    values = {
        name: cells if name in location_columns else _column_values(cells)
        for name, cells in columns.items()
    }
    result: list[tuple[int, Any]] = []
    for index, (line, cells) in enumerate(rows):
        row: dict[str | None, Any] = {name: values[name][index] for name in names}
        if len(cells) > len(names):
            row[None] = cells[len(names) :]  # is refused, as it has no name
        result.append((line, row))
    return result


def _separator(text: str, separators: Sequence[str], location_columns: Collection[str]) -> str:
    header = next((line for line in _LINE_END.split(text) if line.strip()), "")
    for separator in separators:
        names = {name.strip('"') for name in header.split(separator)}
        if names & set(location_columns):
            return separator
    return separators[0]


def _column_values(cells: Sequence[str]) -> Sequence[ColumnValue]:
    """Numbers if every cell that isn't blank is one in plain notation, else text; None if blank.

    Integers have up to 64 bits. Decimals are as the shortest one that is the same number, or all
    with the same number of digits after the point: other zeros at the end are a text's. Scientific
    notation is that of Python, which writes 1e-05 and 1e+16, but never 12e3.
    """
    texts = [cell for cell in cells if cell.strip()]
    number_type: Any = str
    if all(_is_integer(text) for text in texts):
        number_type = int
    elif _are_decimals(texts):
        number_type = float
    return [number_type(cell) if cell.strip() else None for cell in cells]


def _is_integer(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and abs(int(text)) <= _LARGEST_INTEGER


def _are_decimals(texts: Sequence[str]) -> bool:
    matches = [_DECIMAL.fullmatch(text) for text in texts]
    digits = {None if match is None else len(match[1]) for match in matches}
    is_fixed = len(digits) == 1 and None not in digits
    for text, match in zip(texts, matches, strict=True):
        if match is None:
            if _SCIENTIFIC.fullmatch(text) and repr(float(text)) == text:
                continue
            if not _is_integer(text) or abs(int(text)) > _LARGEST_EXACT_FLOAT:
                return False
            continue
        is_shortest = not match[1].endswith("0") or match[1] == "0"
        if Decimal(text) != Decimal(repr(float(text))) or not (is_shortest or is_fixed):
            return False
    return True


def _without_repeats(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the pairs. Raises OptionError for a name that is there twice."""
    row: dict[str, Any] = {}
    for name, value in pairs:
        if name in row:
            raise OptionError(f"there are two columns {name!r}: give each a name of its own")
        row[name] = value
    return row
