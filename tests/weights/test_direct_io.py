"""Bytes of a file in memory that is used again: whole pages are read, only what is asked shows."""

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
    path = tmp_path_factory.mktemp("scratch") / "data"
    path.write_bytes(DATA)
    return path


@pytest.fixture(params=["direct", "no such flag", "refused"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Systems that read directly, that can't, and whose file system refuses."""
    if request.param == "no such flag":
        monkeypatch.delattr(os, "O_DIRECT", raising=False)
    elif request.param == "refused":

        def refuse(*_: Any) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "preadv", refuse)
    return str(request.param)


places = st.lists(st.tuples(st.integers(0, 50_100), st.integers(0, 20_000)), max_size=8)


def test_what_is_asked_for_and_no_more(file: Path, way: str) -> None:
    @given(places)
    def holds(asked: list[tuple[int, int]]) -> None:
        scratch = ReadBuffer()
        for _ in range(2):
            scratch.rewind()
            read = [scratch.read(file, start, start + size) for start, size in asked]
            for (start, size), found in zip(asked, read, strict=True):
                assert bytes(found) == DATA[start : start + size]

    holds()


def test_memory_is_used_again(file: Path) -> None:
    scratch = ReadBuffer()
    first, second = scratch.read(file, 0, 9000), scratch.read(file, 9000, 18000)
    scratch.rewind()
    again = scratch.read(file, 20_000, 21_000)
    assert bytes(first[20_000 % mmap.PAGESIZE :][:1000]) == bytes(again)
    assert bytes(second) == DATA[9000:18000]
    scratch.give_back()
    assert bytes(scratch.read(file, 3, 4)) == DATA[3:4]
    assert bytes(first[3:4]) == DATA[3:4]


def test_direct_reads_are_taken_where_there_are(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "O_DIRECT"):
        pytest.skip("this system knows no direct reads")
    seen: list[int] = []
    opening = os.open

    def watched(path: Any, flags: int, *rest: Any) -> int:
        seen.append(flags & os.O_DIRECT)
        return opening(path, flags, *rest)

    monkeypatch.setattr(os, "open", watched)
    ReadBuffer().read(file, 1, 2)
    assert seen == [os.O_DIRECT]


def test_tensors_share_it(file: Path) -> None:
    slots = {
        "a": TensorInfo("BF16", (4000,), 3, 8_003),
        "b": TensorInfo("F32", (30, 100), 8_004, 20_004),
        "c": TensorInfo("F32", (1,), 20_004, 20_008),
    }
    located = {name: TensorLocation(file, slot) for name, slot in slots.items()}
    plain = read_tensors(located)
    scratch = ReadBuffer()
    for _ in range(2):
        shared = read_tensors(located, buffer=scratch)
        for name, tensor in plain.items():
            assert torch.equal(
                shared[name].flatten().view(torch.uint8), tensor.flatten().view(torch.uint8)
            )
    where = [tensor.data_ptr() for tensor in shared.values()]
    assert len(set(where)) == 3
    doubled = read_tensors(located, buffer=scratch, convert=lambda tensor: tensor.double())
    assert all(tensor.data_ptr() not in where for tensor in doubled.values())
    np.testing.assert_array_equal(doubled["b"].numpy(), plain["b"].double().numpy())
    assert len(scratch._pieces) == 3  # those of before: none was needed anew


def test_a_file_cut_short(file: Path, way: str) -> None:
    beyond = {"x": TensorLocation(file, TensorInfo("F32", (100,), 49_900, 50_300))}
    with pytest.raises(CheckpointError, match="it ends inside x"):
        read_tensors(beyond, buffer=ReadBuffer())
    gone = {"x": TensorLocation(file.with_name("gone"), TensorInfo("F32", (1,), 0, 4))}
    with pytest.raises(CheckpointError, match="gone is not a complete safetensors file"):
        read_tensors(gone, buffer=ReadBuffer())
