"""A checkpoint's modules: built when first asked for, kept while memory lasts, else streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import nn

from .errors import OptionError
from .layout import empty_module
from .weights import Checkpoint

__all__ = ["Parts"]


class Parts:
    """The modules of one checkpoint on one device, each filled strictly with its own tensors.

    Args:
        max_bytes: what weights may take together. Single modules and as many layers as fit are
            kept; layers that don't fit are read for every pass, one while another computes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
    ) -> None:
        self.checkpoint, self.device, self.dtype = checkpoint, device, dtype
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        self._kept: dict[str, nn.Module] = {}
        self._numbers = {name: math.prod(n.shape) for name, n in checkpoint.needs(None).items()}

    def get(self, prefix: str, build: Callable[[], nn.Module]) -> Any:
        """The module whose tensors are named `prefix…`, in evaluation mode, without gradients.

        It is built without memory: the weights read are the only ones ever allocated.
        """
        if prefix not in self._kept:
            self._free(self._bytes(prefix), spare=())
            self._kept[prefix] = self._filled(build, self._read(prefix))
        return self._kept[prefix]

    def layers(
        self, prefix: str, depth: int, build: Callable[[int], nn.Module]
    ) -> Iterator[nn.Module]:
        """The layers `prefix0.` … in their order. Those that are streamed may be used only until
        the next one is asked for.

        Raises:
            OptionError: where memory does not hold two of them.
        """
        names = [f"{prefix}{k}." for k in range(depth)]
        absent = [name for name in names if name not in self._kept]
        streamed = absent[self._keepable(names, absent) :]
        with ThreadPoolExecutor(1, thread_name_prefix="weights") as reader:
            coming = iter(streamed)
            next_read = self._submit(reader, coming)
            for k, name in enumerate(names):
                if name not in streamed:
                    yield self.get(name, partial(build, k))
                elif next_read is not None:
                    layer = self._filled(partial(build, k), next_read.result())
                    next_read = self._submit(reader, coming)
                    yield layer
                    del layer

    def release(self) -> None:
        """Let go of all weights; they are read again when they are needed."""
        self._kept.clear()

    def _keepable(self, names: Sequence[str], absent: Sequence[str]) -> int:
        """How many of the absent layers there is room to keep."""
        if not absent:
            return 0
        size = max(map(self._bytes, absent))
        if sum(map(self._bytes, absent)) <= self._room():
            return len(absent)
        self._free(2 * size, spare=names)
        return int(self._room() - 2 * size) // size

    def _room(self) -> float:
        return self._max_bytes - sum(map(self._bytes, self._kept))

    def _free(self, size: int, spare: Sequence[str]) -> None:
        """Let go of what was asked for first, until there is room for so many bytes."""
        for name in [name for name in self._kept if name not in spare]:
            if self._room() >= size:
                return
            del self._kept[name]
        for name in [name for name in self._kept if self._room() < size]:
            del self._kept[name]
        if self._room() < size:
            more = size - self._room()
            raise OptionError(
                f"max_memory leaves {self._max_bytes / 1e9:.2f} GB for weights, but two layers or "
                f"one matrix take {size / 1e9:.2f} GB in {str(self.dtype).removeprefix('torch.')}: "
                f"give {more / 1e9:.2f} GB more"
            )

    def _submit(
        self, reader: ThreadPoolExecutor, names: Iterator[str]
    ) -> Future[dict[str, torch.Tensor]] | None:
        name = next(names, None)
        return None if name is None else reader.submit(self._read, name)

    def _bytes(self, prefix: str) -> int:
        """Of the tensors named `prefix…`, in the dtype of the arithmetic."""
        numbers = sum(n for name, n in self._numbers.items() if name.startswith(prefix))
        return numbers * self.dtype.itemsize

    def _read(self, prefix: str) -> dict[str, torch.Tensor]:
        """From the file to the device. Page-locked memory lets a GPU fetch it on its own."""
        on_gpu = self.device.type == "cuda"
        tensors = self.checkpoint.read(prefix, pinned=on_gpu)
        for name in tensors:  # one at a time, so that no two copies of all of them exist
            tensors[name] = tensors[name].to(self.device, self.dtype, non_blocking=on_gpu)
        return tensors

    def _filled(
        self, build: Callable[[], nn.Module], tensors: dict[str, torch.Tensor]
    ) -> nn.Module:
        module = empty_module(build)
        module.load_state_dict(tensors, strict=True, assign=True)
        return module.eval().requires_grad_(False)
