"""Matrices in the layouts of compressed-tensors, of other programs' files, too.

`compressed_tensors` describes the layout that this package writes. Others differ from it: zero
points in the middle, which aren't stored; 8 bits packed into int32; scales in other dtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .compressed_tensors import unpack_rows
from .matrix_layout import MatrixLayout, StoredTensor, view_rows
from .quantization import LinearFormat, QuantizedMatrix

__all__ = ["PackedLayout", "WholeByteLayout"]

_SCALE, _ZERO_POINT = "weight_scale", "weight_zero_point"


@dataclass(frozen=True)
class _CompressedLayout(MatrixLayout):
    """What all have in common.

    Attributes:
        group_size: columns that share a scale; None: a whole row does.
        has_zero_points: they are stored.
    """

    group_size: int | None
    has_zero_points: bool

    @property
    def groups(self) -> int:
        """Scales of a row."""
        return self.columns // (self.group_size or self.columns)

    @property
    def form(self) -> LinearFormat:
        """See `MatrixLayout.form`."""
        return LinearFormat(self.bits, self.group_size)

    def _check_symmetric(self, parts: Mapping[str, Tensor]) -> None:
        """Earlier versions store zero points of symmetric values, all 0."""
        if self.has_zero_points and parts[_ZERO_POINT].any():
            raise ValueError("its 8-bit values are not symmetric about 0")


@dataclass(frozen=True)
class PackedLayout(_CompressedLayout):
    """Values of 4 or 8 bits packed into int32, the first lowest ("pack-quantized").

    Attributes:
        bits: 4 or 8; of 8, zero points must be those of symmetric values.
        is_symmetric: stored zero points are not used.
    """

    bits: int = 4
    is_symmetric: bool = True

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        parts = {
            "weight_packed": StoredTensor((self.rows, self.columns * self.bits // 32), ("I32",)),
            _SCALE: StoredTensor((self.rows, self.groups)),
            "weight_shape": StoredTensor((2,), ("I64", "I32")),
        }
        if self.has_zero_points:
            is_packed = self.bits == 4 and not self.is_symmetric
            parts[_ZERO_POINT] = (
                StoredTensor((-(-self.rows // 8), self.groups), ("I32",))
                if is_packed
                else StoredTensor(None, ("I8", "I32"))
            )
        return parts

    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        """See `MatrixLayout.join`."""
        if parts["weight_shape"].tolist() != [self.rows, self.columns]:
            raise ValueError(f"it is of shape {parts['weight_shape'].tolist()}")
        values, scales = view_rows(parts["weight_packed"], torch.uint8), parts[_SCALE]
        if self.bits == 8:
            self._check_symmetric(parts)
            return QuantizedMatrix(8, (values ^ 128).view(torch.int8), scales)
        zero_points = None
        if not self.is_symmetric:
            zero_points = unpack_rows(parts[_ZERO_POINT], self.rows)
        return QuantizedMatrix(4, values, scales, zero_points)


@dataclass(frozen=True)
class WholeByteLayout(_CompressedLayout):
    """Values of 8 bits in int8 ("int-quantized")."""

    bits = 8

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        parts = {
            "weight": StoredTensor((self.rows, self.columns), ("I8",)),
            _SCALE: StoredTensor((self.rows, self.groups)),
        }
        if self.has_zero_points:
            parts[_ZERO_POINT] = StoredTensor(None, ("I8",))
        return parts

    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        """See `MatrixLayout.join`."""
        self._check_symmetric(parts)
        return QuantizedMatrix(8, parts["weight"], parts[_SCALE])
