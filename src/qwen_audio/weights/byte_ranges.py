"""Parts of a remote safetensors file that are fetched and kept as files of their own.

A piece holds whole tensors (or rows of one) and is itself a small safetensors file, read as any
other. Its name says where it lies in the remote file, so that all who want the same module mean the
same piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .safetensors_file import LENGTH_BYTES, TensorInfo

__all__ = ["ByteRange", "cut", "row_blocks"]

_LARGEST_PIECE = 128 << 20
"""Unless it is one tensor: a layer of a language model comes as several, at the same time."""

_ROWS = 16
"""Rows of a table that come together: the marks of a prompt are neighbours, its words are not."""

_LAYER = re.compile(r".*?\.\d+\.")


@dataclass(frozen=True)
class ByteRange:
    """Bytes start … stop−1 of a remote file: the tensors `slots`, without gaps."""

    slots: dict[str, TensorInfo]
    start: int
    stop: int
    kind: str = ""

    @property
    def size(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def stem(self) -> str:
        """Its file's name."""
        return f"{self.kind}{self.start}-{self.stop}"

    @property
    def head(self) -> bytes:
        """Its file's start: a safetensors header."""
        entries = {
            name: {
                "dtype": slot.dtype,
                "shape": slot.shape,
                "data_offsets": [slot.start - self.start, slot.stop - self.start],
            }
            for name, slot in self.slots.items()
        }
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)  # other readers want tensors aligned
        return len(text).to_bytes(LENGTH_BYTES, "little") + text


def cut(slots: Mapping[str, TensorInfo]) -> list[ByteRange]:
    """Pieces for these tensors: neighbours of the same module together."""
    pieces: list[ByteRange] = []
    module = ""
    for name, slot in sorted(slots.items(), key=lambda item: (item[1].start, item[1].stop)):
        layer = _LAYER.match(name)
        before, module = module, layer[0] if layer else name.rpartition(".")[0]
        last = pieces[-1] if pieces else ByteRange({}, -1, -1)
        joins = (module, slot.start) == (before, last.stop)
        if joins and slot.stop - last.start <= _LARGEST_PIECE:
            pieces[-1] = ByteRange({**last.slots, name: slot}, last.start, slot.stop)
        else:
            pieces.append(ByteRange({name: slot}, slot.start, slot.stop))
    return pieces


def row_blocks(name: str, slot: TensorInfo, rows: Collection[int]) -> dict[int, ByteRange]:
    """First row → piece, for the blocks of a table that these rows lie in."""
    count, size = slot.shape[0], slot.bytes // slot.shape[0]
    blocks: dict[int, ByteRange] = {}
    for first in sorted({row - row % _ROWS for row in rows}):
        last = min(first + _ROWS, count)
        start, stop = slot.start + first * size, slot.start + last * size
        part = TensorInfo(slot.dtype, (last - first, *slot.shape[1:]), start, stop)
        blocks[first] = ByteRange({name: part}, start, stop, kind="rows-")
    return blocks
