"""Weights of products laid out once as the processor wants them, not anew in every product.

oneDNN multiplies bfloat16 in blocks. torch hands it plain matrices, which it lays out again each
time: 5 to 10 % of a long product, a third of a short one. The ops that keep the layout are those
of torch's own compiler, which are not public: where they are missing, or the processor has no
AVX-512, modules stay as they are. The results are the same, bit for bit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PackedLinear", "prepack_linears"]


class PackedLinear(nn.Module):
    """An `nn.Linear` for bfloat16 on a CPU."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        ops: Any = torch.ops.mkldnn
        # A plain attribute: modules don't know how to copy or list tensors of this layout.
        self._weight = ops._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach().clone()
        self._product = ops._linear_pointwise

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        return self._product(rows, self._weight, self._bias, "none", [], "")

    def extra_repr(self) -> str:
        """As `nn.Linear`'s."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def prepack_linears(module: nn.Module) -> nn.Module:
    """The module, its linear parts packed where that is of use: bfloat16 on a CPU."""
    if isinstance(module, nn.Linear):
        return PackedLinear(module) if _gains(module) else module
    for name, child in module.named_children():
        packed = prepack_linears(child)
        if packed is not child:
            setattr(module, name, packed)
    return module


def _gains(linear: nn.Linear) -> bool:
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype is torch.bfloat16 and _packs()


@cache
def _packs() -> bool:
    """Whether this torch has the ops, and this processor the instructions that they ask for."""
    ops: Any = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(ops, "_reorder_linear_weight")
        and hasattr(ops, "_is_mkldnn_bf16_supported")
        and ops._is_mkldnn_bf16_supported()
    )
