"""Modules filled from a TensorStore: resident while memory allows, else streamed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from qwen_audio.errors import OptionError

from .compressed_tensors import Weights
from .device import trim_heap
from .direct_io import ReadBuffer
from .gpu_copies import CopyStream, StagingBuffer
from .meta_device import empty_module
from .on_demand import OnDemandModules
from .prepack import prepack_linears
from .quantization import QuantizedMatrix
from .quantized_linear import quantized_linear
from .quantized_store import QuantizedStore
from .tensor_store import TensorStore
from .worker_threads import WorkerThreads

__all__ = ["ModuleStore"]


class ModuleStore:
    """The modules of one checkpoint on one device, each filled strictly with its own tensors.

    Args:
        max_bytes: of all weights in memory together; may be changed between passes. Single modules
            and as many layers as fit are resident; layers that don't fit are read in every pass,
            each while the one before it computes; of its experts, those that rows are routed to.
        quantized: the modules that are quantised.
        outlier_inputs: the beginning of the names of matrices whose activations have outliers:
            where others are quantised to 8 bits, theirs take 16.
        float32_names: the beginning of the names of tensors that stay in float32.
        experts_prefix: the beginning of the names of experts within a layer, where its module of
            that name is `OnDemandModules`; a number follows.
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
        experts_prefix: str = "",
    ) -> None:
        self.tensors, self.device, self.dtype = tensors, device, dtype
        self.quantized, self._outlier_inputs = quantized, outlier_inputs
        self._float32_names, self._experts_prefix = float32_names, experts_prefix
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
        builds = {f"{prefix}{k}.": partial(build, k) for k in range(depth)}
        streamed = self._streamed(list(builds))
        # Resident layers first, so that the heap isn't fragmented by blocks that are freed again.
        self._make_resident({name: builds[name] for name in builds if name not in streamed})
        if not streamed:
            yield from map(self.get, builds.keys(), builds.values())
            return
        with WorkerThreads(1, "weights") as reader:
            buffers = self._stream_buffers()
            # Pinned memory is shared; of other memory, what isn't used isn't allocated.
            expert_buffers = buffers if self._copies is not None else self._stream_buffers()
            absent = {name: builds[name] for name in streamed}
            layers = self._stream(reader, absent, buffers, without=self._experts_prefix)
            for name, build_layer in builds.items():
                if name not in streamed:
                    yield self.get(name, build_layer)
                    continue
                layer = next(layers)
                for path, experts in _on_demand_modules(layer) if self._experts_prefix else ():
                    numbered = partial(self._stream_numbered, f"{name}{path}.", experts.build)
                    experts.read_with(partial(numbered, reader, expert_buffers))
                yield layer
                del layer

    def release(self) -> None:
        """Free all weights; they are read again when needed."""
        self._resident.clear()

    def release_for_streaming(self, prefix: str) -> None:
        """Free all weights, and from now on leave memory for two of the layers `prefix0.` …, each
        read with all of its experts: for passes of many batches through each."""
        self.release()
        self._experts_prefix = ""
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
        buffer_bytes = 2 * max(map(self._streamed_bytes, names), default=0)
        while True:
            absent = [name for name in names if name not in self._resident]
            absent_bytes = sum(map(self._weight_bytes, absent))
            if absent_bytes <= self._free_bytes():
                return []
            if buffer_bytes <= self._free_bytes():
                return absent[int(self._free_bytes() - buffer_bytes) // layer_bytes :]
            self._evict(min(absent_bytes, buffer_bytes), evict_last=names)

    def _streamed_bytes(self, name: str) -> int:
        """Of a layer that is streamed: with one of its experts at a time."""
        all_bytes, experts = self._weight_bytes(name), f"{name}{self._experts_prefix}"
        if not self._experts_prefix:
            return all_bytes
        return all_bytes - self._weight_bytes(experts) + self._weight_bytes(f"{experts}0.")

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

    def _stream(
        self,
        reader: Executor,
        modules: Mapping[str, Callable[[], nn.Module]],
        buffers: Sequence[ReadBuffer | StagingBuffer],
        without: str = "",
    ) -> Iterator[nn.Module]:
        """Modules in order, without the tensors whose names continue with `without`. The first is
        read from now on, the others while the one before is used; each is valid until the next is
        requested."""
        read = partial(self._read, without=without)
        reads = map(partial(reader.submit, read), modules, itertools.cycle(buffers))
        ahead = list(itertools.islice(reads, 1))

        def filled() -> Iterator[nn.Module]:
            for name, build in modules.items():
                module = self._fill(build, name, ahead.pop().result())
                ahead.extend(itertools.islice(reads, 1))
                yield module
                del module

        return filled()

    def _stream_numbered(
        self,
        prefix: str,
        build: Callable[[], nn.Module],
        reader: Executor,
        buffers: Sequence[ReadBuffer | StagingBuffer],
        numbers: Sequence[int],
    ) -> Iterator[nn.Module]:
        """The modules `prefix…` of these numbers; see `_stream`."""
        return self._stream(reader, {f"{prefix}{each}.": build for each in numbers}, buffers)

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

    def _read(
        self, prefix: str, buffer: ReadBuffer | StagingBuffer | None = None, without: str = ""
    ) -> Weights:
        """Read tensors, for a GPU on the stream of its copies; see `TensorStore.read_weights`."""
        with nullcontext() if self._copies is None else self._copies.select():
            if self.quantized is not None and prefix in self.quantized:
                return self.quantized.read(prefix, self.device, self.dtype, without)
            dtype = self._dtype_of(prefix)
            return self.tensors.read_weights(
                prefix, device=self.device, dtype=dtype, buffer=buffer, without=without
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
        for path, experts in _on_demand_modules(module):
            if any(name.startswith(f"{path}.") for name in weights):
                empty_module(experts.build_all)
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


def _on_demand_modules(module: nn.Module) -> Iterator[tuple[str, OnDemandModules]]:
    """With their names in the module."""
    for path, part in module.named_modules():
        if isinstance(part, OnDemandModules):
            yield path, part
