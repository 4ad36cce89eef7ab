"""GPTQ: what rounding for given inputs changes, against the method written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen_audio.weights.gptq import InputMoments, quantize_for_inputs
from qwen_audio.weights.quantization import (
    LinearFormat,
    QuantizedMatrix,
    quantize_matrix,
    unpack_nibbles,
)

CPU = torch.device("cpu")


def moments_of(rows: Tensor) -> InputMoments:
    moments = InputMoments(rows.shape[1], CPU)
    for part in rows.split(100):
        moments.add(part)
    return moments


def inputs(rows: int, columns: int, seed: int, outlier: float = 1.0) -> Tensor:
    """Sums of an eighth as many sources, and noise; every 32nd column is larger than the others."""
    mixing = torch.randn(columns // 8, columns, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(rows, columns // 8, generator=generator)
    mixed = sources @ mixing + torch.randn(rows, columns, generator=generator)
    mixed[:, ::32] *= outlier
    return mixed


def random_weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) / columns**0.5


def error(quantized: QuantizedMatrix, weight: Tensor, rows: Tensor) -> float:
    """Of the products, relative."""
    changed = quantized.dequantize(torch.float32) - weight
    return float((rows @ changed.T).norm() / (rows @ weight.T).norm())


@pytest.mark.parametrize("form", [LinearFormat(4, 32), LinearFormat(4, 128)])
@pytest.mark.parametrize("outlier", [1.0, 30.0])
def test_products_change_by_half_as_much(form: LinearFormat, outlier: float) -> None:
    weight, seen = random_weight(48, 256), inputs(2000, 256, 2, outlier)
    before = weight.clone()
    quantized = quantize_for_inputs(weight, form, moments_of(seen))
    assert torch.equal(weight, before)
    assert quantized.group_size == form.group_size
    nearest = quantize_matrix(weight, form)
    others = inputs(500, 256, 3, outlier)
    assert error(quantized, weight, others) < 0.6 * error(nearest, weight, others)


@pytest.mark.parametrize("rows", [3, 100])
def test_few_rows_that_nothing_connects_do_no_harm(rows: int) -> None:
    """What they have in common by chance holds for no other inputs."""
    weight, generator = random_weight(48, 256), torch.Generator().manual_seed(0)
    seen, others = (torch.randn(count, 256, generator=generator) for count in (rows, 500))
    form = LinearFormat(4, 32)
    quantized = quantize_for_inputs(weight, form, moments_of(seen))
    limit = 1.15 if rows == 3 else 1.0  # three rows don't say how large columns are
    assert error(quantized, weight, others) < limit * error(
        quantize_matrix(weight, form), weight, others
    )


def test_it_is_the_method_written_out() -> None:
    """Column by column, with the inverse of what is left of the moments (its blocks and its factor
    are for speed): the values that follow from the same scales."""
    weight, rows = random_weight(7, 256), inputs(400, 256, 4)
    quantized = quantize_for_inputs(weight, LinearFormat(4, 32), moments_of(rows))
    assert quantized.zero_points is not None
    left = weight.double()
    squares = rows.double().square().mean(0)
    correlations = rows.double().T @ rows.double() / len(rows)
    correlations /= (squares[:, None] * squares).sqrt()
    off = correlations - torch.eye(256)
    shrinkage = max(0.01, 256 * 255 / 400 / float(off.square().sum()))
    assert 0.01 < shrinkage < 0.5
    shrunk = torch.eye(256) + (1 - shrinkage) * off
    inverse = torch.linalg.inv(shrunk * (squares[:, None] * squares).sqrt())
    values = unpack_nibbles(quantized.values).double()
    for column in range(256):
        scale = quantized.scales[:, column // 32].double()
        zero = quantized.zero_points[:, column // 32].double()
        exact = (left[:, column] / scale + zero).clamp(-0.5, 15.5)
        assert (values[:, column] - exact).abs().max() < 0.5 + 1e-3
        change = (left[:, column] - (values[:, column] - zero) * scale) / inverse[column, column]
        left -= change[:, None] * inverse[column]
        pivot = inverse[:, column] / inverse[column, column]
        inverse = inverse - pivot[:, None] * inverse[column]
        left[:, : column + 1] = 0
        inverse[: column + 1] = inverse[:, : column + 1] = 0
        if column + 1 < 256:  # only what is left is divided by
            inverse[range(column + 1), range(column + 1)] = 1


def test_columns_without_inputs_are_kept() -> None:
    """Other recordings may have some."""
    weight, rows = random_weight(16, 64), inputs(300, 64, 5)
    rows[:, 5] = 0
    form = LinearFormat(4, 32)
    quantized = quantize_for_inputs(weight, form, moments_of(rows))
    steps = quantized.scales.float()[:, 0]
    changed = (quantized.dequantize(torch.float32) - weight)[:, 5].abs()
    assert (changed <= 2 * steps).all()
    silent = quantize_for_inputs(weight, form, moments_of(torch.zeros(9, 64)))
    assert (silent.dequantize(torch.float32) - weight).abs().max() < 0.1


def test_eight_bits_are_rounded_as_ever() -> None:
    weight = random_weight(16, 48)
    for form in (LinearFormat(8), LinearFormat(4, 32)):  # 48 columns are no whole groups
        quantized = quantize_for_inputs(weight, form, moments_of(torch.ones(3, 48)))
        assert torch.equal(quantized.values, quantize_matrix(weight, form).values)
