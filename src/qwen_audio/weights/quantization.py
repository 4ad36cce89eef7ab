"""Matrices in 4 or 8 bits: whole numbers, with a scale for every group of columns or every row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "LinearFormat",
    "QuantizedMatrix",
    "group_ranges",
    "pack_nibbles",
    "quantize_matrix",
    "round_to_groups",
    "unpack_nibbles",
]


@dataclass(frozen=True)
class LinearFormat:
    """How the weights of linear layers are quantised.

    Attributes:
        bits: 4 or 8.
        group_size: columns (input features) that share a scale; None: a whole row does.
    """

    bits: int
    group_size: int | None = None

    def fitting(self, columns: int) -> LinearFormat:
        """This format, or 8 bits with a scale a row for matrices of no whole number of groups."""
        fits = self.group_size is None or columns % self.group_size == 0
        return self if fits else LinearFormat(8)

    def matrix_bytes(self, shape: tuple[int, ...]) -> int:
        """Memory of a quantised matrix of shape (rows, columns), with its scales."""
        rows, columns = shape
        fitting = self.fitting(columns)
        groups = 1 if fitting.group_size is None else columns // fitting.group_size
        return rows * columns * fitting.bits // 8 + 4 * rows * groups


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A linear layer's weights: (values − zero points) × scales.

    Attributes:
        bits: 4 or 8.
        values: int8 of shape (rows, columns); of 4 bits uint8 of shape (rows, columns / 2), where
            the low half of a byte is the value of the even column.
        scales: floats of shape (rows, groups), one for every run of columns of equal length.
        zero_points: uint8 of shape (rows, groups), the value that stands for 0; None: 8 for 4 bits,
            0 for 8 bits.
    """

    bits: int
    values: Tensor
    scales: Float[Tensor, "rows groups"]
    zero_points: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (output features) and columns (input features)."""
        rows, columns = self.values.shape
        return rows, columns * (8 // self.bits)

    @property
    def group_size(self) -> int:
        """Columns that share a scale."""
        return self.shape[1] // self.scales.shape[1]

    def parts(self) -> Iterator[Tensor]:
        """The tensors that it consists of."""
        yield self.values
        yield self.scales
        if self.zero_points is not None:
            yield self.zero_points

    def dequantize(self, dtype: torch.dtype) -> Float[Tensor, "rows columns"]:
        """The matrix, computed in float32."""
        whole = unpack_nibbles(self.values) if self.bits == 4 else self.values
        grouped = whole.unflatten(1, (-1, self.group_size)).to(torch.float32)
        if self.bits == 4:
            grouped -= 8 if self.zero_points is None else self.zero_points[..., None].float()
        grouped *= self.scales[..., None].float()
        return grouped.flatten(1).to(dtype)

    def to(self, device: torch.device) -> QuantizedMatrix:
        """The same on a device."""
        zero_points = None if self.zero_points is None else self.zero_points.to(device)
        return replace(
            self,
            values=self.values.to(device),
            scales=self.scales.to(device),
            zero_points=zero_points,
        )


def quantize_matrix(weight: Float[Tensor, "rows columns"], form: LinearFormat) -> QuantizedMatrix:
    """Round a matrix to the nearest values: of 4 bits between the least and the greatest weight of
    each group, of 8 bits symmetric about 0.

    Scales are rounded to bfloat16, which the products of 4 bits take, before weights are divided by
    them.
    """
    form = form.fitting(weight.shape[1])
    chunks = [
        _quantize_rows(chunk, form)
        for chunk in weight.split(max(1, _CHUNK_VALUES // weight.shape[1]))
    ]
    values, scales, zero_points = zip(*chunks, strict=True)
    return QuantizedMatrix(
        form.bits,
        torch.cat(values),
        torch.cat(scales),
        None if form.bits == 8 else torch.cat(zero_points),
    )


_CHUNK_VALUES = 1 << 20
"""Weights that are converted at a time: 4 MB in float32."""


def _quantize_rows(
    weight: Float[Tensor, "rows columns"], form: LinearFormat
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Values, scales and zero points of some rows."""
    grouped = weight.float().unflatten(1, (-1, form.group_size or weight.shape[1]))
    if form.bits == 8:
        tiny = torch.finfo(torch.float32).tiny
        scales = grouped.abs().amax(-1, keepdim=True).div_(127).clamp_min_(tiny)
        values = (grouped / scales).round_().to(torch.int8)
        return values.flatten(1), scales.squeeze(-1), None
    scales, zero_points = group_ranges(grouped)
    whole = round_to_groups(grouped, scales, zero_points).to(torch.uint8)
    return (
        pack_nibbles(whole.flatten(1)),
        scales.squeeze(-1),
        zero_points.to(torch.uint8).squeeze(-1),
    )


def group_ranges(
    groups: Float[Tensor, "... columns"], share: float = 1.0
) -> tuple[Float[Tensor, "... 1"], Float[Tensor, "... 1"]]:
    """Scales, in bfloat16, and zero points of 4 bits for groups of weights.

    Args:
        share: of the range from a group's least weight to its greatest that the values span.
    """
    least = groups.amin(-1, keepdim=True).clamp_max_(0) * share
    most = groups.amax(-1, keepdim=True).clamp_min_(0) * share
    tiny = torch.finfo(torch.float32).tiny
    scales = ((most - least) / 15).bfloat16().clamp_min_(tiny)
    return scales, (-least / scales.float()).round_().clamp_(0, 15)


def round_to_groups(
    groups: Float[Tensor, "... columns"],
    scales: Float[Tensor, "... 1"],
    zero_points: Float[Tensor, "... 1"],
) -> Float[Tensor, "... columns"]:
    """The values from 0 to 15 that are nearest to weights, as floats."""
    return (groups / scales.float()).round_().add_(zero_points).clamp_(0, 15)


def pack_nibbles(values: Tensor) -> Tensor:
    """Values from 0 to 15, uint8 of shape (rows, columns), two to a byte, the even column low."""
    return values[:, 0::2] | (values[:, 1::2] << 4)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse of `pack_nibbles`."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
