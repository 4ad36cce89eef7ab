"""Key/value cache of the decoder, per layer and clip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KeyValueCache", "common_prefix_length"]


class KeyValueCache:
    """Past keys and values of every layer and clip.

    Tensors have shape (1, heads, rows, head_dim). They are replaced, never written to, so
    `truncated` copies no data.
    """

    def __init__(self, layers: int, clips: int) -> None:
        self._layers: list[list[tuple[Tensor, Tensor] | None]] = [
            [None] * clips for _ in range(layers)
        ]

    def append(
        self,
        layer: int,
        clip: int,
        key: Float[Tensor, "1 heads rows head_dim"],
        value: Float[Tensor, "1 heads rows head_dim"],
    ) -> tuple[Float[Tensor, "1 heads all head_dim"], Float[Tensor, "1 heads all head_dim"]]:
        """Append rows to a clip; returns all its keys and values."""
        past = self._layers[layer][clip]
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        self._layers[layer][clip] = (key, value)
        return key, value

    def length(self, clip: int) -> int:
        """Number of cached positions of a clip."""
        past = self._layers[0][clip] if self._layers else None
        return 0 if past is None else past[0].shape[2]

    def truncated(self, clip: int, length: int) -> KeyValueCache:
        """A cache of one clip, with its first `length` positions."""
        cache = KeyValueCache(len(self._layers), 1)
        for target, source in zip(cache._layers, self._layers, strict=True):
            if (past := source[clip]) is not None:
                target[0] = (past[0][:, :, :length], past[1][:, :, :length])
        return cache


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading items that two sequences share."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
