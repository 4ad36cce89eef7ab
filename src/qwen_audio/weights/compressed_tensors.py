"""Quantised matrices in safetensors files, in the layout of the compressed-tensors format.

The layout is that of https://github.com/vllm-project/compressed-tensors, which transformers and
vLLM read, too. For a layer's `weight` of shape (rows, columns):

| bits | tensor | dtype, shape | content |
| --- | --- | --- | --- |
| 4 | `weight_packed` | int32 (rows, columns / 8) | eight values, the first lowest |
| 4 | `weight_scale` | bfloat16 (rows, groups) | of each group of columns |
| 4 | `weight_zero_point` | int32 (⌈rows / 8⌉, groups) | of eight rows, the first lowest |
| 4 | `weight_shape` | int64 (2) | rows and columns |
| 8 | `weight` | int8 (rows, columns) | |
| 8 | `weight_scale` | float32 (rows, 1) | of each row |

Values and zero points of 4 bits are from 0 to 15: weight = (value − zero point) × scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .matrix_layout import unpack_int32, view_rows
from .quantization import LinearFormat, QuantizedMatrix, pack_nibbles

__all__ = ["Weights", "join_matrices", "part_shapes", "split_matrices", "unpack_rows"]

Weights: TypeAlias = Mapping[str, Tensor | QuantizedMatrix]
"""A module's tensors by name, some of them quantised."""

_PACKED, _SCALE, _ZERO_POINT, _SHAPE = "_packed", "_scale", "_zero_point", "_shape"
_VALUES_PER_INT32 = 8


def part_shapes(shape: tuple[int, ...], form: LinearFormat) -> dict[str, tuple[int, ...]]:
    """For a matrix of a shape the tensors that it is stored as: what is added to its name, and
    their shapes."""
    rows, columns = shape
    form = form.fitting(columns)
    if form.bits == 8:
        return {"": (rows, columns), _SCALE: (rows, 1)}
    groups = columns // (form.group_size or columns)
    return {
        _PACKED: (rows, columns // _VALUES_PER_INT32),
        _SCALE: (rows, groups),
        _ZERO_POINT: (-(-rows // _VALUES_PER_INT32), groups),
        _SHAPE: (2,),
    }


def split_matrices(weights: Weights) -> dict[str, Tensor]:
    """The tensors that a module's weights are stored as."""
    parts: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if isinstance(weight, Tensor):
            parts[name] = weight.contiguous()
        elif weight.bits == 8:
            parts |= {name: weight.values, name + _SCALE: weight.scales.float()}
        else:
            zero_points = weight.zero_points
            if zero_points is None:
                zero_points = torch.full(weight.scales.shape, 8, dtype=torch.uint8)
            parts[name + _PACKED] = view_rows(weight.values, torch.int32)
            parts[name + _SCALE] = weight.scales.bfloat16()
            parts[name + _ZERO_POINT] = _pack_rows(zero_points)
            parts[name + _SHAPE] = torch.tensor(weight.shape)
    return parts


def join_matrices(parts: Mapping[str, Tensor]) -> Weights:
    """The inverse of `split_matrices`."""
    weights: dict[str, Tensor | QuantizedMatrix] = {}
    for name, tensor in parts.items():
        if name.endswith(_PACKED):
            base = name.removesuffix(_PACKED)
            scales = parts[base + _SCALE]
            zero_points = unpack_rows(parts[base + _ZERO_POINT], len(tensor))
            weights[base] = QuantizedMatrix(4, view_rows(tensor, torch.uint8), scales, zero_points)
        elif name + _SCALE in parts:
            weights[name] = QuantizedMatrix(8, tensor, parts[name + _SCALE])
        elif not name.endswith((_SCALE, _ZERO_POINT, _SHAPE)):
            weights[name] = tensor
    return weights


def _pack_rows(values: Tensor) -> Tensor:
    """The inverse of `unpack_rows`."""
    missing = -len(values) % _VALUES_PER_INT32
    columns = nn.functional.pad(values, (0, 0, 0, missing)).T
    return view_rows(pack_nibbles(columns), torch.int32).T.contiguous()


def unpack_rows(packed: Tensor, rows: int) -> Tensor:
    """int32 (⌈rows / 8⌉, groups) → uint8 from 0 to 15 of shape (rows, groups)."""
    return unpack_int32(packed.T)[:, :rows].T.contiguous()
