"""Matrices of 4 bits in the layouts of GPTQ and AWQ.

Both store `qweight`, `qzeros` and `scales`, with eight values in an int32, and

    weight[output, input] = (value − zero point) × scale

For a layer of `rows` output and `columns` input features, in groups of input features:

| tensor | GPTQ | AWQ ("gemm") |
| --- | --- | --- |
| `qweight` | int32 (columns / 8, rows): eight inputs, first lowest | int32 (columns, rows / 8) |
| `qzeros` | int32 (groups, rows / 8): eight outputs, first lowest | int32 (groups, rows / 8) |
| `scales` | floats (groups, rows) | floats (groups, rows) |
| `g_idx` | int32 (columns): the group of each input; may be left out | |

AWQ's eight are outputs, from the lowest bits on 0, 2, 4, 6, 1, 3, 5 and 7. GPTQ stores zero points
less one, except in its second version. A `bias` of zeros may be stored, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .matrix_layout import MatrixLayout, StoredTensor, unpack_int32, view_rows
from .quantization import LinearFormat, QuantizedMatrix

__all__ = ["AwqLayout", "GptqLayout"]

_ONES = 0x11111111
"""1 in each of the eight values of an int32."""

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""The outputs in AWQ's int32, from the lowest bits on."""


@dataclass(frozen=True)
class _GroupedLayout(MatrixLayout):
    """What both have in common.

    Attributes:
        group_size: input features that share a scale; None: all do.
        adds_bias: a bias is stored, although the layer has none, as some programs do.
    """

    group_size: int | None
    adds_bias: bool

    @property
    def form(self) -> LinearFormat:
        return LinearFormat(4, self.group_size)

    def _other_parts(self) -> dict[str, StoredTensor]:
        """All but the values."""
        groups = self.columns // (self.group_size or self.columns)
        parts = {
            "qzeros": StoredTensor((groups, self.rows // 8), ("I32",)),
            "scales": StoredTensor((groups, self.rows)),
        }
        return parts | ({"bias": StoredTensor((self.rows,))} if self.adds_bias else {})

    def _check_bias(self, parts: Mapping[str, Tensor]) -> None:
        """Raises ValueError for a bias that isn't 0."""
        if self.adds_bias and parts["bias"].any():
            raise ValueError("it has a bias, which Qwen2-Audio's layer lacks")


@dataclass(frozen=True)
class GptqLayout(_GroupedLayout):
    """GPTQ.

    Attributes:
        is_second_version: zero points are stored as they are.
        has_group_indices: `g_idx` is stored.
    """

    is_second_version: bool
    has_group_indices: bool

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        parts = {
            "qweight": StoredTensor((self.columns // 8, self.rows), ("I32",)),
            **self._other_parts(),
        }
        if self.has_group_indices:
            parts["g_idx"] = StoredTensor((self.columns,), ("I32",))
        return parts

    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        """See `MatrixLayout.join`."""
        self._check_bias(parts)
        if self.has_group_indices:
            in_order = torch.arange(self.columns) // (self.group_size or self.columns)
            if not torch.equal(parts["g_idx"].long(), in_order):
                raise ValueError("its groups are not of neighbouring columns (act-order)")
        zeros = parts["qzeros"]
        if not self.is_second_version:
            zeros = zeros + _ONES  # with carries, as the zero point 0 was stored by borrowing
        return QuantizedMatrix(
            4,
            view_rows(parts["qweight"].T, torch.uint8),
            parts["scales"].T.contiguous(),
            unpack_int32(zeros).T.contiguous(),
        )


@dataclass(frozen=True)
class AwqLayout(_GroupedLayout):
    """AWQ, in its layout "gemm"."""

    def parts(self) -> Mapping[str, StoredTensor]:
        """See `MatrixLayout.parts`."""
        return {
            "qweight": StoredTensor((self.columns, self.rows // 8), ("I32",)),
            **self._other_parts(),
        }

    def join(self, parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        """See `MatrixLayout.join`."""
        self._check_bias(parts)
        # Of each eight outputs four bytes, which hold two outputs each, for all inputs.
        pairs = view_rows(parts["qweight"], torch.uint8).T.contiguous().view(-1, 4, self.columns)
        even, odd = pairs[..., 0::2], pairs[..., 1::2]
        values = torch.empty(self.rows // 8, 8, self.columns // 2, dtype=torch.uint8)
        values[:, _ORDER[0::2]] = (even & 15) | (odd << 4)
        values[:, _ORDER[1::2]] = (even >> 4) | (odd & 240)
        zeros = unpack_int32(parts["qzeros"]).unflatten(1, (-1, 8))
        zeros = zeros[..., sorted(range(8), key=_ORDER.__getitem__)].flatten(1)
        return QuantizedMatrix(
            4,
            values.view(self.rows, -1),
            parts["scales"].T.contiguous(),
            zeros.T.contiguous(),
        )
