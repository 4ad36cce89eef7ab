"""Reusable read buffer: whole pages are read, only the requested bytes are returned."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_audio.errors import CheckpointError
from qwen_audio.weights.direct_io import ReadBuffer
from qwen_audio.weights.safetensors_file import TensorInfo, TensorLocation, read_tensors

DATA = np.random.default_rng(0).integers(0, 256, 50_001, np.uint8).tobytes()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("direct_io") / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture(params=["direct", "no O_DIRECT", "refused"])
def io_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Direct reads; a system without O_DIRECT; a file system that refuses it."""
    if request.param == "no O_DIRECT":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    elif request.param == "refused":

        def refuse(*_: Any) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "preadv", refuse)
    return str(request.param)


byte_ranges = st.lists(st.tuples(st.integers(0, 50_100), st.integers(0, 20_000)), max_size=8)


def test_exactly_the_requested_bytes(file: Path, io_mode: str) -> None:
    @given(byte_ranges)
    def check(ranges: list[tuple[int, int]]) -> None:
        buffer = ReadBuffer()
        for _ in range(2):
            buffer.rewind()
            views = [buffer.read(file, start, start + size) for start, size in ranges]
            for (start, size), view in zip(ranges, views, strict=True):
                assert bytes(view) == DATA[start : start + size]

    check()


def test_memory_is_reused(file: Path) -> None:
    buffer = ReadBuffer()
    first, second = buffer.read(file, 0, 9000), buffer.read(file, 9000, 18000)
    buffer.rewind()
    again = buffer.read(file, 20_000, 21_000)
    assert bytes(first[20_000 % mmap.PAGESIZE :][:1000]) == bytes(again)
    assert bytes(second) == DATA[9000:18000]
    buffer.give_back()
    assert bytes(buffer.read(file, 3, 4)) == DATA[3:4]
    assert bytes(first[3:4]) == DATA[3:4]


def test_direct_reads_are_used_where_available(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "O_DIRECT"):
        pytest.skip("this system has no direct reads")
    flags_used: list[int] = []
    original_open = os.open

    def recording_open(path: Any, flags: int, *rest: Any) -> int:
        flags_used.append(flags & os.O_DIRECT)
        return original_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", recording_open)
    ReadBuffer().read(file, 1, 2)
    assert flags_used == [os.O_DIRECT]


def test_tensors_share_the_buffer(file: Path) -> None:
    infos = {
        "a": TensorInfo("BF16", (4000,), 3, 8_003),
        "b": TensorInfo("F32", (30, 100), 8_004, 20_004),
        "c": TensorInfo("F32", (1,), 20_004, 20_008),
    }
    locations = {name: TensorLocation(file, info) for name, info in infos.items()}
    plain = read_tensors(locations)
    buffer = ReadBuffer()
    for _ in range(2):
        shared = read_tensors(locations, buffer=buffer)
        for name, tensor in plain.items():
            assert torch.equal(
                shared[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)
            )
    addresses = [tensor.data_ptr() for tensor in shared.values()]
    assert len(set(addresses)) == 3
    doubled = read_tensors(locations, buffer=buffer, convert=lambda _, tensor: tensor.double())
    assert all(tensor.data_ptr() not in addresses for tensor in doubled.values())
    np.testing.assert_array_equal(doubled["b"].numpy(), plain["b"].double().numpy())
    assert len(buffer._blocks) == 3  # no further block was allocated


def test_a_truncated_file(file: Path, io_mode: str) -> None:
    past_end = {"x": TensorLocation(file, TensorInfo("F32", (100,), 49_900, 50_300))}
    with pytest.raises(CheckpointError, match="it ends inside x"):
        read_tensors(past_end, buffer=ReadBuffer())
    deleted = {"x": TensorLocation(file.with_name("gone"), TensorInfo("F32", (1,), 0, 4))}
    with pytest.raises(CheckpointError, match="gone is not a complete safetensors file"):
        read_tensors(deleted, buffer=ReadBuffer())
