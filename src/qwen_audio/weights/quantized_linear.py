"""Linear layers with quantised weights, and which kernel multiplies them on which processor.

| processor | int8 | int4 |
| --- | --- | --- |
| x86 with AVX-512 and VNNI | oneDNN; activations in 8 bits, too, or 16 | the same as with AVX2 |
| x86 with AVX2 | torch's int8 kernel up to 64 rows | compiled with llvmlite; without it, or not \
on Linux, torch's int4 kernel up to 64 rows |
| NVIDIA GPU, bfloat16 | torch's int8 kernel up to 64 rows | torch's int4 kernel, for any rows |
| others | torch's int8 kernel up to 64 rows | in blocks |

All else is multiplied in blocks: as many output features as fit in the cache are converted to the
dtype of the computation at a time. Nothing has been measured on a GPU.

A step of text generation multiplies one row of each text: its time is that of reading the weights.
A prompt multiplies hundreds, which takes longer than reading weights, and less in the dtype of the
computation than in kernels for few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .blockwise_linear import BlockwiseLinear, QuantizedLinear
from .compiled_int4 import CompiledInt4, int4_instructions
from .int4_layout import int4_block_rows, pack_int4
from .int8_activations import ACTIVATION_ZERO_POINT, FINE_STEPS, quantize_activations
from .quantization import QuantizedMatrix

__all__ = ["int4_kernel_name", "quantized_linear"]

_MAX_KERNEL_ROWS = 64
"""Up to which kernels for few rows are faster: a row of a 4-bit matrix of 11,008 × 4,096 takes
0.27 ms in the kernel, the conversion of all of it to bfloat16 11 ms (two cores with AVX-512)."""

_BOTH_ROWS = 256
"""Of activations in 16 bits that are multiplied at a time: their products, two in float32 for each,
stay in a processor's cache."""

_INT4_GROUP_SIZES = (32, 64, 128, 256)
"""That torch's int4 kernel takes, and the compiled one."""


def quantized_linear(
    matrix: QuantizedMatrix,
    bias: Tensor | None,
    dtype: torch.dtype,
    *,
    activation_bits: int = 8,
) -> QuantizedLinear:
    """A linear layer that computes in a dtype, with the fastest kernel of the matrix's device.

    Args:
        activation_bits: 8 or 16, for kernels that quantise activations: see `int8_activations`.
    """
    kind: type[QuantizedLinear] = BlockwiseLinear
    device = matrix.values.device.type
    if matrix.bits == 8 and matrix.group_size == matrix.shape[1]:
        if device == "cpu" and _has_vnni():
            return _Int8ActivationLinear(matrix, bias, dtype, activation_bits)
        if device in ("cpu", "cuda"):
            kind = _Int8Linear
    elif matrix.bits == 4 and matrix.group_size in _INT4_GROUP_SIZES:
        if device == "cpu" and (instructions := int4_instructions()):
            return _CompiledInt4Linear(matrix, bias, dtype, instructions)
        if device == "cpu" and int4_block_rows():
            kind = _Int4Linear
        elif device == "cuda" and dtype is torch.bfloat16 and _fits_gpu_tiles(matrix):
            kind = _Int4GpuLinear
    return kind(matrix, bias, dtype)


def int4_kernel_name(device: torch.device, dtype: torch.dtype) -> str:
    """What multiplies few rows with 4 bits on a device, such as "compiled for AVX2"."""
    if device.type == "cpu" and (instructions := int4_instructions()):
        return f"compiled for {instructions}"
    has_kernel = (
        int4_block_rows()
        if device.type == "cpu"
        else device.type == "cuda" and dtype is torch.bfloat16
    )
    return "torch's kernel" if has_kernel else "blocks"


class _Int8Linear(BlockwiseLinear):
    """8 bits with a scale a row, of few rows by torch's kernel, which takes bfloat16."""

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        self._kernel_scales = matrix.scales.flatten().bfloat16()

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        if len(rows) > _MAX_KERNEL_ROWS:
            return super()._multiply(rows)
        products: Tensor = torch._weight_int8pack_mm(
            rows.bfloat16(), self._matrix.values, self._kernel_scales
        ).to(self._dtype)
        return products if self._bias is None else products.add_(self._bias)


class _Int8ActivationLinear(QuantizedLinear):
    """8 bits with a scale a row, of weights; activations in 8 or 16, which are quantised here."""

    def __init__(
        self,
        matrix: QuantizedMatrix,
        bias: Tensor | None,
        dtype: torch.dtype,
        activation_bits: int,
    ) -> None:
        super().__init__(matrix, bias, dtype)
        self._activation_bits = activation_bits
        ops: Any = torch.ops.onednn
        self._packed = ops.qlinear_prepack(matrix.values, None)
        self._scales = matrix.scales.flatten().float()
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int32)
        self._product: Callable[..., Tensor] = ops.qlinear_pointwise

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        values, scales = quantize_activations(rows, self._activation_bits)
        if self._activation_bits == 8:
            # Before they are scaled, products of some thousands exceed the range of float16.
            dtype = torch.float32 if self._dtype is torch.float16 else self._dtype
            products = self._multiply_values(values[0], dtype).mul_(scales).to(self._dtype)
        else:
            products = scales.new_empty(len(scales), self.out_features, dtype=self._dtype)
            for first in range(0, len(scales), _BOTH_ROWS):
                part = slice(first, first + _BOTH_ROWS)
                both = self._multiply_values(values[:, part].flatten(0, 1), torch.float32)
                coarse, fine = both.chunk(2)
                products[part] = coarse.add_(fine, alpha=1 / FINE_STEPS).mul_(scales[part])
        if self._bias is not None:
            products.add_(self._bias)
        return products.unflatten(0, rows.shape[:-1])

    def _multiply_values(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """The products of activations that are quantised, before they are scaled."""
        return self._product(
            *(values, 1.0, ACTIVATION_ZERO_POINT),
            *(self._packed, self._scales, self._zero_points, None),
            *(1.0, 0, dtype, "none", [], ""),
        )


class _CompiledInt4Linear(QuantizedLinear):
    """4 bits in groups of columns, activations in 16 bits, any number of rows."""

    def __init__(
        self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype, instructions: str
    ) -> None:
        super().__init__(matrix, bias, dtype)
        self._instructions = instructions
        self._matrix = CompiledInt4(matrix, instructions)

    def extra_repr(self) -> str:
        """As `nn.Linear`'s, with bits, group and the instructions that it is compiled for."""
        return f"{super().extra_repr()}, instructions={self._instructions}"

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        products = self._matrix.multiply(rows, self._dtype)
        return products if self._bias is None else products.add_(self._bias)


class _Int4Linear(QuantizedLinear):
    """4 bits in groups of columns, in the layout of torch's int4 kernel for this processor.

    Rows are filled up to whole blocks with zeros, so that there is one layout.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        self._block_rows = int4_block_rows()
        rows = -(-self.out_features // self._block_rows) * self._block_rows
        self._packed = pack_int4(_filled(matrix.values, rows), self._block_rows)
        self._scales_and_zeros = _scales_and_zeros(matrix, rows)

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        if len(rows) > _MAX_KERNEL_ROWS:
            return super()._multiply(rows)
        products: Tensor = torch._weight_int4pack_mm_for_cpu(
            rows.bfloat16(), self._packed, self.group_size, self._scales_and_zeros
        ).to(self._dtype)
        products = products[:, : self.out_features]
        return products if self._bias is None else products + self._bias

    def _block_products(self, rows: Tensor, block_features: int) -> Iterator[Tensor]:
        size, columns = self._block_rows, self.in_features
        packed = self._packed.view(-1, columns, size // 2).view(torch.int64)
        scales_and_zeros = self._scales_and_zeros.unflatten(1, (-1, 2, size // 2))
        step = max(1, block_features // size)
        for first in range(0, len(packed), step):
            part = slice(first, first + step)
            # The first halves of all blocks, then the second halves: see `pack_int4`.
            block = _small_integers(packed[part].transpose(0, 1).flatten(1), self._dtype)
            grouped = block.unflatten(0, (-1, self.group_size))
            # Contiguous: strided ones take the products three times as long.
            scales, zeros = scales_and_zeros[:, part].permute(4, 0, 2, 1, 3).flatten(2).unsqueeze(2)
            scales, zeros = (each.to(self._dtype).contiguous() for each in (scales, zeros))
            torch.addcmul(zeros, grouped, scales, out=grouped)
            halves = (rows @ block).unflatten(1, (2, -1, size // 2))
            yield halves.transpose(1, 2).flatten(1)


class _Int4GpuLinear(QuantizedLinear):
    """4 bits in groups of columns, in the layout of torch's int4 kernel for NVIDIA GPUs."""

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        swapped = (matrix.values >> 4) | (matrix.values << 4)  # it takes the even column high
        self._packed = torch._convert_weight_to_int4pack(swapped, _GPU_TILES)
        self._scales_and_zeros = _scales_and_zeros(matrix, self.out_features)

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        products: Tensor = torch._weight_int4pack_mm(
            rows, self._packed, self.group_size, self._scales_and_zeros
        )
        return products if self._bias is None else products.add_(self._bias)


_GPU_TILES = 8
"""Of 16 columns, which a thread of the GPU's kernel reads at once; as torchao chooses."""


def _fits_gpu_tiles(matrix: QuantizedMatrix) -> bool:
    return matrix.shape[0] % 8 == 0 and matrix.shape[1] % (16 * _GPU_TILES) == 0


def _scales_and_zeros(matrix: QuantizedMatrix, rows: int) -> Tensor:
    """As torch's int4 kernels take them, (groups, rows, 2): weight = (value − 8) × scale + zero."""
    scales = _filled(matrix.scales.float(), rows)
    zeros = torch.zeros_like(scales)
    if matrix.zero_points is not None:
        zeros = (8 - _filled(matrix.zero_points, rows).float()) * scales
    return torch.stack([scales.T, zeros.T], dim=-1).bfloat16().contiguous()


def _small_integers(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """Two values from -8 to 7 of every byte, packed as 0 to 15: all low ones, then all high ones.

    Args:
        packed: (rows, words), int64, as operations on bytes are slower.

    Returns:
        Shape (rows, 16 × words).
    """
    words = packed.view(torch.int32)  # of a logical shift: what is shifted in is masked
    values = torch.stack([words, words >> 4], dim=1).bitwise_and_(0x0F0F0F0F)
    return values.view(torch.int8).flatten(1).sub_(8).to(dtype)


def _filled(rows: Tensor, count: int) -> Tensor:
    """With rows of zeros after the last, `count` in all."""
    return rows if len(rows) == count else nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


@cache
def _has_vnni() -> bool:
    """Whether products of 8-bit numbers are exact: without VNNI, oneDNN's saturate in 16 bits."""
    capabilities = torch.cpu.get_capabilities()
    has = capabilities.get("avx512_vnni") and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return bool(has) and hasattr(torch.ops.onednn, "qlinear_pointwise")
