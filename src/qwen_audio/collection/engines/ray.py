"""The engine of a Ray cluster: workers encode blocks of sources, this process plans and commits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_audio.audio.source import Source
from qwen_audio.collection.encoding import (
    EncodedRecording,
    EncodedSource,
    EncodingSettings,
    PendingSource,
)
from qwen_audio.errors import AudioError, OptionError, number_option, whole_number_option
from qwen_audio.inference.progress_bars import OnWindow

from .ray_cluster import WorkerResources, check_versions, check_workers, connected
from .ray_pool import WorkerPool
from .ray_worker import ModelLoader

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["RayEngine"]

_BLOCK_RECORDINGS = 64
_BLOCK_BYTES = 32 << 20
"""Of a block at most, as it is what a worker that ends loses. Short clips: five minutes of audio.
Long ones: half an hour of MP3 at 128 kbit/s."""
_BLOCKS_PER_WORKER = 8
"""At least, where there are so many recordings: at the end workers wait for at most one block."""
_SAMPLE_SOURCES = 20
"""Of different folders, which workers look at before work begins."""


@dataclass(frozen=True)
class RayEngine:
    """Encodes on the workers of a Ray cluster.

    Attributes:
        address: see `connected`.
        workers: number of processes, each with a model of its own; None: as many as fit.
        cpus_per_worker: CPUs that each takes, and threads that it computes with.
        gpus_per_worker: GPUs that each takes, or the part of one.

    Raises:
        OptionError: for numbers out of range.
    """

    address: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        if self.address is not None and not isinstance(self.address, str):
            raise OptionError(f"address={self.address!r:.80}: use 'auto', or host:port")
        if self.workers is not None:
            object.__setattr__(self, "workers", whole_number_option("workers", self.workers, 1))
        cpus = whole_number_option("cpus_per_worker", self.cpus_per_worker, 1)
        gpus = number_option("gpus_per_worker", self.gpus_per_worker)
        if not (0 <= gpus <= 1 or (gpus < math.inf and gpus == int(gpus))):
            raise OptionError(f"gpus_per_worker={gpus:g}: use a part of one GPU, or a whole number")
        object.__setattr__(self, "cpus_per_worker", cpus)
        object.__setattr__(self, "gpus_per_worker", gpus)

    @property
    def resources(self) -> WorkerResources:
        """What a worker takes."""
        return WorkerResources(self.cpus_per_worker, self.gpus_per_worker)

    def encode(
        self,
        model: AudioModel,
        settings: EncodingSettings,
        pending: Iterator[PendingSource],
        on_window: OnWindow,
    ) -> Generator[EncodedSource]:
        """See `Engine.encode`. All of `pending` is taken before work begins.

        Raises:
            OptionError, CollectionError: for a cluster or workers that can't do it, before work
                begins; and if no worker is left.
        """
        from qwen_audio.inference.finite import hold_overflows

        loader = ModelLoader.of_model(model, self.cpus_per_worker, self.gpus_per_worker)
        items = list(pending)
        if not items:
            return
        in_order: deque[PendingSource] = deque()
        with connected(self.address) as ray:
            workers = check_workers(ray, self.workers, self.resources)
            check_versions(ray, self.resources)
            pool = WorkerPool(ray, self.resources, loader, settings)

            def results() -> Generator[EncodedRecording | AudioError]:
                for item, result in pool.encode(_blocks(items, workers)):
                    in_order.append(item)
                    yield result

            try:
                pool.open(min(workers, len(items)), _sample(items))
                on_window(0.0)  # work begins
                for result in hold_overflows(results(), is_proven=settings.is_proven):
                    yield in_order.popleft(), result
            finally:
                pool.end()


def _blocks(items: Sequence[PendingSource], workers: int) -> Iterator[list[PendingSource]]:
    """Blocks of consecutive recordings, with about as much to do in each."""
    count = min(_BLOCK_RECORDINGS, math.ceil(len(items) / (workers * _BLOCKS_PER_WORKER)))
    block: list[PendingSource] = []
    block_bytes = 0
    for item in items:
        is_full = len(block) == count or block_bytes + item.version.size_bytes > _BLOCK_BYTES
        if block and is_full:
            yield block
            block, block_bytes = [], 0
        block.append(item)
        block_bytes += item.version.size_bytes
    yield block


def _sample(items: Sequence[PendingSource]) -> list[PendingSource]:
    """One recording of each of some folders, evenly spaced over all folders."""
    by_folder = {item.source.uri.rpartition("/")[0]: item for item in items}
    folders = list(by_folder.values())
    chosen = folders[:: math.ceil(len(folders) / _SAMPLE_SOURCES)]
    return [PendingSource(Source(item.source.uri), item.version) for item in chosen]
