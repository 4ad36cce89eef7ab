"""safetensors files: headers parsed as safetensors does, tensors read to the byte."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import load_file, save_file

from qwen_audio.errors import CheckpointError
from qwen_audio.weights.safetensors_file import (
    TensorInfo,
    TensorLocation,
    header_size,
    parse_header,
    read_header,
    read_rows,
    read_tensors,
)

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.arange(5, dtype=torch.bfloat16),
    "half": torch.arange(4, dtype=torch.float16).reshape(2, 1, 2),
    "double": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.zeros(0, 3),
}


def split_file(file: Path) -> tuple[dict[str, Any], bytes]:
    """A file's parsed header, and the bytes after it."""
    data = file.read_bytes()
    end = header_size(data, "file")
    return json.loads(data[8:end]), data[end:]


def build_file(header: Any, body: bytes) -> bytes:
    """The bytes of a file with this header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("safetensors") / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def locations_in(file: Path) -> dict[str, TensorLocation]:
    return {name: TensorLocation(file, info) for name, info in read_header(file).items()}


def test_tensors_equal_those_that_safetensors_reads(file: Path) -> None:
    tensors, expected = read_tensors(locations_in(file)), load_file(file)
    assert tensors.keys() == expected.keys() == TENSORS.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@settings(max_examples=40)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(shapes, dtypes), max_size=6))
def test_any_tensors_under_any_names(
    tmp_path_factory: pytest.TempPathFactory,
    layout: dict[str, tuple[tuple[int, ...], torch.dtype]],
) -> None:
    layout.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("any") / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, (shape, dtype) in layout.items()
    }
    save_file(tensors, path)
    read_back = read_tensors(locations_in(path))
    assert read_back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read_back[name].dtype == tensor.dtype
        assert torch.equal(read_back[name], tensor)


# Invalid files.


def with_changed_a(header: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**header, "a": {**header["a"], **changes}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, b: (with_changed_a(h, shape=[2, 4]), b), "gives a wrong offsets"),
        (lambda h, b: (with_changed_a(h, dtype="F16"), b), "gives a wrong offsets"),
        (lambda h, b: (with_changed_a(h, dtype="F31"), b), "unknown dtype 'F31'"),
        (lambda h, b: (with_changed_a(h, dtype=["F32"]), b), "can't be read"),
        (lambda h, b: (with_changed_a(h, shape=[2.0, 3]), b), "whole numbers"),
        (lambda h, b: (with_changed_a(h, shape=[-2, -3]), b), "whole numbers"),
        (lambda h, b: (with_changed_a(h, shape=6), b), "can't be read"),
        (lambda h, b: (with_changed_a(h, data_offsets=[0]), b), "can't be read"),
        (lambda h, b: (with_changed_a(h, data_offsets=["0", "24"]), b), "whole numbers"),
        (lambda h, b: (with_changed_a(h, data_offsets=h["b"]["data_offsets"]), b), "wrong offsets"),
        (lambda h, b: ({**h, "c": h["a"]}, b), "wrong offsets"),
        (lambda h, b: ({n: e for n, e in h.items() if n != "a"}, b), "wrong offsets"),
        (lambda h, b: (h, b[:-1]), "its header describes"),
        (lambda h, b: (h, b + b"\0"), "its header describes"),
        (lambda h, b: (h, b""), "its header describes"),
        (lambda h, b: ([h], b), "can't be read"),
        (lambda h, b: ("header", b), "can't be read"),
        (lambda h, b: ({**h, "a": None}, b), "can't be read"),
        (lambda h, b: ({**h, "a": {}}, b), "can't be read"),
    ],
)
def test_invalid_headers(change: Any, message: str, file: Path) -> None:
    header, body = split_file(file)
    data = build_file(*change(header, body))
    with pytest.raises(CheckpointError, match="is not a complete safetensors file") as raised:
        parse_header(data, len(data), "model.safetensors")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(SafetensorError):
        deserialize(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2\0\0",
        (2**63).to_bytes(8, "little") + b"{}",
        (100_000_001).to_bytes(8, "little") + b"{}",
        (1).to_bytes(8, "little") + b"{}",
        (20).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{{",
        (10_000).to_bytes(8, "little") + b"[" * 10_000,
        b"PK\3\4 a pickled file of weights",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_files_of_other_formats(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="model is not a complete safetensors file"):
        parse_header(data, len(data), "model")


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A file with a few bytes of its header changed, inserted or deleted, or truncated."""
    data = bytearray(DATA)
    end = header_size(DATA, "file")
    for _ in range(draw(st.integers(1, 3))):
        offset = draw(st.integers(0, min(end, len(data)) - 1))
        kind = draw(st.sampled_from(["change", "change digit", "insert", "delete", "truncate"]))
        if kind == "change":
            data[offset] = draw(st.integers(0, 255))
        elif kind == "change digit":
            digits = [k for k in range(min(end, len(data))) if chr(data[k]) in "0123456789"]
            data[draw(st.sampled_from(digits or [0]))] = ord(draw(st.sampled_from("0123456789-")))
        elif kind == "insert":
            data.insert(offset, draw(st.integers(32, 126)))
        elif kind == "delete":
            del data[offset]
        else:
            del data[draw(st.integers(min(9, len(data)), len(data))) :]
            end = min(end, len(data))
    return bytes(data)


DATA = build_file(
    {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [5], "data_offsets": [24, 34]},
        "c": {"dtype": "F16", "shape": [2, 1, 2], "data_offsets": [34, 42]},
    },
    bytes(range(42)),
)


@pytest.mark.slow
@settings(max_examples=400)
@given(damaged_files())
def test_a_damaged_header_is_an_error_or_parsed_as_safetensors_does(data: bytes) -> None:
    """No other error, and no tensor at offsets where safetensors would not read it."""
    try:
        tensors = parse_header(data, len(data), "model")
    except CheckpointError as error:
        assert str(error).startswith("model is not a complete safetensors file")  # noqa: PT017
        return
    first = header_size(data, "model")
    expected = dict(deserialize(data))
    assert tensors.keys() == expected.keys()
    for name, info in tensors.items():
        assert (info.dtype, list(info.shape)) == (expected[name]["dtype"], expected[name]["shape"])
        assert info.start >= first
        assert data[info.start : info.stop] == bytes(expected[name]["data"])


def test_a_header_can_be_parsed_without_the_rest_of_the_file() -> None:
    """As when only the start of a remote file has been downloaded."""
    end = header_size(DATA, "model")
    assert parse_header(DATA[:end], len(DATA), "model") == parse_header(DATA, len(DATA), "model")
    with pytest.raises(CheckpointError, match="ends inside its header"):
        parse_header(DATA[: end - 1], len(DATA), "model")


# Bytes read.


def bytes_read() -> int:
    """By this process so far, as needs_byte_counter by the kernel."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


needs_byte_counter = pytest.mark.skipif(
    not Path("/proc/self/io").exists(), reason="needs Linux' /proc/self/io"
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten tensors of 400 kB."""
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({f"t{k}": torch.randn(1000, 100, generator=generator) for k in range(10)}, path)
    return path


@needs_byte_counter
@pytest.mark.parametrize("names", [["t3"], ["t9", "t0"], [f"t{k}" for k in range(10)]])
def test_only_the_bytes_of_the_tensors_are_read(names: list[str], large: Path) -> None:
    locations = {name: at for name, at in locations_in(large).items() if name in names}
    before = bytes_read()
    overhead = bytes_read() - before  # of reading the counter
    before = bytes_read()
    tensors = read_tensors(locations)
    assert bytes_read() - before - overhead == 400_000 * len(names)
    for name, tensor in load_file(large).items():
        assert name not in names or torch.equal(tensors[name], tensor)


@needs_byte_counter
def test_only_the_bytes_of_the_rows_are_read(large: Path) -> None:
    location, tensor = locations_in(large)["t4"], load_file(large)["t4"]
    before = bytes_read()
    overhead = bytes_read() - before
    before = bytes_read()
    rows = read_rows(location, [999, 0, 7, 0], "t4")
    assert bytes_read() - before - overhead == 4 * 400
    assert torch.equal(torch.stack(rows), tensor[[999, 0, 7, 0]])


@given(st.lists(st.integers(0, 1), max_size=5))
def test_rows_equal_those_of_the_tensor(file: Path, rows: list[int]) -> None:
    for name in ("a", "half"):
        values = read_rows(locations_in(file)[name], rows, name)
        assert len(values) == len(rows)
        for row, tensor in zip(rows, values, strict=True):
            assert torch.equal(tensor, TENSORS[name][row])


def test_tensors_have_their_own_memory(file: Path) -> None:
    """Writing to one changes neither the file nor what is read next."""
    before = file.read_bytes()
    read_tensors(locations_in(file))["a"].fill_(7)
    assert torch.equal(read_tensors(locations_in(file))["a"], TENSORS["a"])
    assert file.read_bytes() == before


def test_a_file_truncated_after_opening_is_an_error(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(file.read_bytes())
    locations = locations_in(copy)
    os.truncate(copy, copy.stat().st_size - 1)
    with pytest.raises(CheckpointError, match="ends inside"):
        read_tensors(locations)


@pytest.mark.parametrize("dtype", ["U16", "F8_E4M3", "BOOL"])
def test_tensors_of_other_dtypes_are_listed_but_not_read(dtype: str, tmp_path: Path) -> None:
    size = 2 if dtype == "U16" else 1
    header = {"q": {"dtype": dtype, "shape": [3], "data_offsets": [0, 3 * size]}}
    path = tmp_path / "q.safetensors"
    path.write_bytes(build_file(header, bytes(3 * size)))
    assert math.prod(read_header(path)["q"].shape) == 3
    with pytest.raises(CheckpointError, match=f"q is stored as {dtype}"):
        read_tensors(locations_in(path))


def test_tensor_info_has_a_size() -> None:
    assert TensorInfo("F32", (2, 3), 10, 34).bytes == 24
