"""Transactions on a table that several processes write at the same time.

In a folder, writers take turns: they lock a file. Object storage has no locks, and a lock that is
an object would outlive a writer that is killed. There, Lance's commits decide: a version of a table
is one object, which is written only if there is none (a conditional request), and of two
transactions that touch the same rows, or insert rows of the same primary key, the second fails. It
is then made again, on top of the first.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from qwen_audio.errors import CollectionError, QwenAudioError

from .location import TableLocation
from .schema import PRIMARY_KEY, set_primary_key
from .storage_errors import error_reason, is_conflict, what_to_check

if TYPE_CHECKING:
    from lancedb.table import Table

__all__ = ["remove_lock", "write"]

_MAX_ATTEMPTS = 20
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.1, 5.0
"""Before another attempt, a random part of a delay that doubles each time. Lance itself has tried
ten times before an attempt fails."""

T = TypeVar("T")


def write(location: TableLocation, table: Table, change: Callable[[Table], T]) -> T:
    """What a change to the newest version of a table returns.

    Args:
        change: may be called again if another writer's transaction came first, so it must read
            what it depends on itself.

    Raises:
        CollectionError: if the table can't be locked or written.
    """
    delay_seconds = _FIRST_DELAY_SECONDS
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        try:
            with _locked(location, table):
                return change(table)
        except CollectionError as error:
            if attempt == _MAX_ATTEMPTS or not is_conflict(error.__cause__):
                raise
        time.sleep(random.uniform(0, delay_seconds))  # noqa: S311 (no secret)
        delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)
    raise AssertionError  # the last attempt returns or raises


def remove_lock(location: TableLocation) -> None:
    """Delete the lock file of a table that is deleted."""
    if not location.is_remote:
        with suppress(OSError):
            _lock_path(location).unlink()


@contextmanager
def _locked(location: TableLocation, table: Table) -> Iterator[None]:
    """Check out the newest version; in a folder, for one writer at a time across processes."""
    from filelock import FileLock

    try:
        with nullcontext() if location.is_remote else FileLock(_lock_path(location)):
            table.checkout_latest()
            if location.is_remote:  # a copy of a collection that was made without one
                set_primary_key(table, PRIMARY_KEY)
            yield
    except QwenAudioError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise CollectionError(
            f"{location} can't be written ({error_reason(error)}): {what_to_check(location)}"
        ) from error


def _lock_path(location: TableLocation) -> Path:
    return location.path.with_name(f".{location.name}.lock")
