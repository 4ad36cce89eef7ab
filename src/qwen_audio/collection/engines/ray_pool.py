"""The workers of an index operation on a Ray cluster: blocks handed out, ended workers replaced."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_audio.audio.source import Source
from qwen_audio.collection.encoding import EncodedSource, EncodingSettings, PendingSource
from qwen_audio.errors import AudioError, CollectionError, OptionError, QwenAudioError, counted
from qwen_audio.paths import printable

from .ray_cluster import WorkerResources
from .ray_worker import EncodingWorker, ModelLoader

__all__ = ["WorkerPool"]

_BLOCKS_AHEAD = 2
"""Of a worker: the one that it encodes, and the next, so that it never waits for this process."""
_START_SECONDS = 300.0
"""In which Ray starts a process even on a busy machine, if there is room for it."""
_NO_WORKER_SECONDS = 300.0
"""Without a worker, until the run ends: machines are added within minutes."""
_WAIT_SECONDS = 1.0
_DEATHS_OF_A_BLOCK = 2
"""Workers that end while they encode a block, until its recordings are encoded one by one."""
_DEATHS_OF_A_RECORDING = 3
"""Workers that end while they encode a recording, until it is a failed one."""
_FAILED_STARTS = 3
"""Workers in a row that end before they have loaded the model, until the run ends."""


@dataclass(eq=False)
class _Block:
    """Sources that a worker encodes in one call.

    Attributes:
        deaths: workers that have ended meanwhile. Such a block is a worker's only one, so that it
            is known whether it is the reason.
    """

    items: list[PendingSource]
    deaths: int = 0

    @property
    def sent(self) -> list[PendingSource]:
        """The sources without their columns, which stay here."""
        return [PendingSource(Source(item.source.uri), item.version) for item in self.items]


@dataclass(eq=False)
class _Worker:
    """An actor, and the blocks that it has been given."""

    actor: Any
    blocks: list[_Block] = field(default_factory=list)
    is_open: bool = False

    def takes(self, block: _Block) -> bool:
        """Whether it is given a further block."""
        if not self.is_open:
            return False
        is_suspect = block.deaths or any(other.deaths for other in self.blocks)
        return not self.blocks or (len(self.blocks) < _BLOCKS_AHEAD and not is_suspect)


class WorkerPool:
    """Workers, each an actor with a model of its own.

    A worker that ends, or its machine, is replaced, and its blocks are encoded again by others.

    Args:
        ray: the package, connected.
    """

    def __init__(
        self,
        ray: Any,
        resources: WorkerResources,
        loader: ModelLoader,
        settings: EncodingSettings,
    ) -> None:
        self._ray = ray
        actor = ray.remote(EncodingWorker).options(
            max_restarts=0, max_task_retries=0, **resources.options
        )
        # Sent with each worker: an object in Ray's store would be lost with its machine.
        self._start = lambda: _Worker(actor.remote(loader, settings))
        self._workers: list[_Worker] = []
        self._sample: Sequence[PendingSource] = ()
        self._running: dict[Any, tuple[_Worker, _Block | None]] = {}
        """By Ray's reference of the result. Without a block: a worker that is being opened."""
        self._failed_starts = 0

    def open(self, count: int, sample: Sequence[PendingSource]) -> None:
        """Start so many workers, and wait until all have loaded the model.

        Args:
            sample: sources that each worker must see.

        Raises:
            OptionError, CollectionError: if one can't start, has another model, or doesn't see the
                sources.
        """
        self._sample = sample
        self._workers = [self._start() for _ in range(count)]
        starting = [worker.actor.started.remote() for worker in self._workers]
        started, _ = self._ray.wait(starting, num_returns=count, timeout=_START_SECONDS)
        if len(started) < count:
            raise OptionError(
                f"{count - len(started)} of {counted(count, 'worker')} have not started in "
                f"{_START_SECONDS:g} s: other work takes the cluster's CPUs: use fewer workers"
            )
        opened = [worker.actor.open.remote(sample) for worker in self._workers]
        try:
            for worker, reference in zip(self._workers, opened, strict=True):
                self._opened(worker, *self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:
            raise CollectionError(
                f"a worker can't load the model ({error.cause!r:.300}): check that all machines "
                "have the same packages"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise self._ended_at_start(error) from error

    def encode(self, blocks: Iterable[Sequence[PendingSource]]) -> Iterator[EncodedSource]:
        """The sources of all blocks with their rows, block by block as they are done.

        Raises:
            CollectionError: if no worker is left.
            QwenAudioError: what a worker says that ends the run.
        """
        waiting = deque(_Block(list(block)) for block in blocks)
        last_open = time.monotonic()
        while waiting or any(block for _, block in self._running.values()):
            self._hand_out(waiting)
            if any(worker.is_open for worker in self._workers):
                last_open = time.monotonic()
            elif time.monotonic() - last_open > _NO_WORKER_SECONDS:
                raise CollectionError(
                    f"no worker of the Ray cluster has been there for {_NO_WORKER_SECONDS:g} s: "
                    "what is encoded is kept; check `ray status`, and run it again"
                )
            ready, _ = self._ray.wait(list(self._running), timeout=_WAIT_SECONDS)
            for reference in ready:
                worker, block = self._running.pop(reference)
                try:
                    result = self._ray.get(reference)
                except self._ray.exceptions.RayTaskError:  # a fault of this package
                    raise
                except self._ray.exceptions.RayError as error:
                    if block is None:
                        self._failed_starts += 1
                        if self._failed_starts == _FAILED_STARTS:
                            raise self._ended_at_start(error) from error
                    else:
                        yield from self._again(block, waiting)
                    self._replace(worker)
                    continue
                if block is None:
                    self._opened(worker, *result)
                    continue
                worker.blocks.remove(block)
                if isinstance(result, QwenAudioError):
                    raise result
                yield from zip(block.items, result, strict=True)

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers, self._running = [], {}

    def _hand_out(self, waiting: deque[_Block]) -> None:
        for _ in range(_BLOCKS_AHEAD):  # one to each, before any has two
            for worker in self._workers:
                if waiting and worker.takes(waiting[0]):
                    block = waiting.popleft()
                    worker.blocks.append(block)
                    self._running[worker.actor.encode.remote(block.sent)] = (worker, block)

    def _opened(self, worker: _Worker, host: str, error: QwenAudioError | None) -> None:
        if error is not None:
            raise OptionError(f"the worker on {host}: {error}") from error
        worker.is_open, self._failed_starts = True, 0

    def _replace(self, worker: _Worker) -> None:
        """Start another in place of one that has ended, once, whatever it had to do."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._ray.kill(worker.actor)  # one whose machine can't be reached may be there still
        new = self._start()
        self._workers.append(new)
        self._running[new.actor.open.remote(self._sample)] = (new, None)

    def _again(self, block: _Block, waiting: deque[_Block]) -> Iterator[EncodedSource]:
        """Queue a block whose worker has ended; or the recording as a failed one, at last."""
        block.deaths += 1
        if len(block.items) > 1 and block.deaths == _DEATHS_OF_A_BLOCK:
            waiting.extendleft(_Block([item], block.deaths) for item in reversed(block.items))
        elif block.deaths < _DEATHS_OF_A_RECORDING:
            waiting.appendleft(block)
        else:
            (item,) = block.items
            error = AudioError(
                f"{printable(item.source.path)}: {block.deaths} workers have ended while they "
                "encoded it: index it alone on one machine, and see what happens"
            )
            yield item, error

    def _ended_at_start(self, error: Exception) -> CollectionError:
        return CollectionError(
            f"a worker has ended while it loaded the model ({type(error).__name__}): check its "
            "machine's memory, and the logs below /tmp/ray/session_latest/logs there"
        )
