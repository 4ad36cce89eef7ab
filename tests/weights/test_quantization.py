"""Quantised matrices: rounding errors, layouts, kernels against products in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from qwen_audio.weights import int4_layout
from qwen_audio.weights import quantized_linear as kernels
from qwen_audio.weights.blockwise_linear import BlockwiseLinear
from qwen_audio.weights.compiled_int4 import int4_instructions
from qwen_audio.weights.compressed_tensors import join_matrices, part_shapes, split_matrices
from qwen_audio.weights.quantization import (
    LinearFormat,
    QuantizedMatrix,
    pack_nibbles,
    quantize_matrix,
    unpack_nibbles,
)

FORMATS = (LinearFormat(4, 32), LinearFormat(4, 128), LinearFormat(8))


def weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Normally distributed, with a row of zeros and one of equal signs."""
    matrix = 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    matrix[0] = 0
    matrix[-1] = matrix[-1].abs() + 0.01
    return matrix


def without_compiled_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra [int4] isn't installed."""
    monkeypatch.setattr(kernels, "int4_instructions", lambda: None)


@settings(max_examples=30)
@given(
    rows=st.integers(2, 9),
    groups=st.integers(1, 3),
    form=st.sampled_from(FORMATS),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_weights_are_rounded_to_the_nearest_value(
    rows: int, groups: int, form: LinearFormat, scale: float, seed: int
) -> None:
    matrix = scale * weights(rows, groups * (form.group_size or 40), seed)
    quantized = quantize_matrix(matrix, form)
    assert quantized.shape == matrix.shape
    error = (quantized.dequantize(torch.float32) - matrix).abs()
    steps = quantized.scales.float().repeat_interleave(quantized.group_size, 1)
    # Half a step; at the ends of a range up to one, as zero points and scales are rounded, too.
    assert (error <= (1.02 if form.bits == 4 else 0.501) * steps).all()
    assert (error <= 0.51 * steps).float().mean() > 0.9
    assert (quantized.dequantize(torch.float32)[0] == 0).all()
    assert sum(part.nbytes for part in quantized.parts()) <= form.matrix_bytes(matrix.shape)


def test_columns_that_are_no_whole_number_of_groups_take_eight_bits() -> None:
    quantized = quantize_matrix(weights(3, 48), LinearFormat(4, 32))
    assert (quantized.bits, quantized.group_size) == (8, 48)
    assert LinearFormat(4, 32).matrix_bytes((3, 48)) == LinearFormat(8).matrix_bytes((3, 48))


def test_two_values_are_in_a_byte_the_even_column_low() -> None:
    values = torch.tensor([[1, 2, 15, 0]], dtype=torch.uint8)
    packed = pack_nibbles(values)
    assert packed.tolist() == [[0x21, 0x0F]]
    assert torch.equal(unpack_nibbles(packed), values)


@pytest.mark.parametrize("block_rows", [64, 32])
def test_the_layout_of_the_int4_kernel(block_rows: int) -> None:
    values = torch.randint(0, 16, (128, 6), dtype=torch.uint8)
    packed = int4_layout.pack_int4(pack_nibbles(values), block_rows).flatten()
    half = block_rows // 2
    for row in range(128):
        block, within = divmod(row, block_rows)
        for column in range(6):
            byte = packed[(block * 6 + column) * half + within % half]
            assert (byte >> 4 if within >= half else byte & 15) == values[row, column]


@pytest.mark.parametrize("rows", [8, 13])
@pytest.mark.parametrize("form", FORMATS)
def test_files_hold_the_compressed_tensors_layout(form: LinearFormat, rows: int) -> None:
    matrix = quantize_matrix(weights(rows, 128), form)
    parts = split_matrices({"a.weight": matrix, "a.bias": torch.ones(rows)})
    expected = {"a.weight" + name: shape for name, shape in part_shapes((rows, 128), form).items()}
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        **expected,
        "a.bias": (rows,),
    }
    assert torch.equal(read_layout(parts), matrix.dequantize(torch.float32))
    joined = join_matrices(parts)
    assert joined.keys() == {"a.weight", "a.bias"}
    again: Any = joined["a.weight"]
    assert torch.equal(again.dequantize(torch.float32), matrix.dequantize(torch.float32))


def read_layout(parts: dict[str, Tensor]) -> Tensor:
    """A matrix from its parts, bit by bit, as the format's documentation says."""
    scales = parts["a.weight_scale"].float()
    if "a.weight" in parts:
        return parts["a.weight"].float() * scales
    rows, columns = parts["a.weight_shape"].tolist()
    matrix = torch.empty(rows, columns)
    for row in range(rows):
        for column in range(columns):
            group = column * scales.shape[1] // columns
            word = int(parts["a.weight_packed"][row, column // 8])
            zeros = int(parts["a.weight_zero_point"][row // 8, group])
            value = word >> 4 * (column % 8) & 15
            matrix[row, column] = (value - (zeros >> 4 * (row % 8) & 15)) * scales[row, group]
    return matrix


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize(("form", "bits"), [*((form, 8) for form in FORMATS), (FORMATS[2], 16)])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_products_are_those_of_the_dequantised_matrix(
    form: LinearFormat,
    bits: int,
    dtype: torch.dtype,
    rows: int,
    is_compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_compiled:
        without_compiled_products(monkeypatch)
    matrix = quantize_matrix(weights(100, 256), form)
    generator = torch.Generator().manual_seed(0)
    bias = torch.randn(100, generator=generator).to(dtype)
    # Multiples of 1/8 up to 15.875: exact in bfloat16, and, the greatest in each row, in 8 bits.
    activations = torch.randint(-127, 128, (2, rows, 256), generator=generator) / 8
    activations[..., 0] = 127 / 8
    expected = activations @ matrix.dequantize(torch.float32).T + bias.float()
    linear = kernels.quantized_linear(matrix, bias, dtype, activation_bits=bits)
    blocks = BlockwiseLinear(matrix, bias, dtype)
    is_exact = rows > 80 or isinstance(
        linear, kernels._CompiledInt4Linear | kernels._Int8ActivationLinear
    )
    for layer, exact in ((linear, is_exact), (blocks, True)):
        products = layer(activations.to(dtype))
        assert products.dtype is dtype
        assert products.shape == (2, rows, 100)
        error = (products.float() - expected).abs().max() / expected.abs().max()
        # Zero points are bfloat16 in torch's int4 kernel, as is all that kernels for few rows take.
        assert error < (2e-3 if exact and dtype is torch.float32 else 8e-3)


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("form", FORMATS)
def test_a_row_does_not_depend_on_the_others(
    form: LinearFormat, is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_compiled:
        without_compiled_products(monkeypatch)
    linear = kernels.quantized_linear(quantize_matrix(weights(96, 256), form), None, torch.bfloat16)
    rows = torch.randn(7, 256).bfloat16()
    rows[3] *= 100
    together = linear(rows)
    for row, products in zip(rows, together, strict=True):
        torch.testing.assert_close(linear(row[None])[0], products, rtol=8e-3, atol=1e-3)


def test_an_outlier_leaves_the_rest_of_its_row() -> None:
    """In 8 bits a value a hundred times as large as the others would leave them 2 bits."""
    matrix = quantize_matrix(weights(64, 256), LinearFormat(8))
    linear = kernels.quantized_linear(matrix, None, torch.float32, activation_bits=16)
    activations = torch.randn(300, 256, generator=torch.Generator().manual_seed(0))
    activations[:, 3] *= 100
    activations[0] *= 1e6
    expected = activations @ matrix.dequantize(torch.float32).T
    others = activations.clone()
    others[:, 3] = 0
    size = (others @ matrix.dequantize(torch.float32).T).norm(dim=1)
    error = (linear(activations) - expected).norm(dim=1) / size
    # Without VNNI activations are bfloat16 or float32.
    assert error.max() < (4e-3 if type(linear) is kernels._Int8ActivationLinear else 0.05)


@pytest.mark.parametrize("bits", [8, 16])
def test_activations_that_change_in_place_are_quantised_again(bits: int) -> None:
    matrix = quantize_matrix(weights(64, 64), LinearFormat(8))
    linear = kernels.quantized_linear(matrix, None, torch.float32, activation_bits=bits)
    rows = torch.randn(3, 64)
    before = linear(rows)
    torch.testing.assert_close(linear(rows), before, rtol=0, atol=0)
    rows.mul_(-2)
    torch.testing.assert_close(linear(rows), -2 * before)


def test_activations_in_both_widths_are_told_apart() -> None:
    matrix = quantize_matrix(weights(64, 64), LinearFormat(8))
    rows = torch.randn(3, 64)
    coarse, fine = (
        kernels.quantized_linear(matrix, None, torch.float32, activation_bits=bits)
        for bits in (8, 16)
    )
    coarse(rows)
    assert torch.equal(fine(rows), fine(rows.clone()))


def test_activations_made_in_inference_mode() -> None:
    """They count no versions, by which a change would be noticed."""
    matrix = quantize_matrix(weights(64, 64), LinearFormat(8))
    linear = kernels.quantized_linear(matrix, None, torch.float32)
    with torch.inference_mode():
        rows = torch.ones(1, 64)
        before = linear(rows)
        rows.mul_(-2)
        torch.testing.assert_close(linear(rows), -2 * before)


def test_activations_of_zero_give_the_bias() -> None:
    linear = kernels.quantized_linear(
        quantize_matrix(weights(64, 64), LinearFormat(8)), torch.ones(64), torch.bfloat16
    )
    assert (linear(torch.zeros(1, 2, 64).bfloat16()) == 1).all()


def test_an_unknown_layout_of_the_kernel_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_layout(values: Tensor, _: int) -> Tensor:
        return torch.zeros(len(values), values.shape[1] // 2, dtype=torch.uint8)

    without_compiled_products(monkeypatch)
    monkeypatch.setattr(torch, "_convert_weight_to_int4pack_for_cpu", other_layout)
    int4_layout.int4_block_rows.cache_clear()
    try:
        assert int4_layout.int4_block_rows() == 0
        matrix = quantize_matrix(weights(64, 64), LinearFormat(4, 32))
        assert type(kernels.quantized_linear(matrix, None, torch.float32)) is (BlockwiseLinear)
    finally:
        int4_layout.int4_block_rows.cache_clear()


def test_a_kernel_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = quantize_matrix(weights(64, 64), LinearFormat(4, 32))
    cpu = torch.device("cpu")
    if instructions := int4_instructions():
        assert kernels.int4_kernel_name(cpu, torch.float32) == f"compiled for {instructions}"
        linear = kernels.quantized_linear(matrix, None, torch.float32)
        assert f"group_size=32, instructions={instructions}" in repr(linear)
    without_compiled_products(monkeypatch)
    for block_rows, name in ((64, "torch's kernel"), (0, "blocks")):
        monkeypatch.setattr(kernels, "int4_block_rows", lambda rows=block_rows: rows)
        assert kernels.int4_kernel_name(cpu, torch.float32) == name
    gpu = torch.device("cuda")
    assert kernels.int4_kernel_name(gpu, torch.bfloat16) == "torch's kernel"
    assert kernels.int4_kernel_name(gpu, torch.float16) == "blocks"


@pytest.mark.parametrize(
    ("form", "kind"), [(FORMATS[0], "_Int4GpuLinear"), (FORMATS[2], "_Int8Linear")]
)
def test_a_gpu_takes_the_same_formats(form: LinearFormat, kind: str) -> None:
    """Shapes and dtypes alone, with tensors that hold nothing: there is no GPU here."""
    quantized = quantize_matrix(weights(64, 256), form)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        parts = [mode.from_tensor(part).to("cuda") for part in quantized.parts()]
        on_gpu = QuantizedMatrix(quantized.bits, *parts)
        linear = kernels.quantized_linear(on_gpu, None, torch.bfloat16)
        assert type(linear).__name__ == kind
        for rows in (1, 100):
            products = linear(torch.empty(1, rows, 256, dtype=torch.bfloat16, device="cuda"))
            assert products.shape == (1, rows, 64)
            assert (products.dtype, products.device.type) == (torch.bfloat16, "cuda")


def test_without_vnni_products_of_eight_bits_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's saturate in 16 bits there: with activations and weights of 127 all are wrong."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    kernels._has_vnni.cache_clear()
    try:
        matrix = QuantizedMatrix(8, torch.full((8, 64), 127, dtype=torch.int8), torch.ones(8, 1))
        products = kernels.quantized_linear(matrix, None, torch.float32)(torch.ones(1, 64))
        assert (products == 127 * 64).all()
    finally:
        kernels._has_vnni.cache_clear()
