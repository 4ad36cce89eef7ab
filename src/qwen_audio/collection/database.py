"""The LanceDB database that holds a collection's table, with errors in this package's terms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qwen_audio.errors import CollectionError, OptionError, check_extra

__all__ = [
    "check_installed",
    "check_table_path",
    "connect",
    "error_reason",
    "open_table",
]

_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.lance")


def check_installed() -> None:
    """Raises MissingExtraError without the extra `collections`."""
    check_extra("a collection", "collections", "lancedb", "pyarrow", "filelock")


def check_table_path(path: str | Path) -> Path:
    """The path of a table. Raises OptionError unless its name is one that LanceDB accepts."""
    table_path = Path(path)
    if not _TABLE_NAME.fullmatch(table_path.name):
        raise OptionError(
            f"{table_path}: a collection's name ends in .lance and consists of letters, digits, "
            "'.', '-' and '_', such as music.lance"
        )
    return table_path


def connect(folder: Path) -> Any:
    """LanceDB's connection to a folder. Raises MissingExtraError without LanceDB."""
    check_installed()
    import lancedb

    return lancedb.connect(folder)


def open_table(path: Path) -> Any:
    """LanceDB's table at a path. Raises CollectionError if it can't be opened."""
    try:
        return connect(path.parent).open_table(path.stem)
    except (OSError, RuntimeError, ValueError) as error:
        raise CollectionError(
            f"{path} can't be opened as a Lance table ({error_reason(error)})"
        ) from error


def error_reason(error: Exception, max_characters: int = 300) -> str:
    """What an error of LanceDB or the system states, without its stack of Rust files."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    return re.sub(r",? *(at )?/\S*\.rs.*|\. Valid fields are .*", "", text)[:max_characters]
