"""One thread for all uses of a model: alone, or beside the requests of an engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

__all__ = ["ModelThread", "SoleModelThread"]

T = TypeVar("T")


class ModelThread(Protocol):
    """Where work on a model runs, one after another, so that uses of it never overlap.

    It also saves time and memory: for every thread that computes, PyTorch starts worker threads and
    the system reserves memory, which took a third of a short answer's time and isn't returned.
    """

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Queue work, after all that was queued before it.

        Raises:
            QwenAudioError: if it isn't accepted.
        """

    def let_others_run(self) -> None:
        """Called by work that takes long, on the model's thread, between two of its steps: others
        may use the model in the meantime."""

    def close(self) -> None:
        """Cancel what is queued."""


class SoleModelThread:
    """A thread that does nothing else; see `ModelThread`."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "model")

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Queue work."""
        return self._executor.submit(work)

    def let_others_run(self) -> None:
        """There are none: work is done in order."""

    def close(self) -> None:
        """Cancel what is queued, and stop the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)
