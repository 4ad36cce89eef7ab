"""What has been looked at → a file: numbers as .npz, rows as .csv, both as .json."""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwen_audio.errors import OptionError

__all__ = ["NUMBERS", "check_target", "plain_rows", "save_arrays", "save_numbers", "written"]

NUMBERS = (".npz", ".csv", ".json")


def check_target(path: str | Path, suffixes: Iterable[str]) -> Path:
    """A path that can be written to as one of these formats; asked before the work, not after.

    Raises:
        OptionError: for another suffix, a folder, or a file in a folder that isn't there.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise OptionError(f"{target}: the suffix says the format: use {', '.join(suffixes)}")
    if target.is_dir():
        raise OptionError(f"{target} is a folder: name a file to write")
    if not target.parent.is_dir():
        raise OptionError(f"{target}: there is no folder {target.parent}: make it first")
    return target


def written(target: Path, write: Callable[[Path], object]) -> Path:
    """Write to a draft beside the target, which takes its place once it is whole.

    Raises:
        OptionError: if it can't be written.
    """
    draft = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        write(draft)
        draft.replace(target)
    except OSError as error:
        raise OptionError(
            f"{target} can't be written ({error.strerror or error}): check the folder's "
            "permissions and the space that is left"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """.npz of any suffix: arrays of any name, of numbers and texts, one after another."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def save_numbers(
    path: str | Path,
    facts: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray | None],
    table: Callable[[], list[dict[str, Any]]],
) -> Path:
    """.npz: the arrays, and `facts` as JSON; .csv: the table; .json: facts and table (`rows`).

    Numbers that are not (NaN) are empty in CSV and null in JSON.
    """
    target = check_target(path, NUMBERS)
    if target.suffix.lower() == ".npz":
        known = {name: array for name, array in arrays.items() if array is not None}
        named = {"facts": np.array(json.dumps(facts, ensure_ascii=False)), **known}

        return written(target, lambda draft: save_arrays(draft, named))
    rows = plain_rows(table())
    if target.suffix.lower() == ".json":
        text = json.dumps({**facts, "rows": rows}, ensure_ascii=False, indent=1) + "\n"
        return written(target, lambda draft: draft.write_text(text, encoding="utf-8"))

    def write(draft: Path) -> None:
        with draft.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

    return written(target, write)


def plain_rows(table: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows as JSON takes them: numbers of Python, and None for those that are not."""
    return [{name: _plain(value) for name, value in row.items()} for row in table]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
