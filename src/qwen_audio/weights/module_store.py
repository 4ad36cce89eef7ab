"""Modules filled from a TensorStore: resident while memory allows, else streamed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from qwen_audio.errors import OptionError

from .compressed_tensors import Weights
from .device import trim_heap
from .direct_io import ReadBuffer
from .gpu_copies import CopyStream, StagingBuffer
from .prepack import prepack_linears
from .quantization import QuantizedMatrix
from .quantized_linear import quantized_linear
from .quantized_store import QuantizedStore
from .tensor_store import TensorStore
from .worker_threads import WorkerThreads

__all__ = ["ModuleStore", "empty_module"]


class ModuleStore:
    """The modules of one checkpoint on one device, each filled strictly with its own tensors.

    Args:
        max_bytes: of all weights in memory together; may be changed between passes. Single modules
            and as many layers as fit are resident; layers that don't fit are read in every pass,
            each while the one before it computes.
        quantized: the modules that are quantised.
        outlier_inputs: the beginning of the names of matrices whose activations have outliers:
            where others are quantised to 8 bits, theirs take 16.
        float32_names: the beginning of the names of tensors that stay in float32.
    """

    def __init__(
        self,
        tensors: TensorStore,
        device: torch.device,
        dtype: torch.dtype,
        max_bytes: int | None = None,
        quantized: QuantizedStore | None = None,
        outlier_inputs: tuple[str, ...] = (),
        float32_names: tuple[str, ...] = (),
    ) -> None:
        self.tensors, self.device, self.dtype = tensors, device, dtype
        self.quantized, self._outlier_inputs = quantized, outlier_inputs
        self._float32_names = float32_names
        self._formats = tensors.formats | ({} if quantized is None else quantized.formats)
        self.max_bytes: float = math.inf if max_bytes is None else max_bytes
        self._copies = CopyStream(device) if device.type == "cuda" else None
        self._resident: dict[str, nn.Module] = {}
        self._sizes: dict[str, int] = {}

    def get(self, prefix: str, build: Callable[[], nn.Module]) -> Any:
        """The module whose tensors are named `prefix…`, in evaluation mode, without gradients.

        It is built on the meta device: only the weights read from files are ever allocated.
        """
        self._make_resident({prefix: build})
        return self._resident[prefix]

    def layers(
        self, prefix: str, depth: int, build: Callable[[int], nn.Module]
    ) -> Iterator[nn.Module]:
        """The layers `prefix0.` … in order. A streamed layer is valid until the next is requested.

        Raises:
            OptionError: if memory doesn't hold two of them.
        """
        names = [f"{prefix}{k}." for k in range(depth)]
        streamed = self._streamed(names)
        # Resident layers first, so that the heap isn't fragmented by blocks that are freed again.
        self._make_resident(
            {name: partial(build, k) for k, name in enumerate(names) if name not in streamed}
        )
        if not streamed:
            yield from (self.get(name, partial(build, k)) for k, name in enumerate(names))
            return
        with WorkerThreads(1, "weights") as reader:
            queue = zip(streamed, itertools.cycle(self._stream_buffers()), strict=False)
            next_read = self._read_next(reader, queue)
            for k, name in enumerate(names):
                if name not in streamed:
                    yield self.get(name, partial(build, k))
                elif next_read is not None:
                    layer = self._fill(partial(build, k), name, next_read.result())
                    next_read = self._read_next(reader, queue)
                    yield layer
                    del layer

    def release(self) -> None:
        """Free all weights; they are read again when needed."""
        self._resident.clear()

    def release_for_streaming(self, prefix: str) -> None:
        """Free all weights, and from now on leave memory for two of the layers `prefix0.` …"""
        self.release()
        self.max_bytes = 2 * self._weight_bytes(f"{prefix}0.")

    def _make_resident(self, modules: Mapping[str, Callable[[], nn.Module]]) -> None:
        absent = {name: build for name, build in modules.items() if name not in self._resident}
        if not absent:
            return
        buffer = ReadBuffer() if self._copies is None else StagingBuffer(self._copies)
        for name, build in absent.items():
            self._evict(self._weight_bytes(name), evict_last=modules.keys())
            self._resident[name] = self._load_module(build, name, buffer)
        trim_heap()

    def _streamed(self, names: Sequence[str]) -> list[str]:
        """The layers that don't fit beside the resident ones and a buffer of two layers."""
        layer_bytes = max(map(self._weight_bytes, names), default=0)
        while True:
            absent = [name for name in names if name not in self._resident]
            absent_bytes = sum(map(self._weight_bytes, absent))
            if absent_bytes <= self._free_bytes():
                return []
            if 2 * layer_bytes <= self._free_bytes():
                return absent[int(self._free_bytes() - 2 * layer_bytes) // layer_bytes :]
            self._evict(min(absent_bytes, 2 * layer_bytes), evict_last=names)

    def _free_bytes(self) -> float:
        return self.max_bytes - sum(map(self._weight_bytes, self._resident))

    def _evict(self, needed_bytes: int, evict_last: Collection[str]) -> None:
        """Release the oldest modules, those in `evict_last` last, until enough bytes are free."""
        for name in sorted(self._resident, key=lambda name: name in evict_last):  # stable
            if self._free_bytes() >= needed_bytes:
                return
            del self._resident[name]
        if self._free_bytes() < needed_bytes:
            lacking_bytes = needed_bytes - self._free_bytes()
            raise OptionError(
                f"max_memory leaves {self.max_bytes / 1e9:.2f} GB for weights, but two layers or "
                f"one matrix take {needed_bytes / 1e9:.2f} GB in "
                f"{str(self.dtype).removeprefix('torch.')}: give {lacking_bytes / 1e9:.2f} GB more"
            )

    def _read_next(
        self, reader: Executor, queue: Iterator[tuple[str, ReadBuffer | StagingBuffer]]
    ) -> Future[Weights] | None:
        item = next(queue, None)
        return None if item is None else reader.submit(self._read, *item)

    def _weight_bytes(self, prefix: str) -> int:
        """Bytes of the tensors named `prefix…`, as they are in memory.

        Looked up once: every token that is generated asks for all layers.
        """
        if prefix not in self._sizes:
            self._sizes[prefix] = sum(
                self._formats[name].matrix_bytes(shape)
                if name in self._formats
                else math.prod(shape) * self._dtype_of(name).itemsize
                for name, shape in self.tensors.shapes.items()
                if name.startswith(prefix)
            )
        return self._sizes[prefix]

    def _dtype_of(self, name: str) -> torch.dtype:
        """Of a tensor, or of those of a module, in memory."""
        return torch.float32 if name.startswith(self._float32_names) else self.dtype

    def _stream_buffers(self) -> tuple[ReadBuffer | StagingBuffer, ...]:
        """Used in turn. The layer that computes is in one itself, or has been copied to a GPU."""
        if self._copies is not None:
            return (StagingBuffer(self._copies, is_direct=True),)
        return ReadBuffer(), ReadBuffer()

    def _read(self, prefix: str, buffer: ReadBuffer | StagingBuffer | None = None) -> Weights:
        """Read tensors, for a GPU on the stream of its copies."""
        with nullcontext() if self._copies is None else self._copies.select():
            if self.quantized is not None and prefix in self.quantized:
                return self.quantized.read(prefix, self.device, self.dtype)
            return self.tensors.read_weights(
                prefix, device=self.device, dtype=self._dtype_of(prefix), buffer=buffer
            )

    def _load_module(
        self, build: Callable[[], nn.Module], prefix: str, buffer: ReadBuffer | StagingBuffer
    ) -> nn.Module:
        """A resident module. On a CPU, weights that are packed are only read into `buffer`."""
        if self._copies is not None:
            return self._fill(build, prefix, self._read(prefix, buffer))
        is_packed = self.device.type == "cpu" and self.dtype is torch.bfloat16
        if not is_packed or any(name.startswith(prefix) for name in self._formats):
            return self._fill(build, prefix, self._read(prefix))
        module = prepack_linears(self._fill(build, prefix, self._read(prefix, buffer)))
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        return module

    def _fill(self, build: Callable[[], nn.Module], prefix: str, weights: Weights) -> nn.Module:
        tensors = {name: each for name, each in weights.items() if isinstance(each, torch.Tensor)}
        matrices = {
            name: each for name, each in weights.items() if isinstance(each, QuantizedMatrix)
        }
        if self._copies is not None:
            copied = [part for matrix in matrices.values() for part in matrix.parts()]
            self._copies.hand_over([*tensors.values(), *copied])
        module = empty_module(build)
        for name, matrix in matrices.items():
            path = name.removesuffix("weight").removesuffix(".")
            bias = tensors.pop(f"{path}.bias".removeprefix("."), None)
            bits = 16 if (prefix + name).startswith(self._outlier_inputs) else 8
            linear = quantized_linear(matrix, bias, self.dtype, activation_bits=bits)
            if path:
                module.set_submodule(path, linear)
            else:
                module = linear
        module.load_state_dict(tensors, strict=True, assign=True)
        return module.eval().requires_grad_(False)


def empty_module(build: Callable[[], nn.Module]) -> nn.Module:
    """A module on the meta device: shapes without memory. Initialising it takes no time."""
    with _MetaDevice():
        return build()


class _MetaDevice(TorchFunctionMode):
    """New tensors are on the meta device, in this thread only.

    `torch.device("meta")` as a context, and transformers' `no_init_weights`, change variables of
    the whole process: threads that overlap would save each other's values as the original ones.
    """

    _FACTORIES = frozenset({torch.arange, torch.empty, torch.ones, torch.tensor, torch.zeros})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        return func(*args, **kwargs)
