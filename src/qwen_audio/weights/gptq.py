"""GPTQ: rounding of matrices to 4 bits that changes the products with given inputs least.

Columns are rounded one after another, and what rounding one changes in the products is made up for
by those that follow, as the inputs' second moments say (https://arxiv.org/abs/2210.17323). The
range of a group of columns is the one of a few whose error, weighted by the mean square of each
column's inputs, is least: columns of outliers are kept best.
"""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from .quantization import (
    LinearFormat,
    QuantizedMatrix,
    group_ranges,
    pack_nibbles,
    quantize_matrix,
    round_to_groups,
)

__all__ = ["InputMoments", "quantize_for_inputs"]

_LEAST_SHRINKAGE = 0.01
"""Of correlations, as the method's authors add to moments: what is singular has no inverse."""

_LEAST_SQUARE = 1e-6
"""Of a column's mean square, relative to the mean: what calibration left at 0 may occur later."""

_SHARES = tuple(1 - 0.025 * step for step in range(13))
"""Of a group's range, from least to greatest weight, that are tried."""

_BLOCK_COLUMNS = 128
"""After which later columns are corrected, all at once; a group, where it is larger."""

_CHUNK_VALUES = 1 << 24
"""Weights that are in float32 at a time: 64 MB."""


class InputMoments:
    """The second moments of a linear layer's inputs: what each two columns have in common.

    Args:
        columns: input features. It takes 4 bytes for each two of them; three times that while the
            inverse is computed.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self._sums = torch.zeros(columns, columns, device=device)
        self._rows = 0

    def add(self, rows: Float[Tensor, "... columns"]) -> None:
        """Take rows of inputs into account."""
        flat = rows.flatten(0, -2).float()
        self._sums.addmm_(flat.T, flat)
        self._rows += len(flat)

    @cached_property
    def squares(self) -> Float[Tensor, " columns"]:
        """The mean square of each column, relative to the mean of all."""
        squares = self._sums.diagonal()
        mean = squares.mean().clamp_min(torch.finfo(torch.float32).tiny)
        return (squares / mean).clamp_min(_LEAST_SQUARE)

    @cached_property
    def inverse_factor(self) -> Float[Tensor, "columns columns"]:
        """The upper Cholesky factor of the moments' inverse, up to a scale.

        Correlations are shrunk by as much as chance makes of them: of few rows next to nothing is
        left, and columns don't make up for others
        (https://doi.org/10.2202/1544-6115.1175).
        """
        scales = self.squares.sqrt()
        mean = self._sums.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        correlations = self._sums.div(mean).div_(scales).div_(scales[:, None])
        correlations.diagonal().zero_()
        columns = len(scales)
        by_chance = columns * (columns - 1) / max(self._rows, 1)
        found = float(correlations.norm().square().clamp_min(torch.finfo(torch.float32).tiny))
        correlations.mul_(1 - min(max(by_chance / found, _LEAST_SHRINKAGE), 1.0))
        correlations.diagonal().fill_(1)
        torch.linalg.cholesky(correlations, out=correlations)
        inverse = torch.cholesky_inverse(correlations)
        return torch.linalg.cholesky(inverse, upper=True, out=inverse).div_(scales)


def quantize_for_inputs(
    weight: Float[Tensor, "rows columns"], form: LinearFormat, inputs: InputMoments
) -> QuantizedMatrix:
    """`quantize_matrix` with rounding that changes the products with given inputs least.

    Of 8 bits it is the same: their rounding is not what changes products.
    """
    form = form.fitting(weight.shape[1])
    if form.bits == 8 or form.group_size is None:
        return quantize_matrix(weight, form)
    factor = inputs.inverse_factor
    chunks = [
        _quantize_rows(chunk, form.group_size, factor, inputs.squares)
        for chunk in weight.split(max(1, _CHUNK_VALUES // weight.shape[1]))
    ]
    values, scales, zero_points = (torch.cat(parts).cpu() for parts in zip(*chunks, strict=True))
    return QuantizedMatrix(4, pack_nibbles(values), scales, zero_points)


def _quantize_rows(
    weight: Float[Tensor, "rows columns"],
    group_size: int,
    factor: Float[Tensor, "columns columns"],
    squares: Float[Tensor, " columns"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, scales and zero points of some rows."""
    left = weight.T.to(factor, copy=True).contiguous()  # a column at a time is read and written
    values = torch.empty(left.shape, dtype=torch.uint8, device=left.device)
    scales, zero_points = [], []
    step = max(group_size, _BLOCK_COLUMNS // group_size * group_size)
    for first in range(0, len(left), step):
        end = min(first + step, len(left))
        errors = torch.empty_like(left[first:end])
        for column in range(first, end):
            if column % group_size == 0:
                group = slice(column, column + group_size)
                scale, zero_point = _best_range(left[group].T, squares[group])
                scales.append(scale)
                zero_points.append(zero_point.to(torch.uint8))
            whole = round_to_groups(left[column, :, None], scale, zero_point)
            values[column] = whole[:, 0]
            rounded = (whole - zero_point) * scale.float()
            error = (left[column] - rounded[:, 0]) / factor[column, column]
            left[column + 1 : end].addr_(factor[column, column + 1 : end], error, alpha=-1)
            errors[column - first] = error
        left[end:].addmm_(factor[first:end, end:].T, errors, alpha=-1)
    return values.T, torch.cat(scales, 1), torch.cat(zero_points, 1)


def _best_range(
    group: Float[Tensor, "rows columns"], squares: Float[Tensor, " columns"]
) -> tuple[Float[Tensor, "rows 1"], Float[Tensor, "rows 1"]]:
    """For each row the scale and zero point of least error, weighted by the columns' squares."""
    best_cost = best_scale = best_zero_point = torch.empty(0)
    for share in _SHARES:
        scale, zero_point = group_ranges(group, share)
        rounded = (round_to_groups(group, scale, zero_point) - zero_point) * scale.float()
        cost = (rounded.sub_(group).square_() @ squares)[:, None]
        if not len(best_cost):
            best_cost, best_scale, best_zero_point = cost, scale, zero_point
            continue
        better = cost < best_cost
        best_cost = torch.where(better, cost, best_cost)
        best_scale = torch.where(better, scale, best_scale)
        best_zero_point = torch.where(better, zero_point, best_zero_point)
    return best_scale, best_zero_point
