"""Linear layers with quantised weights of any kind, on any device.

As many output features as fit in the cache are converted to the dtype of the computation at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .quantization import QuantizedMatrix

__all__ = ["BlockwiseLinear", "QuantizedLinear"]

_BLOCK_BYTES, _GPU_BLOCK_BYTES = 4 << 20, 256 << 20
"""Of a matrix that are in the dtype of the computation at a time: what stays in a processor's
cache; a whole matrix on a GPU, but for the head."""


class QuantizedLinear(nn.Module):
    """What all have in common: features, bias, and products a block of rows at a time."""

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
        block_bytes = _BLOCK_BYTES if rows.device.type == "cpu" else _GPU_BLOCK_BYTES
        block_features = max(1, block_bytes // (self.in_features * rows.element_size()))
        first = 0
        for products in self._block_products(rows, block_features):
            part = features[:, first : first + products.shape[1]]
            part.copy_(products[:, : part.shape[1]])
            first += part.shape[1]
        return features if self._bias is None else features.add_(self._bias)

    def _block_products(self, rows: Tensor, block_features: int) -> Iterator[Tensor]:
        """Products with all blocks of about so many output features, in their order; the last may
        have more features than the matrix."""
        raise NotImplementedError


class BlockwiseLinear(QuantizedLinear):
    """Any matrix on any device."""

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(matrix, bias, dtype)
        self._matrix = matrix

    def _block_products(self, rows: Tensor, block_features: int) -> Iterator[Tensor]:
        matrix = self._matrix
        for first in range(0, self.out_features, block_features):
            part = slice(first, first + block_features)
            zero_points = None if matrix.zero_points is None else matrix.zero_points[part]
            block = QuantizedMatrix(
                matrix.bits, matrix.values[part], matrix.scales[part], zero_points
            )
            yield rows @ block.dequantize(self._dtype).T
