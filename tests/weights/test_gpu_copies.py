"""Weights on their way to a GPU: through two blocks, never overwritten early, used when there.

`LateCopies` stands for a GPU that copies as late as it may.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

from checkpoints import random_checkpoint
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights import gpu_copies
from qwen_audio.weights.gpu_copies import CopyStream, StagingBuffer
from qwen_audio.weights.module_store import ModuleStore
from qwen_audio.weights.safetensors_file import TensorInfo, TensorLocation, read_tensors

CPU = torch.device("cpu")
DATA = np.random.default_rng(0).integers(0, 256, 100_001, np.uint8).tobytes()
BLOCK = 4 * mmap.PAGESIZE
LAYERS = "language_model.model.layers."


class LateCopies(CopyStream):
    """Copies when something waits for them, in order, in memory of the CPU.

    Attributes:
        pinned: blocks handed out.
        handed_over: tensors that may be used.
    """

    def __init__(self) -> None:
        self.pinned: list[Tensor] = []
        self.handed_over: list[Tensor] = []
        self._queue: list[tuple[Tensor, Tensor]] = []
        self._selected = threading.local()

    @contextmanager
    def select(self) -> Iterator[None]:
        self._selected.here = True
        yield
        self._selected.here = False

    def pinned_memory(self, size: int) -> Tensor:
        self.pinned.append(torch.zeros(size, dtype=torch.uint8))
        return self.pinned[-1]

    def memory(self, size: int) -> Tensor:
        assert self._selected.here
        return torch.zeros(size, dtype=torch.uint8)

    def copy(self, target: Tensor, pinned: Tensor) -> Any:
        assert self._selected.here
        self._queue.append((target, pinned))
        return _Event(self, len(self._queue))

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        assert not getattr(self._selected, "here", False)
        self.handed_over += tensors
        self.complete(len(self._queue))

    def complete(self, count: int) -> None:
        """Copy what was asked for first, up to so many copies from the beginning."""
        for index, (target, pinned) in enumerate(self._queue[:count]):
            target.copy_(pinned)
            self._queue[index] = (target, target)  # done


class _Event:
    def __init__(self, copies: LateCopies, count: int) -> None:
        self._copies, self._count = copies, count

    def synchronize(self) -> None:
        self._copies.complete(self._count)


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(gpu_copies, "_BLOCK_BYTES", BLOCK)
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu_copies") / "data"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("is_direct", [False, True])
def test_exactly_the_requested_bytes(file: Path, is_direct: bool) -> None:
    """Also where a tensor is larger than both blocks, and where the file ends before it does."""

    @settings(max_examples=20)
    @given(
        st.lists(st.tuples(st.integers(0, 100_100), st.integers(0, 60_000)), min_size=1, max_size=5)
    )
    def check(ranges: list[tuple[int, int]]) -> None:
        copies = LateCopies()
        buffer = StagingBuffer(copies, is_direct=is_direct)
        with copies.select():
            copied = [buffer.read(file, start, start + size) for start, size in ranges]
        copies.hand_over(copied)
        for (start, size), tensor in zip(ranges, copied, strict=True):
            assert tensor.numpy().tobytes() == DATA[start : start + size]
        assert len(copies.pinned) <= 2

    check()


def test_tensors_of_any_dtype_and_place(file: Path) -> None:
    infos = {
        "a": TensorInfo("BF16", (40, 100), 3, 8_003),
        "b": TensorInfo("F32", (30, 500), 8_004, 68_004),
        "c": TensorInfo("F32", (), 68_004, 68_008),
        "d": TensorInfo("F32", (0, 3), 68_008, 68_008),
    }
    locations = {name: TensorLocation(file, info) for name, info in infos.items()}
    copies, plain = LateCopies(), read_tensors(locations)
    with copies.select():
        tensors = read_tensors(locations, buffer=StagingBuffer(copies))
    copies.hand_over(tensors.values())
    for name, tensor in plain.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(*(each.flatten().view(torch.uint8) for each in (tensor, tensors[name])))
    past_end = {"x": TensorLocation(file, TensorInfo("F32", (100,), 99_900, 100_300))}
    with copies.select(), pytest.raises(CheckpointError, match="it ends inside x"):
        read_tensors(past_end, buffer=StagingBuffer(copies))


@pytest.mark.parametrize("layers_in_memory", [2, 6])
def test_modules_are_filled_with_what_has_been_copied(
    layers_in_memory: int, tmp_path: Path
) -> None:
    """Resident layers and streamed ones, read in the thread that uses them and in another."""
    checkpoint = Checkpoint(random_checkpoint(tmp_path, lm_layers=6, encoder_layers=1))
    expected = checkpoint.tensors.read(LAYERS)
    sizes = [t.numel() * 4 for name, t in expected.items() if name.startswith("0.")]
    is_resident = layers_in_memory == 6
    modules = ModuleStore(checkpoint.tensors, CPU, torch.float32, layers_in_memory * sum(sizes))
    modules._copies = copies = LateCopies()
    for _ in range(2):
        layers = modules.layers(
            LAYERS, 6, lambda k: Qwen2DecoderLayer(checkpoint.family.text_config, k)
        )
        for k, layer in enumerate(layers):
            for name, parameter in layer.state_dict().items():
                assert torch.equal(parameter, expected[f"{k}.{name}"])
            del layer
    assert len(modules._resident) == (6 if is_resident else 0)
    assert len(copies.handed_over) == len(sizes) * (6 if is_resident else 12)
    assert {len(block) for block in copies.pinned} == {BLOCK}
    assert len(copies.pinned) == (2 if is_resident else 4)  # two for each pass that reads


class _Stream:
    """Records the calls of a CUDA stream."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self._calls = name, calls

    def record_event(self) -> Any:
        self._calls.append(f"{self.name} records")
        return _Recorded(self.name, self._calls)

    def wait_stream(self, other: _Stream) -> None:
        self._calls.append(f"{self.name} waits for {other.name}")


class _Recorded:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.synchronize = lambda: calls.append(f"thread waits for {name}")


class _Tensor:
    def __init__(self, calls: list[str]) -> None:
        self.record_stream: Callable[[_Stream], None] = lambda stream: calls.append(
            f"kept for {stream.name}"
        )


def test_the_order_of_calls_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The computation waits for a copy, and the copy after the next for the computation."""
    calls: list[str] = []
    copying, computing = _Stream("copying", calls), _Stream("computing", calls)
    monkeypatch.setattr(gpu_copies, "_copy_stream", lambda _: copying)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    selected: list[Any] = []
    monkeypatch.setattr(torch.cuda, "stream", selected.append)
    copies = CopyStream(torch.device("cuda", 0))
    copies.select()
    assert (selected, calls) == ([copying], [])
    copies.copy(torch.empty(3), torch.empty(3)).synchronize()
    tensor: Any = _Tensor(calls)
    copies.hand_over([tensor, tensor])
    copies.select()
    assert calls == [
        "copying records",
        "thread waits for copying",
        "computing records",
        "computing waits for copying",
        "kept for computing",
        "kept for computing",
        "thread waits for computing",
    ]
    for owner, name in (
        (torch.cuda.Stream, "record_event"),
        (torch.cuda.Stream, "wait_stream"),
        (torch.cuda.Event, "synchronize"),
        (Tensor, "record_stream"),
    ):
        assert callable(getattr(owner, name)), name
