"""Tensors of files in which several are stacked, such as the matrices of all experts of a layer.

They are contiguous, and so are tensors themselves: read, fetched and cached one by one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from .safetensors_file import TensorInfo

__all__ = ["StackedNames", "split_tensors"]

StackedNames = Callable[[str], Sequence[str]]
"""From the name of a tensor in a file to those of its parts, of equal size and in order: of the
matrices that are stacked in it; else its own."""


def split_tensors(
    tensors: Mapping[str, TensorInfo], stacked_names: StackedNames
) -> dict[str, TensorInfo]:
    """The tensors of a file, with the matrices of stacked ones in their place. What can't be
    divided equally keeps its shape, which no part has."""
    found: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        parts = stacked_names(name)
        rows, rest = divmod(math.prod(info.shape[:-1]), len(parts))
        shape = info.shape if rest or len(parts) == 1 else (rows, *info.shape[-1:])
        size = info.bytes // len(parts)
        for start, part in zip(itertools.count(info.start, size), parts, strict=False):
            found[part] = TensorInfo(info.dtype, shape, start, start + size)
    return found
