"""Mixtures of experts, each with its own tensors, as they are in files.

transformers stacks the experts of a layer in memory. Here an expert stays a module, so that its
matrices are read, fetched and quantised one by one, as those of any other layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from qwen_audio.weights.on_demand import OnDemandModules

__all__ = ["Experts", "stack_experts", "stacked_expert_names"]


class Experts(OnDemandModules):
    """The experts of a layer, gated feed-forward blocks, in place of transformers' stacked ones."""

    def forward(
        self,
        rows: Float[Tensor, "rows width"],
        chosen: Int64[Tensor, "rows top"],
        weights: Float[Tensor, "rows top"],
    ) -> Float[Tensor, "rows width"]:
        """The weighted sum of each row's chosen experts, added in the order of their numbers, so
        that a row's sum doesn't depend on the others."""
        output = torch.zeros_like(rows)
        top = chosen.shape[1]
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.count).tolist()
        used = {number: count for number, count in enumerate(counts) if count}
        places_by_expert = order.split(list(used.values()))
        for expert, places in zip(self.used(list(used)), places_by_expert, strict=True):
            row = places // top
            added = expert(rows[row]) * weights.flatten()[places, None]
            output.index_add_(0, row, added.to(output.dtype))
        return output


_EXPERT = re.compile(r"(.*mlp\.experts\.)\d+\.(gate|up|down)_proj\.weight")


def stack_experts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's tensors as transformers has them: those of its experts stacked, in their order."""
    parts: dict[str, dict[str, list[Tensor]]] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _EXPERT.fullmatch(name):
            parts.setdefault(match[1], {}).setdefault(match[2], []).append(tensor)
        else:
            others[name] = tensor
    for prefix, matrices in parts.items():
        gates, ups = map(torch.stack, (matrices["gate"], matrices["up"]))
        others[f"{prefix}gate_up_proj"] = torch.cat([gates, ups], dim=1)
        others[f"{prefix}down_proj"] = torch.stack(matrices["down"])
    return others


_STACKED = re.compile(r"(.*mlp\.experts\.)(gate_up|down)_proj")


def stacked_expert_names(stored: str, count: int) -> list[str]:
    """The names of the matrices of so many experts that are stacked in a tensor of a file, as
    transformers 5 writes them with save_original_format=False: (experts, rows, columns), where the
    rows of `up` follow those of `gate`. Of any other tensor its own."""
    if not (match := _STACKED.fullmatch(stored)):
        return [stored]
    matrices = match[2].split("_")
    return [f"{match[1]}{number}.{m}_proj.weight" for number in range(count) for m in matrices]
