"""Compiled products with 4-bit matrices: their values, and that these are the same everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from torch import Tensor

from qwen_audio.weights import compiled_int4
from qwen_audio.weights.compiled_int4 import CompiledInt4, int4_instructions, would_compile_int4
from qwen_audio.weights.quantization import LinearFormat, QuantizedMatrix, quantize_matrix

pytest.importorskip("llvmlite")


def usable() -> list[str]:
    """The instructions that this processor has; none where products aren't compiled at all."""
    if would_compile_int4() is None:
        return []
    has = torch.cpu.get_capabilities()
    needed = {
        "AVX2": ("avx2", "fma3"),
        "AVX-VNNI": ("avx_vnni",),
        "AVX-512": ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"),
        "AVX-512 VNNI": ("avx512_vnni",),
    }
    return [name for name, flags in needed.items() if all(has.get(flag) for flag in flags)]


needs_x86 = pytest.mark.skipif(not usable(), reason="products are compiled for x86 on Linux")


def matrix_of(rows: int, columns: int, group_size: int = 32) -> QuantizedMatrix:
    generator = torch.Generator().manual_seed(rows)
    return quantize_matrix(
        torch.randn(rows, columns, generator=generator), LinearFormat(4, group_size)
    )


def activations_of(rows: int, columns: int) -> Tensor:
    """One column is a hundred times as large as the others, as in language models."""
    activations = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    activations[:, 5] *= 100
    return activations


@needs_x86
@pytest.mark.parametrize("instructions", usable())
@pytest.mark.parametrize("group_size", [32, 64, 128, 256])
@pytest.mark.parametrize("features", [1, 16, 100])
def test_products_are_those_of_the_dequantised_matrix(
    instructions: str, group_size: int, features: int
) -> None:
    matrix = matrix_of(features, 512, group_size)
    product = CompiledInt4(matrix, instructions)
    for rows in (0, 1, 2, 3, 15, 50):
        activations = activations_of(rows, 512)
        products = product.multiply(activations)
        assert products.shape == (rows, features)
        expected = activations.double() @ matrix.dequantize(torch.float64).T
        # Half a step in 16 bits of the group with the large column.
        assert (products - expected).norm() <= 3e-4 * expected.norm()


@needs_x86
def test_results_depend_neither_on_instructions_nor_on_the_other_rows_nor_on_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matrix, activations = matrix_of(200, 256), activations_of(29, 256)
    expected = CompiledInt4(matrix, usable()[0]).multiply(activations)
    # As few rows at a time as there may be.
    monkeypatch.setattr(compiled_int4, "_RECORDS_BYTES", 1)
    before = torch.get_num_threads()
    try:
        for instructions in usable():
            product = CompiledInt4(matrix, instructions)
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                assert torch.equal(product.multiply(activations), expected)
                for row, products in zip(activations, expected, strict=True):
                    assert torch.equal(product.multiply(row[None])[0], products)
    finally:
        torch.set_num_threads(before)


@needs_x86
@pytest.mark.parametrize("instructions", usable())
def test_the_largest_sums_fit(instructions: str) -> None:
    """Without VNNI, products are added in 16 bits."""
    values = torch.full((16, 128), 0xFF, dtype=torch.uint8)
    scales, zero_points = torch.ones(16, 8), torch.zeros(16, 8, dtype=torch.uint8)
    product = CompiledInt4(QuantizedMatrix(4, values, scales, zero_points), instructions)
    for sign in (1, -1):
        products = product.multiply(torch.full((3, 256), sign * 7.0))
        torch.testing.assert_close(products, torch.full((3, 16), sign * 15 * 256 * 7.0))


@needs_x86
def test_rows_that_are_not_finite_leave_the_others() -> None:
    product = CompiledInt4(matrix_of(32, 64), usable()[0])
    activations = activations_of(6, 64)
    expected = product.multiply(activations)
    activations[0, 3], activations[1, 40], activations[2, 63] = float("nan"), torch.inf, -torch.inf
    activations[3] = 0
    activations[4] = 1e-42
    products = product.multiply(activations)
    assert not products[:3].isfinite().any()
    assert (products[3] == 0).all()
    assert products[4].abs().max() < 1e-30
    assert torch.equal(products[5], expected[5])


@needs_x86
def test_without_zero_points_8_stands_for_0() -> None:
    matrix = matrix_of(16, 64)
    symmetric = QuantizedMatrix(4, matrix.values, matrix.scales)
    activations = activations_of(2, 64)
    expected = activations @ symmetric.dequantize(torch.float32).T
    products = CompiledInt4(symmetric, usable()[0]).multiply(activations)
    torch.testing.assert_close(products, expected, rtol=1e-3, atol=1e-2)


@needs_x86
def test_tensors_of_any_strides() -> None:
    matrix, activations = matrix_of(17, 64), activations_of(3, 64)
    expected = CompiledInt4(matrix, usable()[0]).multiply(activations)
    odd = torch.cat([torch.zeros(1, dtype=torch.uint8), matrix.values.flatten()])[1:]
    assert odd.storage_offset() % 4
    transposed = QuantizedMatrix(
        4, odd.view_as(matrix.values), matrix.scales.T.contiguous().T, matrix.zero_points
    )
    strided = activations.T.contiguous().T.double()
    assert torch.equal(CompiledInt4(transposed, usable()[0]).multiply(strided), expected)


@needs_x86
def test_threads_of_python_multiply_at_once() -> None:
    product, activations = CompiledInt4(matrix_of(64, 256), usable()[0]), activations_of(40, 256)
    expected = product.multiply(activations)
    with ThreadPoolExecutor(4) as executor:
        for products in executor.map(product.multiply, [activations] * 40):
            assert torch.equal(products, expected)


@pytest.fixture
def other_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What is found out about the processor is forgotten, then and afterwards."""
    found = (would_compile_int4, compiled_int4._openmp, compiled_int4._has_llvmlite)
    for function in found:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in found:
        function.cache_clear()


@pytest.mark.parametrize(
    ("used", "has", "expected"),
    [
        ("AVX512", ("avx512_f", "avx512_vnni", "avx_vnni"), "AVX-512 VNNI"),
        ("AVX512", ("avx512_f",), "AVX-512"),
        ("AVX2", ("avx512_f", "avx512_vnni", "avx_vnni"), "AVX2"),
        ("AVX2", ("avx_vnni",), "AVX-VNNI"),
        ("AVX2", (), "AVX2"),
        ("DEFAULT", ("avx2",), None),
    ],
)
def test_instructions_are_those_that_torch_uses(
    other_processor: pytest.MonkeyPatch, used: str, has: tuple[str, ...], expected: str | None
) -> None:
    other_processor.setattr(sys, "platform", "linux")
    other_processor.setattr("platform.machine", lambda: "x86_64")
    other_processor.setattr(compiled_int4, "_openmp", lambda: {"GOMP_parallel": 1})
    other_processor.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    other_processor.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    assert int4_instructions() == would_compile_int4() == expected


def test_on_other_systems_nothing_is_compiled(other_processor: pytest.MonkeyPatch) -> None:
    for platform, machine in (("darwin", "x86_64"), ("win32", "AMD64"), ("linux", "aarch64")):
        other_processor.setattr(sys, "platform", platform)
        other_processor.setattr("platform.machine", lambda machine=machine: machine)
        would_compile_int4.cache_clear()
        assert int4_instructions() is None


def test_another_openmp_library_is_not_used(other_processor: pytest.MonkeyPatch) -> None:
    other_processor.setattr("ctypes.CDLL", lambda _: object())
    assert int4_instructions() is None


@pytest.mark.parametrize("version", ["0.44.0", None])
def test_an_older_llvmlite_is_none(
    other_processor: pytest.MonkeyPatch, version: str | None
) -> None:
    def installed(_: str) -> str:
        if version is None:
            raise PackageNotFoundError
        return version

    other_processor.setattr(compiled_int4, "version", installed)
    assert int4_instructions() is None
