"""Linear layers with quantised weights, and which kernel multiplies them on which processor.

| processor | int8 | int4, up to 80 rows |
| --- | --- | --- |
| x86 with AVX-512 and VNNI | oneDNN; activations in 8 bits, too | torch's int4 kernel |
| x86 with AVX2 | torch's int8 kernel up to 80 rows | the same |
| others | in blocks | in blocks |

All else is multiplied in blocks: as many output features as fit in the cache are converted to the
dtype of the computation at a time.

A step of text generation multiplies one row of each text: its time is that of reading the weights.
A prompt multiplies hundreds, which takes longer than reading weights, and less in the dtype of the
computation than in kernels for few rows.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .quantization import QuantizedMatrix, pack_nibbles, unpack_nibbles

__all__ = ["kernel_name", "quantized_linear"]

_MAX_KERNEL_ROWS = 80
"""Up to which kernels for few rows are faster: 80 rows take 385 ms in a decoder layer's seven int4
products, 4.8 ms each, and 400 ms in blocks, 260 of them for the conversion to bfloat16 (4,096 wide,
one core with AVX-512)."""

_BLOCK_BYTES = 4 << 20
"""Of a matrix that are in the dtype of the computation at a time; larger ones leave the cache."""

_INT4_GROUP_SIZES = (32, 64, 128, 256)
"""That torch's int4 kernel takes."""


def quantized_linear(
    matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype
) -> _QuantizedLinear:
    """A linear layer that computes in a dtype, with the fastest kernel of the matrix's device."""
    kind: type[_QuantizedLinear] = _BlockwiseLinear
    if matrix.values.device.type == "cpu":
        if matrix.bits == 8 and matrix.group_size == matrix.shape[1]:
            kind = _Int8ActivationLinear if _has_vnni() else _Int8Linear
        elif matrix.bits == 4 and matrix.group_size in _INT4_GROUP_SIZES and _int4_block_rows():
            kind = _Int4Linear
    return kind(matrix, bias, dtype)


def kernel_name(bits: int) -> str:
    """What multiplies matrices of 4 or 8 bits on this machine's processor, in words."""
    if bits == 8:
        return "oneDNN, activations in 8 bits" if _has_vnni() else _Int8Linear.kernel
    return _Int4Linear.kernel if _int4_block_rows() else _BlockwiseLinear.kernel


class _QuantizedLinear(nn.Module):
    """What all have in common: features, bias, and products a block of rows at a time."""

    kernel = "blocks in the dtype of the computation"

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.bits, self.group_size = matrix.bits, matrix.group_size
        # Plain attributes: modules convert and list parameters and buffers as floats.
        self._bias = None if bias is None else bias.to(dtype)
        self._dtype = dtype

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        flat = rows.reshape(-1, self.in_features)
        return self._multiply(flat).unflatten(0, rows.shape[:-1])

    def extra_repr(self) -> str:
        """As `nn.Linear`'s, with bits and group."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, "
            f"group_size={self.group_size}"
        )

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        """The products of all blocks, each of which is in the dtype of the computation in turn."""
        features = rows.new_empty(len(rows), self.out_features)
        for first, block in self._blocks(_BLOCK_BYTES // (self.in_features * rows.element_size())):
            features[:, first : first + block.shape[1]] = rows @ block
        return features if self._bias is None else features.add_(self._bias)

    def _blocks(self, features: int) -> Iterator[tuple[int, Tensor]]:
        """For all blocks of about so many output features: the first, and (in_features, block)."""
        raise NotImplementedError


class _BlockwiseLinear(_QuantizedLinear):
    """Any matrix on any device."""

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        self._matrix = matrix

    def _blocks(self, features: int) -> Iterator[tuple[int, Tensor]]:
        matrix = self._matrix
        for first in range(0, self.out_features, max(1, features)):
            part = slice(first, first + max(1, features))
            zero_points = None if matrix.zero_points is None else matrix.zero_points[part]
            block = QuantizedMatrix(
                matrix.bits, matrix.values[part], matrix.scales[part], zero_points
            )
            yield first, block.dequantize(self._dtype).T


class _Int8Linear(_BlockwiseLinear):
    """8 bits with a scale a row, of few rows by torch's kernel, which takes bfloat16."""

    kernel = "torch int8"

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


class _Int8ActivationLinear(_QuantizedLinear):
    """8 bits with a scale a row, of weights and of activations, which are quantised here."""

    kernel = "oneDNN int8"

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        ops: Any = torch.ops.onednn
        self._packed = ops.qlinear_prepack(matrix.values, None)
        self._scales = matrix.scales.flatten().float()
        self._zero_points = torch.zeros(self.out_features, dtype=torch.int32)
        self._product: Callable[..., Tensor] = ops.qlinear_pointwise

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        values, scales = _last_activations.quantize(rows)
        products = self._product(
            *(values, 1.0, _ACTIVATION_ZERO_POINT),
            *(self._packed, self._scales, self._zero_points, None),
            *(1.0, 0, self._dtype, "none", [], ""),
        )
        products.mul_(scales)
        if self._bias is not None:
            products.add_(self._bias)
        return products.unflatten(0, rows.shape[:-1])


class _Int4Linear(_QuantizedLinear):
    """4 bits in groups of columns, in the layout of torch's int4 kernel for this processor.

    Rows are filled up to whole blocks with zeros, so that there is one layout.
    """

    kernel = "torch int4"

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        self._block_rows = _int4_block_rows()
        rows = -(-self.out_features // self._block_rows) * self._block_rows
        self._packed = _packed_int4(_filled(matrix.values, rows), self._block_rows)
        scales = _filled(matrix.scales.float(), rows)
        zeros = torch.zeros_like(scales)
        if matrix.zero_points is not None:
            zeros = (8 - _filled(matrix.zero_points, rows).float()) * scales
        # (groups, rows, 2): weight = (value − 8) × scale + zero
        self._scales_and_zeros = torch.stack([scales.T, zeros.T], dim=-1).bfloat16().contiguous()

    def _multiply(self, rows: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows features"]:
        if len(rows) > _MAX_KERNEL_ROWS:
            return super()._multiply(rows)
        products: Tensor = torch._weight_int4pack_mm_for_cpu(
            rows.bfloat16(), self._packed, self.group_size, self._scales_and_zeros
        ).to(self._dtype)
        products = products[:, : self.out_features]
        return products if self._bias is None else products + self._bias

    def _blocks(self, features: int) -> Iterator[tuple[int, Tensor]]:
        size, columns = self._block_rows, self.in_features
        packed = self._packed.view(-1, columns, size // 2)
        scales_and_zeros = self._scales_and_zeros.unflatten(1, (-1, size))
        step = max(1, features // size)
        for first in range(0, len(packed), step):
            part = packed[first : first + step].transpose(0, 1)
            values = torch.empty(columns, part.shape[1], size, dtype=torch.int16)
            values[..., : size // 2] = part & 15
            values[..., size // 2 :] = part >> 4
            block = _small_integers(values, self._dtype).sub_(8).flatten(1)
            grouped = block.unflatten(0, (-1, self.group_size))
            scales, zeros = (
                scales_and_zeros[:, first : first + step, :, k].flatten(1).unsqueeze(1)
                for k in (0, 1)
            )
            # Contiguous: strided ones take the products three times as long.
            scales, zeros = (each.to(self._dtype).contiguous() for each in (scales, zeros))
            torch.addcmul(zeros, grouped, scales, out=grouped)
            yield first * size, block[:, : self.out_features - first * size]


_ACTIVATION_ZERO_POINT = 128
"""oneDNN's kernels multiply unsigned activations; signed ones take its slow reference code."""


class _LastActivations(threading.local):
    """The activations that this thread quantised last: queries, keys and values are three products
    of the same rows."""

    def __init__(self) -> None:
        self._rows: Callable[[], Tensor | None] = lambda: None
        self._version = -1
        self._quantized: tuple[Tensor, Tensor] | None = None

    def quantize(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """See `_quantized_rows`; not computed again for the tensor that came last."""
        same = self._rows() is rows and self._version == rows._version
        if not same or self._quantized is None:
            self._quantized = _quantized_rows(rows.flatten(0, -2))
            self._rows, self._version = weakref.ref(rows), rows._version
        return self._quantized


_last_activations = _LastActivations()


def _quantized_rows(rows: Float[Tensor, "rows columns"]) -> tuple[Tensor, Float[Tensor, "rows 1"]]:
    """Rows in 8 bits about `_ACTIVATION_ZERO_POINT`, and the scale of each.

    A scale a row, not one for all: a row's result doesn't depend on the others in a batch.
    """
    scales = rows.abs().amax(-1, keepdim=True).float().div_(127)
    scales.clamp_min_(torch.finfo(torch.float32).tiny)
    values = rows.to(torch.float32, copy=True).div_(scales).add_(_ACTIVATION_ZERO_POINT + 0.5)
    return values.to(torch.uint8), scales


def _small_integers(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values from 0 to 15, int16, as floats, in place where they are bfloat16.

    The bits 0x4300 are 128 in bfloat16, whose last place there is 1: 0x4300 | value is 128 + value.
    """
    if dtype is not torch.bfloat16:
        return values.to(dtype)
    return values.bitwise_or_(0x4300).view(torch.bfloat16).sub_(128)


def _filled(rows: Tensor, count: int) -> Tensor:
    """With rows of zeros after the last, `count` in all."""
    return rows if len(rows) == count else nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


def _packed_int4(values: Tensor, block_rows: int) -> Tensor:
    """Pairs of columns in a byte → the layout of torch's int4 kernel on x86.

    Blocks of `block_rows` rows, column by column: a byte holds a row of the block's first half, and
    in its high bits the one as far into the second.
    """
    rows, half_columns = values.shape
    packed = values.new_empty(rows // block_rows, 2 * half_columns, block_rows // 2)
    for block, part in zip(packed, values.split(block_rows), strict=True):
        columns = unpack_nibbles(part).T
        torch.bitwise_or(
            columns[:, : block_rows // 2], columns[:, block_rows // 2 :] << 4, out=block
        )
    return packed.view(rows, half_columns)


@cache
def _int4_block_rows() -> int:
    """Rows of a block in the layout of torch's int4 kernel here; 0 if there is no fast kernel, or
    its layout is another.

    The layout depends on the instructions that torch uses (it is never stored), and isn't
    documented: a matrix that the op has packed is compared with one that was packed here.
    """
    if not hasattr(torch, "_convert_weight_to_int4pack_for_cpu"):
        return 0
    values = torch.randint(0, 16, (128, 64), generator=torch.Generator().manual_seed(0))
    for block_rows, capability in ((64, "AVX512"), (32, "AVX2")):
        if torch.backends.cpu.get_cpu_capability() != capability:
            continue
        expected = torch._convert_weight_to_int4pack_for_cpu(values.int(), 2)
        packed = _packed_int4(pack_nibbles(values.to(torch.uint8)), block_rows)
        if torch.equal(packed.flatten(), expected.flatten()):
            return block_rows
    return 0


@cache
def _has_vnni() -> bool:
    """Whether products of 8-bit numbers are exact: without VNNI, oneDNN's saturate in 16 bits."""
    capabilities = torch.cpu.get_capabilities()
    has = capabilities.get("avx512_vnni") and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return bool(has) and hasattr(torch.ops.onednn, "qlinear_pointwise")
