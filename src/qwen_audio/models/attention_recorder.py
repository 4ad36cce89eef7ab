"""Attention weights of chosen layers, heads and rows, recorded while layers run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.weights.device import to_device

__all__ = ["AttentionRecorder"]


class AttentionRecorder:
    """Recomputes attention weights from the queries and keys of a pass, which keeps none.

    Queries and keys are those after the rotary embedding, as transformers' eager attention takes
    them. Weights are computed in float32 at least, of the chosen rows only.

    Args:
        layers: whose weights to record, from 0 on.
        rows: for each clip of the pass the rows of queries to record, counted within the clip.
        heads: of the queries; None: all.

    Attributes:
        weights: by layer, for each clip (heads, query rows, keys): rows sum to 1 over the keys,
            and are 0 for later ones.
    """

    def __init__(
        self,
        layers: Collection[int],
        rows: Sequence[Sequence[int]],
        heads: Sequence[int] | None = None,
    ) -> None:
        self.layers, self.rows, self.heads = frozenset(layers), rows, heads
        self.weights: dict[int, list[Float[Tensor, "heads queries keys"]]] = {}

    def record(
        self,
        layer: int,
        index: int,
        query: Float[Tensor, "1 heads rows head_dim"],
        key: Float[Tensor, "1 kv_heads keys head_dim"],
        scaling: float,
    ) -> None:
        """The weights of one clip in a layer, whose attention is causal.

        Args:
            index: of the clip, in order.
            key: of all positions, those before the rows of the pass included.
        """
        past = key.shape[2] - query.shape[2]
        dtype = torch.promote_types(query.dtype, torch.float32)
        rows = to_device(self.rows[index], torch.long, query.device)
        heads = to_device(
            range(query.shape[1]) if self.heads is None else self.heads, torch.long, query.device
        )
        group = query.shape[1] // key.shape[1]  # query heads that share a head of keys
        q = query[0, heads][:, rows].to(dtype) * scaling
        scores = q @ key[0, heads // group].to(dtype).transpose(1, 2)
        positions = torch.arange(key.shape[2], device=query.device)
        later = positions[None] > rows[:, None] + past
        weights = scores.masked_fill_(later, -torch.inf).softmax(-1)
        self.weights.setdefault(layer, []).append(weights)
