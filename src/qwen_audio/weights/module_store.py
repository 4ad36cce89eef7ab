"""Modules filled from a TensorStore: built when needed, kept while memory lasts, else streamed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.initialization import no_init_weights

from qwen_audio.errors import OptionError

from .device import trim_heap
from .direct_io import ReadBuffer
from .prepack import prepack_linears
from .tensor_store import TensorStore

__all__ = ["ModuleStore", "empty_module"]


class ModuleStore:
    """The modules of one checkpoint on one device, each filled strictly with its own tensors.

    Args:
        max_bytes: what weights may take together; may be changed between passes. Single modules
            and as many layers as fit are kept; layers that don't fit are read for every pass, one
            while another computes.
    """

    def __init__(
        self,
        tensors: TensorStore,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
    ) -> None:
        self.tensors, self.device, self.dtype = tensors, device, dtype
        self.max_bytes: float = math.inf if max_bytes is None else max_bytes
        self._resident: dict[str, nn.Module] = {}
        self._numbers = {name: math.prod(shape) for name, shape in tensors.shapes.items()}

    def get(self, prefix: str, build: Callable[[], nn.Module]) -> Any:
        """The module whose tensors are named `prefix…`, in evaluation mode, without gradients.

        It is built without memory: the weights read are the only ones ever allocated.
        """
        self._keep({prefix: build})
        return self._resident[prefix]

    def layers(
        self, prefix: str, depth: int, build: Callable[[int], nn.Module]
    ) -> Iterator[nn.Module]:
        """The layers `prefix0.` … in their order. Those that are streamed may be used only until
        the next one is asked for.

        Raises:
            OptionError: where memory does not hold two of them.
        """
        names = [f"{prefix}{k}." for k in range(depth)]
        streamed = self._streamed(names)
        # First, so that weights which stay don't come to lie between numbers which go.
        self._keep(
            {name: partial(build, k) for k, name in enumerate(names) if name not in streamed}
        )
        with ThreadPoolExecutor(1, thread_name_prefix="weights") as reader:
            coming = zip(streamed, itertools.cycle((ReadBuffer(), ReadBuffer())), strict=False)
            next_read = self._submit(reader, coming)
            for k, name in enumerate(names):
                if name not in streamed:
                    yield self.get(name, partial(build, k))
                elif next_read is not None:
                    layer = self._fill(partial(build, k), next_read.result())
                    next_read = self._submit(reader, coming)
                    yield layer
                    del layer

    def release(self) -> None:
        """Let go of all weights; they are read again when they are needed."""
        self._resident.clear()

    def _keep(self, modules: Mapping[str, Callable[[], nn.Module]]) -> None:
        absent = {name: build for name, build in modules.items() if name not in self._resident}
        buffer = ReadBuffer()
        for name, build in absent.items():
            self._free(self._bytes(name), spare=modules.keys())
            self._resident[name] = self._own(build, name, buffer)
        if absent:
            trim_heap()

    def _streamed(self, names: Sequence[str]) -> list[str]:
        """The layers that there is no room to keep, once room is made for two that come and go."""
        size = max(map(self._bytes, names), default=0)
        while True:
            absent = [name for name in names if name not in self._resident]
            all_of_them = sum(map(self._bytes, absent))
            if all_of_them <= self._room():
                return []
            if 2 * size <= self._room():
                return absent[int(self._room() - 2 * size) // size :]
            self._free(min(all_of_them, 2 * size), spare=names)

    def _room(self) -> float:
        return self.max_bytes - sum(map(self._bytes, self._resident))

    def _free(self, size: int, spare: Collection[str]) -> None:
        """Let go of what was asked for first, until there is room for so many bytes."""
        for name in sorted(
            self._resident, key=lambda name: name in spare
        ):  # in order, but for those
            if self._room() >= size:
                return
            del self._resident[name]
        if self._room() < size:
            more = size - self._room()
            raise OptionError(
                f"max_memory leaves {self.max_bytes / 1e9:.2f} GB for weights, but two layers or "
                f"one matrix take {size / 1e9:.2f} GB in {str(self.dtype).removeprefix('torch.')}: "
                f"give {more / 1e9:.2f} GB more"
            )

    def _submit(
        self, reader: ThreadPoolExecutor, coming: Iterator[tuple[str, ReadBuffer]]
    ) -> Future[dict[str, torch.Tensor]] | None:
        item = next(coming, None)
        return None if item is None else reader.submit(self._read, *item)

    def _bytes(self, prefix: str) -> int:
        """Of the tensors named `prefix…`, in the dtype of the arithmetic."""
        numbers = sum(n for name, n in self._numbers.items() if name.startswith(prefix))
        return numbers * self.dtype.itemsize

    def _read(self, prefix: str, buffer: ReadBuffer | None = None) -> dict[str, torch.Tensor]:
        """From the file to the device. Page-locked memory lets a GPU fetch it on its own."""
        on_gpu = self.device.type == "cuda"
        return self.tensors.read(
            prefix,
            pinned=on_gpu,
            buffer=None if on_gpu else buffer,
            convert=lambda tensor: tensor.to(self.device, self.dtype, non_blocking=on_gpu),
        )

    def _own(self, build: Callable[[], nn.Module], prefix: str, buffer: ReadBuffer) -> nn.Module:
        """A module to keep. What is laid out anew comes by way of `scratch`; the rest is copied."""
        if self.device.type != "cpu" or self.dtype is not torch.bfloat16:
            return self._fill(build, self._read(prefix))
        module = prepack_linears(self._fill(build, self._read(prefix, buffer)))
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        return module

    def _fill(self, build: Callable[[], nn.Module], tensors: dict[str, torch.Tensor]) -> nn.Module:
        module = empty_module(build)
        module.load_state_dict(tensors, strict=True, assign=True)
        return module.eval().requires_grad_(False)


def empty_module(build: Callable[[], nn.Module]) -> nn.Module:
    """A module without memory: built on the meta device, its tensors shapes alone."""
    with no_init_weights(), torch.device("meta"):
        return build()
