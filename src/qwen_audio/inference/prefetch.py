"""Bounded prefetching in threads; order is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from qwen_audio.weights.worker_threads import WorkerThreads

__all__ = ["prefetch", "prefetch_map"]

T = TypeVar("T")
U = TypeVar("U")

_END: Any = object()


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

    An exception of the thread is raised here, after the items before it. There is no thread while
    none is needed; closing or deleting this iterator waits for the item that is being produced.
    """
    iterator = iter(items)
    thread = WorkerThreads(1, "prefetch", is_daemon=True)
    pending: deque[Future[T]] = deque()
    try:
        while True:
            while len(pending) <= lookahead:
                pending.append(thread.submit(next, iterator, _END))
            if (item := pending.popleft().result()) is _END:
                return
            yield item
            del item
    finally:
        thread.shutdown(cancel_futures=True)
        if (close := getattr(iterator, "close", None)) is not None:
            close()
