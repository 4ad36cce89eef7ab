"""One file of weights: where each tensor lies in it, read to the byte and no further.

A safetensors file is the header's length (8 bytes, little endian), the header (a JSON object from
name to dtype, shape and offsets), and the tensors, one after another without gaps
(https://github.com/huggingface/safetensors#format). Reading it here rather than through a memory
map says exactly which bytes were read, and lets the same header describe a file on a hub.
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

__all__ = [
    "LENGTH_BYTES",
    "TensorInfo",
    "TensorLocation",
    "check_dtype",
    "header_size",
    "parse_header",
    "read_header",
    "read_rows",
    "read_tensors",
    "tensor_byte_samples",
]

LENGTH_BYTES = 8
"""At the start of the file: how long its header is."""

_LONGEST_HEADER = 100_000_000
"""safetensors' own limit."""

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SIZES = {"U8": 1, "I8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2}
_SIZES |= {"I32": 4, "U32": 4, "I64": 8, "U64": 8}
_SIZES |= {name: dtype.itemsize for name, dtype in _DTYPES.items()}

_PLACES, _BYTES = 2, 256
"""Where training has changed a tensor it has changed most of its numbers: a few tell it."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in a file: bytes start … stop−1, counted from the file's first."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class TensorLocation:
    """A tensor on this machine."""

    file: Path
    slot: TensorInfo


def check_dtype(slot: TensorInfo, name: str) -> torch.dtype:
    """The dtype of a stored tensor. Raises CheckpointError for one that the models never have."""
    dtype = _DTYPES.get(slot.dtype)
    if dtype is None:
        raise CheckpointError(
            f"{name} is stored as {slot.dtype}; only {', '.join(_DTYPES)} are supported "
            "(quantised checkpoints are not)"
        )
    return dtype


def header_size(start: bytes, name: str) -> int:
    """Bytes before the first tensor, from a file's first eight. Raises CheckpointError."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if len(start) < LENGTH_BYTES or not 2 <= length <= _LONGEST_HEADER:
        raise _damaged(name, "it does not begin with the length of a header")
    return LENGTH_BYTES + length


def parse_header(data: bytes, size: int, name: str) -> dict[str, TensorInfo]:
    """Where each tensor lies in a file of `size` bytes that begins with `data`.

    Raises:
        CheckpointError: unless the tensors, laid one after another, are exactly the rest of it.
    """
    first = header_size(data, name)
    if len(data) < first or size < first:
        raise _damaged(name, "it ends inside its header")
    try:
        entries = json.loads(data[LENGTH_BYTES:first])
        entries.pop("__metadata__", None)
        slots = {tensor: _slot(entry, first) for tensor, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(name, f"its header can't be read: {error}") from error
    at = first
    for tensor, slot in sorted(slots.items(), key=lambda item: (item[1].start, item[1].stop)):
        if slot.start != at or slot.bytes != math.prod(slot.shape) * _SIZES[slot.dtype]:
            raise _damaged(name, f"its header gives {tensor} a wrong place")
        at = slot.stop
    if at != size:
        raise _damaged(name, f"it has {size} bytes, and its header tells of {at}")
    return slots


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Where each tensor lies. Raises CheckpointError for a file that is damaged or not whole."""
    try:
        with _opened(file) as opened:
            start = opened.read(LENGTH_BYTES)
            rest = opened.read(header_size(start, str(file)) - LENGTH_BYTES)
            return parse_header(start + rest, os.fstat(opened.fileno()).st_size, str(file))
    except OSError as error:
        raise _damaged(str(file), str(error)) from error


def read_tensors(
    located: Mapping[str, TensorLocation],
    *,
    pinned: bool = False,
    buffer: ReadBuffer | None = None,
    convert: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The tensors, each in memory of its own (page-locked if `pinned`), in the order of the files.

    Args:
        scratch: memory to read into instead, which all tensors of before give up: for weights
            that are soon let go of.
        convert: applied to each as soon as it is read, so that two forms of all never exist.

    Raises:
        CheckpointError: for a number format that the models have no use for, or a file cut short.
    """
    tensors: dict[str, torch.Tensor] = {}
    if buffer is not None:
        buffer.rewind()
    for file in dict.fromkeys(place.file for place in located.values()):
        with _opened(file) as opened:
            mine = [(name, place.slot) for name, place in located.items() if place.file == file]
            for name, slot in sorted(mine, key=lambda item: item[1].start):
                if buffer is not None:
                    tensor = _read_into(buffer, file, name, slot)
                else:
                    _announce(opened, slot.start, slot.bytes)
                    tensor = _read(opened, name, slot, slot.start, slot.shape, pinned)
                tensors[name] = tensor if convert is None else convert(tensor)
                if buffer is not None and tensors[name].data_ptr() != tensor.data_ptr():
                    buffer.give_back()
    return tensors


def read_rows(located: TensorLocation, rows: Iterable[int], name: str) -> list[torch.Tensor]:
    """Single rows of a matrix, each of shape (columns,): a few kilobytes of a large table."""
    slot = located.slot
    size = slot.bytes // slot.shape[0]
    with _opened(located.file) as opened:
        return [
            _read(opened, name, slot, slot.start + row * size, slot.shape[1:], pinned=False)
            for row in rows
        ]


def tensor_byte_samples(file: Path) -> Iterator[bytes]:
    """Each tensor's entry in the header, and bytes from all over it; all of a small one."""
    slots = read_header(file)
    with _opened(file) as opened:
        for name, slot in sorted(slots.items()):
            yield json.dumps([name, slot.dtype, list(slot.shape)]).encode()
            step = max(_BYTES, slot.bytes // _PLACES)
            for place in range(slot.start, slot.stop, step):
                opened.seek(place)
                yield opened.read(min(_BYTES, slot.stop - place))


def _slot(entry: Any, first: int) -> TensorInfo:
    """Raises KeyError, TypeError or ValueError for what is no entry of a header."""
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _SIZES:
        raise ValueError(f"unknown number format {dtype!r}")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
        raise ValueError("sizes and offsets must be whole numbers")
    return TensorInfo(dtype, shape, first + start, first + stop)


def _opened(file: Path) -> BinaryIO:
    """Open for reads at chosen places: without buffers, and without the system reading ahead of
    them (`_announce` tells it what will be read)."""
    try:
        opened = file.open("rb", buffering=0)
    except OSError as error:
        raise _damaged(str(file), str(error)) from error
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return opened


def _announce(opened: BinaryIO, start: int, size: int) -> None:
    """Have the system fetch these bytes in long strides, and none behind them."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(opened.fileno(), start, size, os.POSIX_FADV_WILLNEED)


def _read(
    opened: BinaryIO,
    name: str,
    slot: TensorInfo,
    start: int,
    shape: tuple[int, ...],
    pinned: bool,
) -> torch.Tensor:
    values = torch.empty(math.prod(shape), dtype=check_dtype(slot, name), pin_memory=pinned)
    space = memoryview(values.view(torch.uint8).numpy())  # type: ignore[arg-type]
    opened.seek(start)
    filled = 0
    while filled < len(space):
        count = opened.readinto(space[filled:])  # type: ignore[attr-defined]
        if not count:
            raise _damaged(opened.name, f"it ends inside {name}")
        filled += count
    return values.reshape(shape)


def _read_into(buffer: ReadBuffer, file: Path, name: str, slot: TensorInfo) -> torch.Tensor:
    dtype = check_dtype(slot, name)
    try:
        space = buffer.read(file, slot.start, slot.stop)
    except OSError as error:
        raise _damaged(str(file), str(error)) from error
    if len(space) < slot.bytes:
        raise _damaged(str(file), f"it ends inside {name}")
    if slot.start % dtype.itemsize:  # a header of an odd length
        return torch.frombuffer(bytearray(space), dtype=dtype).reshape(slot.shape)
    return torch.frombuffer(space, dtype=dtype).reshape(slot.shape)


def _damaged(name: str, why: str) -> CheckpointError:
    return CheckpointError(f"{name} is not a complete safetensors file ({why}): download it again")
