"""Queue between the threads that find out what is to be written, and the one that writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

__all__ = ["WriteQueue"]

T = TypeVar("T")


class WriteQueue(Generic[T]):
    """Items to be written: added in any thread, taken together, and put back if writing fails."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._lock = threading.Lock()

    def add(self, item: T) -> None:
        """Add an item."""
        with self._lock:
            self._items.append(item)

    def __len__(self) -> int:
        return len(self._items)

    @contextmanager
    def taken(self) -> Iterator[list[T]]:
        """All items so far; those added meanwhile stay for the next time.

        If the block raises, they are in the queue again, before these.
        """
        with self._lock:
            items, self._items = self._items, []
        try:
            yield items
        except BaseException:
            with self._lock:
                self._items = items + self._items
            raise
