"""Bounded prefetching in threads; order is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from queue import Queue
from threading import Event, Semaphore, Thread
from typing import TypeVar

__all__ = ["prefetch", "prefetch_map"]

T = TypeVar("T")
U = TypeVar("U")


def prefetch_map(
    function: Callable[[T], U], items: Iterable[T], executor: Executor, lookahead: int
) -> Iterator[U]:
    """`map` in threads: results in the items' order, at most `lookahead` of them started early."""
    pending: deque[Future[U]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > lookahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def prefetch(items: Iterable[T], lookahead: int) -> Iterator[T]:
    """The same items, produced in a thread, at most `lookahead` of them before they are asked for.

    An exception of the thread is raised here, after the items before it. Closing or deleting this
    iterator ends the thread.
    """
    queue: Queue[tuple[T | None, BaseException | None]] = Queue()
    free_slots, closed = Semaphore(lookahead), Event()

    def produce() -> None:
        iterator = iter(items)
        try:
            while free_slots.acquire() and not closed.is_set():
                queue.put((next(iterator), None))
        except BaseException as error:  # noqa: BLE001 (raised in the consumer)
            queue.put((None, error))
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    thread = Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            free_slots.release()  # for the item asked for now
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        free_slots.release()
        thread.join()
