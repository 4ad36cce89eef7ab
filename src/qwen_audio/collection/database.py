"""The LanceDB database that holds a collection's table, with errors in this package's terms."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from qwen_audio.errors import CollectionError, check_extra
from qwen_audio.paths import is_folder

from .location import TableLocation
from .storage_errors import error_reason, what_to_check

__all__ = ["check_installed", "connect", "drop_table", "find_table", "table_exists"]

_PROBE = {"timeout": "5s", "client_max_retries": "0"}
"""Of the request that finds out whether object storage answers. LanceDB makes six attempts, so that
half a minute passes until the error; with the defaults of the other requests, 30 s and three
retries, it would be 12 minutes."""
_NOT_FOUND = "was not found"


def check_installed() -> None:
    """Raises MissingExtraError without the extra `collections`."""
    check_extra("a collection", "collections", "lancedb", "pyarrow", "filelock")


def connect(location: TableLocation, **defaults: str) -> Any:
    """LanceDB's connection to the folder or prefix of a table.

    Args:
        defaults: storage options that the location's own take precedence over.

    Raises MissingExtraError without LanceDB.
    """
    check_installed()
    # Its warnings are about empty clusters of an index, and compactions that are made again.
    os.environ.setdefault("LANCEDB_LOG", "error")
    import lancedb

    if not location.is_remote:
        return lancedb.connect(location.folder)
    options = {**defaults, **location.storage_options}
    return lancedb.connect(location.folder, storage_options=options or None)


def table_exists(location: TableLocation) -> bool:
    """Whether there is a table: more than the folder of one whose creation was interrupted.

    Raises CollectionError if object storage can't be reached.
    """
    if location.is_remote:
        return _open_remote(location, **_PROBE) is not None
    return _has_versions(location.path)


def find_table(location: TableLocation) -> Any:
    """LanceDB's table at a location, or None if there is none.

    Raises CollectionError if it can't be opened.
    """
    if not table_exists(location):
        return None
    if location.is_remote:
        return _open_remote(location)
    try:
        return connect(location).open_table(location.stem)
    except (OSError, RuntimeError, ValueError) as error:
        raise CollectionError(
            f"{location} can't be opened as a Lance table ({error_reason(error)})"
        ) from error


def drop_table(location: TableLocation) -> None:
    """Delete a table, if there is one, with all its files."""
    if location.is_remote:
        connect(location).drop_table(location.stem, ignore_missing=True)
    else:
        shutil.rmtree(location.path, ignore_errors=True)


def _open_remote(location: TableLocation, **defaults: str) -> Any:
    try:
        return connect(location, **defaults).open_table(location.stem)
    except (OSError, RuntimeError, ValueError) as error:
        if _NOT_FOUND in str(error):
            return None
        raise CollectionError(
            f"{location} can't be opened ({error_reason(error)}): {what_to_check(location)}"
        ) from error


def _has_versions(path: Path) -> bool:
    versions = path / "_versions"
    return is_folder(versions) and any(versions.glob("*.manifest"))
