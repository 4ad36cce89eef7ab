"""Copies of weights to a GPU, beside its computation and through little pinned memory.

A GPU copies from pinned (page-locked) memory while it computes, if both are on different streams.
torch keeps pinned memory that was used once, in powers of two: weights that each had their own
would keep more of it than the checkpoint has bytes. So files are read into two small blocks in
turn: one is filled while the other is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .direct_io import PAGE, read_block

__all__ = ["CopyStream", "StagingBuffer"]

_BLOCK_BYTES = 1 << 25
"""32 MiB take 1.3 ms at 25 GB/s: so long that starting a copy (0.01 ms) doesn't matter."""


class Copied(Protocol):
    """A point in a stream (`torch.cuda.Event`)."""

    def synchronize(self) -> None:
        """Wait for it."""


class CopyStream:
    """The stream on which weights are copied to a GPU; computation goes on on others."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._in_use: Copied | None = None

    def select(self) -> AbstractContextManager[object]:
        """What this thread does in the context, it does on this stream, once nothing is computed
        any more with weights from before the last `hand_over`: their memory can be used again."""
        if self._in_use is not None:
            self._in_use.synchronize()
        return torch.cuda.stream(_copy_stream(self._device))

    def pinned_memory(self, size: int) -> Tensor:
        """Bytes that a GPU copies from."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def memory(self, size: int) -> Tensor:
        """Bytes of the GPU."""
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def copy(self, target: Tensor, pinned: Tensor) -> Copied:
        """Begin to copy, within `select`. Returns the point at which it is done."""
        target.copy_(pinned, non_blocking=True)
        return _copy_stream(self._device).record_event()

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Allow this thread to compute with tensors that were copied.

        Its stream waits for the copies, not the thread. Memory that is freed while the stream still
        computes with it isn't given to other tensors before.
        """
        current = torch.cuda.current_stream(self._device)
        self._in_use = current.record_event()
        current.wait_stream(_copy_stream(self._device))
        for tensor in tensors:
            tensor.record_stream(current)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all models of a process, as torch keeps freed memory for each stream apart."""
    return torch.cuda.Stream(device)


class StagingBuffer:
    """Two blocks of pinned memory, through which parts of files are copied to a GPU.

    Args:
        is_direct: whether reads bypass the page cache, as they should for streamed weights.
    """

    def __init__(self, copies: CopyStream, *, is_direct: bool = False) -> None:
        self._copies, self._is_direct = copies, is_direct
        self._blocks = itertools.cycle(_Block(copies.pinned_memory(_BLOCK_BYTES)) for _ in range(2))

    def read(self, file: Path, start: int, stop: int) -> Tensor:
        """Bytes start … stop−1 of a file, on the GPU; fewer if it ends before.

        They are there once the stream has copied them.

        Raises:
            OSError: if it can't be read.
        """
        target = self._copies.memory(stop - start)
        step = _BLOCK_BYTES - PAGE  # as parts begin anywhere in a page
        for first in range(start, stop, step):
            last = min(first + step, stop)
            block = next(self._blocks)
            block.wait()
            data = read_block(block.view, file, first, last, is_direct=self._is_direct)
            done, before = first - start, first % PAGE
            part = target[done : done + len(data)]
            block.copied = self._copies.copy(part, block.memory[before : before + len(data)])
            if len(data) < last - first:
                return target[: done + len(data)]
        return target


class _Block:
    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self.view = memoryview(memory.numpy())  # type: ignore[arg-type]
        self.copied: Copied | None = None

    def wait(self) -> None:
        """Wait until what was read into it has been copied."""
        if self.copied is not None:
            self.copied.synchronize()
