"""Headers and tensors of one safetensors file, read without a memory map.

A safetensors file is the header's length (8 bytes, little endian), the header (a JSON object from
name to dtype, shape and offsets), and the tensors, one after another without gaps
(https://github.com/huggingface/safetensors#format). Plain reads touch exactly the bytes that are
needed, and the same header can describe a file on a hub.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from qwen_audio.errors import CheckpointError

from .direct_io import ReadBuffer
from .gpu_copies import StagingBuffer

__all__ = [
    "LENGTH_BYTES",
    "TensorInfo",
    "TensorLocation",
    "header_size",
    "parse_header",
    "read_header",
    "read_rows",
    "read_tensors",
    "tensor_byte_samples",
    "tensor_dtype",
]

LENGTH_BYTES = 8
"""Size of the header's length, at the start of the file."""

_MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_INTEGER_DTYPES = {"U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64}
_SIZES = {"U8": 1, "I8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2}
_SIZES |= {"I32": 4, "U32": 4, "I64": 8, "U64": 8}
_SIZES |= {name: dtype.itemsize for name, dtype in _DTYPES.items()}

_SAMPLES_PER_TENSOR, _SAMPLE_BYTES = 2, 256
"""Training changes most values of a tensor, so that a few of them show whether it has changed."""


@dataclass(frozen=True)
class TensorInfo:
    """Dtype, shape and byte range of a tensor in a file: bytes start … stop−1 of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """Size in the file."""
        return self.stop - self.start


@dataclass(frozen=True)
class TensorLocation:
    """A tensor in a local file."""

    file: Path
    info: TensorInfo


def tensor_dtype(info: TensorInfo, name: str) -> torch.dtype:
    """The torch dtype of a stored tensor. Raises CheckpointError unless it is a supported one."""
    dtype = _DTYPES.get(info.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{name} is stored as {info.dtype}; only {', '.join(_DTYPES)} are supported "
            "(quantised checkpoints are not)"
        )
    return dtype


def _stored_dtype(info: TensorInfo, name: str) -> torch.dtype:
    """As `tensor_dtype`, and integers: of quantised matrices."""
    return _INTEGER_DTYPES.get(info.dtype) or tensor_dtype(info, name)


def header_size(start: bytes, name: str) -> int:
    """Bytes before the first tensor, from a file's first eight bytes. Raises CheckpointError."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or not 2 <= length <= _MAX_HEADER_BYTES:
        raise _invalid_file(name, "it doesn't start with the length of a header")
    return LENGTH_BYTES + length


def parse_header(data: bytes, size: int, name: str) -> dict[str, TensorInfo]:
    """The tensors of a file of `size` bytes that starts with `data`.

    Raises:
        CheckpointError: unless the tensors, without gaps, take exactly the rest of the file.
    """
    first = header_size(data, name)
    if len(data) < first or size < first:
        raise _invalid_file(name, "it ends inside its header")
    try:
        entries = json.loads(data[LENGTH_BYTES:first])
        entries.pop("__metadata__", None)
        tensors = {tensor: _parse_entry(entry, first) for tensor, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _invalid_file(name, f"its header can't be read: {error}") from error
    stop = first
    for tensor, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != stop or info.bytes != math.prod(info.shape) * _SIZES[info.dtype]:
            raise _invalid_file(name, f"its header gives {tensor} wrong offsets")
        stop = info.stop
    if stop != size:
        raise _invalid_file(name, f"it has {size} bytes, but its header describes {stop}")
    return tensors


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file. Raises CheckpointError for a damaged or incomplete file."""
    try:
        with _open(path) as file:
            start = file.read(LENGTH_BYTES)
            rest = file.read(header_size(start, str(path)) - LENGTH_BYTES)
            return parse_header(start + rest, os.fstat(file.fileno()).st_size, str(path))
    except OSError as error:
        raise _invalid_file(str(path), str(error)) from error


def read_tensors(
    locations: Mapping[str, TensorLocation],
    *,
    buffer: ReadBuffer | StagingBuffer | None = None,
    convert: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Read tensors, in the order of the files, each into its own memory.

    Args:
        buffer: read into this instead, overwriting the tensors read into it before: for weights
            that are soon released. A `StagingBuffer` copies each tensor on to its GPU.
        convert: applied to each tensor's name and the tensor as soon as it is read, so that memory
            never holds both forms of all of them.

    Raises:
        CheckpointError: for a dtype that isn't supported, or a truncated file.
    """
    tensors: dict[str, torch.Tensor] = {}
    if isinstance(buffer, ReadBuffer):
        buffer.rewind()
    for path in dict.fromkeys(location.file for location in locations.values()):
        with _open(path) as file:
            infos = [(name, at.info) for name, at in locations.items() if at.file == path]
            for name, info in sorted(infos, key=lambda item: item[1].start):
                if buffer is not None:
                    tensor = _read_buffered(buffer, path, name, info)
                else:
                    _advise_will_need(file, info.start, info.bytes)
                    tensor = _read_values(file, name, info, info.start, info.shape)
                tensors[name] = tensor if convert is None else convert(name, tensor)
                is_copy = tensors[name].data_ptr() != tensor.data_ptr()
                if isinstance(buffer, ReadBuffer) and is_copy:
                    buffer.give_back()
    return tensors


def read_rows(location: TensorLocation, rows: Iterable[int], name: str) -> list[torch.Tensor]:
    """Single rows of a matrix, each of shape (columns,), without reading the others."""
    info = location.info
    row_bytes = info.bytes // info.shape[0]
    with _open(location.file) as file:
        return [
            _read_values(file, name, info, info.start + row * row_bytes, info.shape[1:])
            for row in rows
        ]


def tensor_byte_samples(path: Path) -> Iterator[bytes]:
    """For each tensor its entry in the header, and samples of its bytes (small ones entirely)."""
    tensors = read_header(path)
    with _open(path) as file:
        for name, info in sorted(tensors.items()):
            yield json.dumps([name, info.dtype, list(info.shape)]).encode()
            step = max(_SAMPLE_BYTES, info.bytes // _SAMPLES_PER_TENSOR)
            for start in range(info.start, info.stop, step):
                file.seek(start)
                yield file.read(min(_SAMPLE_BYTES, info.stop - start))


def _parse_entry(entry: Any, first: int) -> TensorInfo:
    """Raises KeyError, TypeError or ValueError for an invalid entry of a header."""
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _SIZES:
        raise ValueError(f"unknown dtype {dtype!r}")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
        raise ValueError("shapes and offsets must be whole numbers, 0 or more")
    return TensorInfo(dtype, shape, first + start, first + stop)


def _open(path: Path) -> BinaryIO:
    """Open unbuffered and, as reads are at arbitrary offsets, without the kernel's read-ahead."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise _invalid_file(str(path), str(error)) from error
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file


def _advise_will_need(file: BinaryIO, start: int, size: int) -> None:
    """Have the kernel read ahead exactly these bytes."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_WILLNEED)


def _read_values(
    file: BinaryIO,
    name: str,
    info: TensorInfo,
    start: int,
    shape: tuple[int, ...],
) -> torch.Tensor:
    """Values of one tensor, from offset `start` of the file on, as many as `shape` holds."""
    values = torch.empty(math.prod(shape), dtype=_stored_dtype(info, name))
    data = memoryview(values.view(torch.uint8).numpy())  # type: ignore[arg-type]
    file.seek(start)
    filled = 0
    while filled < len(data):
        count = file.readinto(data[filled:])  # type: ignore[attr-defined]
        if not count:
            raise _invalid_file(file.name, f"it ends inside {name}")
        filled += count
    return values.reshape(shape)


def _read_buffered(
    buffer: ReadBuffer | StagingBuffer, path: Path, name: str, info: TensorInfo
) -> torch.Tensor:
    dtype = _stored_dtype(info, name)
    try:
        data = buffer.read(path, info.start, info.stop)
    except OSError as error:
        raise _invalid_file(str(path), str(error)) from error
    if len(data) < info.bytes:
        raise _invalid_file(str(path), f"it ends inside {name}")
    if isinstance(data, torch.Tensor):
        return data.view(dtype).reshape(info.shape)
    if info.start % dtype.itemsize:  # unaligned, after a header of odd length
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(info.shape)
    return torch.frombuffer(data, dtype=dtype).reshape(info.shape)


def _invalid_file(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} is not a complete safetensors file ({why}): download it again")
