"""Byte ranges of a remote safetensors file, each cached as a small safetensors file of its own.

A range holds whole tensors, or rows of one. Its file is named after its offsets in the remote file,
so that everything that needs the same module shares one cached file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .safetensors_file import LENGTH_BYTES, TensorInfo

__all__ = ["ByteRange", "row_blocks", "split_into_ranges"]

_MAX_RANGE_BYTES = 128 << 20
"""Except for a single larger tensor: a decoder layer comes as several ranges, concurrently."""

_ROWS_PER_BLOCK = 16
"""Embedding rows downloaded together: ids of special tokens are neighbours, those of words not."""

_LAYER = re.compile(r".*?\.\d+\.")


@dataclass(frozen=True)
class ByteRange:
    """Bytes start … stop−1 of a remote file: the tensors in it, without gaps; or the whole file."""

    tensors: dict[str, TensorInfo]
    start: int
    stop: int
    prefix: str = ""

    @classmethod
    def whole_file(cls, size: int) -> ByteRange:
        """All bytes of a file, which begins with a header of its own."""
        return cls({}, 0, size, prefix="whole-")

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.stop - self.start

    @property
    def file_stem(self) -> str:
        """Name of its cached file, without suffix."""
        return f"{self.prefix}{self.start}-{self.stop}"

    @property
    def header(self) -> bytes:
        """The safetensors header that its cached file starts with, length included."""
        if not self.tensors:
            return b""
        entries = {
            name: {
                "dtype": info.dtype,
                "shape": info.shape,
                "data_offsets": [info.start - self.start, info.stop - self.start],
            }
            for name, info in self.tensors.items()
        }
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)  # other readers expect aligned tensors
        return len(text).to_bytes(LENGTH_BYTES, "little") + text


def split_into_ranges(tensors: Mapping[str, TensorInfo]) -> list[ByteRange]:
    """Ranges that cover exactly these tensors: one per module, where they are contiguous."""
    ranges: list[ByteRange] = []
    module = ""
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        layer = _LAYER.match(name)
        previous_module, module = module, layer[0] if layer else name.rpartition(".")[0]
        last = ranges[-1] if ranges else ByteRange({}, -1, -1)
        is_contiguous = (module, info.start) == (previous_module, last.stop)
        if is_contiguous and info.stop - last.start <= _MAX_RANGE_BYTES:
            ranges[-1] = ByteRange({**last.tensors, name: info}, last.start, info.stop)
        else:
            ranges.append(ByteRange({name: info}, info.start, info.stop))
    return ranges


def row_blocks(name: str, info: TensorInfo, rows: Collection[int]) -> dict[int, ByteRange]:
    """First row → range, for the blocks of a matrix that contain these rows."""
    row_count, row_bytes = info.shape[0], info.bytes // info.shape[0]
    blocks: dict[int, ByteRange] = {}
    for first in sorted({row - row % _ROWS_PER_BLOCK for row in rows}):
        last = min(first + _ROWS_PER_BLOCK, row_count)
        start, stop = info.start + first * row_bytes, info.start + last * row_bytes
        block = TensorInfo(info.dtype, (last - first, *info.shape[1:]), start, stop)
        blocks[first] = ByteRange({name: block}, start, stop, prefix="rows-")
    return blocks
