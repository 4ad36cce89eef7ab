"""Work done ahead of whoever needs it: in threads, in order, and never further than it may."""

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
    """`map` in threads: results in the items' order, at most `lookahead` of them begun early."""
    begun: deque[Future[U]] = deque()
    try:
        for item in items:
            begun.append(executor.submit(function, item))
            if len(begun) > lookahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()


def prefetch(items: Iterable[T], lookahead: int) -> Iterator[T]:
    """The same items, made by a thread of their own, at most `lookahead` of them before their time.

    What goes wrong in the thread is raised here, after the items before it. Closing this iterator,
    or letting go of it, ends the thread.
    """
    queue: Queue[tuple[T | None, BaseException | None]] = Queue()
    room, abandoned = Semaphore(lookahead), Event()

    def work() -> None:
        iterator = iter(items)
        try:
            while room.acquire() and not abandoned.is_set():
                queue.put((next(iterator), None))
        except BaseException as error:  # noqa: BLE001 (raised where the items are used)
            queue.put((None, error))
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    thread = Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            room.release()  # for what is asked for now
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        abandoned.set()
        room.release()
        thread.join()
