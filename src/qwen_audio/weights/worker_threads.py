"""Threads that end as soon as there is nothing left for them to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

__all__ = ["WorkerThreads"]


class WorkerThreads(Executor):
    """An executor that starts a thread when there is work, and keeps none that waits for more.

    So a thread never outlives what was asked of it, even if the executor does: in an iterator that
    is no longer used, or in the frames of an exception that somebody keeps.

    Args:
        count: at most so many threads at once; work begins in the order in which it is submitted.
        is_daemon: whether the end of the program doesn't wait for work that has begun.
    """

    def __init__(self, count: int, name: str, *, is_daemon: bool = False) -> None:
        self._count, self._name, self._is_daemon = count, name, is_daemon
        self._lock = threading.Lock()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: set[threading.Thread] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn(*args, **kwargs)` in a thread; the future has its result."""
        future: Future[Any] = Future()
        with self._lock:
            self._tasks.append((future, lambda: fn(*args, **kwargs)))
            if len(self._threads) < self._count:
                thread = threading.Thread(
                    target=self._run_tasks, name=self._name, daemon=self._is_daemon
                )
                self._threads.add(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for the work that was submitted; with `cancel_futures`, for what has begun of it."""
        with self._lock:
            if cancel_futures:
                for future, _ in self._tasks:
                    future.cancel()
            threads = self._threads - {threading.current_thread()}  # a collected iterator's
        for thread in threads if wait else ():
            thread.join()

    def _run_tasks(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._threads.discard(threading.current_thread())
                    return
                future, run = self._tasks.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(run())
            except BaseException as error:  # noqa: BLE001 (raised by the future's result)
                future.set_exception(error)
            del future, run  # not kept while waiting for the lock
