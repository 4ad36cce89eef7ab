"""Linear layers with weights packed for oneDNN: bfloat16 on CPUs with AVX-512.

oneDNN multiplies bfloat16 matrices in blocked layouts. torch passes plain matrices, which are
reordered at every call: 5 to 10 % of the time of a long product, a third of a short one. The ops
that keep the reordered weights belong to torch's compiler and are not public: where they are
missing, or the processor has no AVX-512, modules stay unchanged. Results are equal, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PackedLinear", "prepack_linears"]


class PackedLinear(nn.Module):
    """An `nn.Linear` for bfloat16 on a CPU, with packed weights."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        ops: Any = torch.ops.mkldnn
        # A plain attribute: modules can neither copy nor list tensors of this layout.
        self._packed_weight = ops._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach().clone()
        self._linear = ops._linear_pointwise

    def forward(self, rows: Tensor) -> Tensor:
        """(…, in_features) → (…, out_features)."""
        product: Tensor
        if rows.requires_grad and torch.is_grad_enabled():
            product = _WithGradient.apply(rows, self._packed_weight, self._multiply)
        else:
            product = self._multiply(rows)
        return product

    def _multiply(self, rows: Tensor) -> Tensor:
        product: Tensor = self._linear(rows, self._packed_weight, self._bias, "none", [], "")
        return product

    def extra_repr(self) -> str:
        """As `nn.Linear`'s."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class _WithGradient(torch.autograd.Function):
    """The product, whose gradient is that of `nn.Linear`'s input: the op itself has none."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, packed_weight: Tensor, multiply: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The packed product."""
        ctx.packed_weight = packed_weight
        return multiply(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the product, times the weight as it was before it was packed."""
        return gradients[0] @ ctx.packed_weight.to_dense(), None, None


def prepack_linears(module: nn.Module) -> nn.Module:
    """The module with its bfloat16 linear layers on the CPU packed, in place where it has any."""
    if isinstance(module, nn.Linear):
        return PackedLinear(module) if _can_prepack(module) else module
    for name, child in module.named_children():
        packed = prepack_linears(child)
        if packed is not child:
            setattr(module, name, packed)
    return module


def _can_prepack(linear: nn.Linear) -> bool:
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype is torch.bfloat16 and _is_supported()


@cache
def _is_supported() -> bool:
    """Whether this torch has the ops, and this processor the instructions that they need."""
    ops: Any = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(ops, "_reorder_linear_weight")
        and hasattr(ops, "_is_mkldnn_bf16_supported")
        and ops._is_mkldnn_bf16_supported()
    )
