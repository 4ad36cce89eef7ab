"""Work done ahead of whoever needs it: in threads, in order, and never further than it may."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

__all__ = ["in_background", "mapped"]

T = TypeVar("T")
U = TypeVar("U")

_POLL_SECONDS = 0.1
"""How soon a thread notices that nobody waits for its work any more."""


def mapped(
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


def in_background(items: Iterable[T], lookahead: int) -> Iterator[T]:
    """The same items, made by a thread of their own, at most `lookahead` of them before their time.

    What goes wrong in the thread is raised here, after the items before it. Closing this iterator,
    or letting go of it, ends the thread.
    """
    queue: Queue[tuple[T | None, BaseException | None]] = Queue(lookahead)
    abandoned = Event()

    def put(item: T | None, error: BaseException | None) -> None:
        while not abandoned.is_set():
            with contextlib.suppress(Full):
                queue.put((item, error), timeout=_POLL_SECONDS)
                return

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put(item, None)
                if abandoned.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # noqa: BLE001 (raised where the items are used)
            put(None, error)
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    thread = Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        abandoned.set()
        with contextlib.suppress(Empty):
            while True:
                queue.get_nowait()
        thread.join()
