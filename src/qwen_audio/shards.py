"""One file of weights: opened with errors that name it, and sampled to tell it from others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .errors import CheckpointError

__all__ = ["itemsize", "open_shard", "samples_of_tensors"]

_PLACES, _BYTES = 16, 256
"""Where training has changed a tensor it has changed most of its numbers: a few tell it."""


def open_shard(file: Path) -> Any:
    """safetensors' reader, to be used in a `with`. Raises CheckpointError for a damaged file."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} is not a complete safetensors file ({error}): download it again"
        ) from error


def itemsize(dtype: str, tensor: str) -> int:
    """Bytes a number. Raises CheckpointError for what is no floating point type of the models."""
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    if dtype not in sizes:
        raise CheckpointError(
            f"{tensor} is stored as {dtype}; only {', '.join(sizes)} are supported "
            "(quantised checkpoints are not)"
        )
    return sizes[dtype]


def samples_of_tensors(file: Path) -> Iterator[bytes]:
    """Each tensor's entry in the header, and bytes from all over it; all of a small one.

    A safetensors file is the header's length (8 bytes, little endian), the header, the tensors.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        for name in sorted(header.keys() - {"__metadata__"}):
            entry = header[name]
            yield json.dumps([name, entry["dtype"], entry["shape"]]).encode()
            start, stop = entry["data_offsets"]
            step = max(_BYTES, (stop - start) // _PLACES)
            for place in range(start, stop, step):
                opened.seek(8 + length + place)
                yield opened.read(min(_BYTES, stop - place))
