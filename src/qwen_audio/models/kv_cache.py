"""Key/value cache of the decoder, per layer and clip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KeyValueCache", "common_prefix"]


class KeyValueCache:
    """Per layer and clip the keys and values of what has been read.

    Tensors, of shape (1, heads, rows, head_dim), are never written to, only replaced, so that
    `cut` copies no data.
    """

    def __init__(self, layers: int, clips: int) -> None:
        self._layers: list[list[tuple[Tensor, Tensor] | None]] = [
            [None] * clips for _ in range(layers)
        ]

    def extend(
        self,
        layer: int,
        clip: int,
        key: Float[Tensor, "1 heads rows head_dim"],
        value: Float[Tensor, "1 heads rows head_dim"],
    ) -> tuple[Float[Tensor, "1 heads all head_dim"], Float[Tensor, "1 heads all head_dim"]]:
        """Append rows to a clip; return all its keys and values."""
        held = self._layers[layer][clip]
        if held is not None:
            key, value = torch.cat([held[0], key], dim=2), torch.cat([held[1], value], dim=2)
        self._layers[layer][clip] = (key, value)
        return key, value

    def rows(self, clip: int) -> int:
        """Positions of a clip that have been read."""
        held = self._layers[0][clip] if self._layers else None
        return 0 if held is None else held[0].shape[2]

    def truncated(self, clip: int, rows: int) -> KeyValueCache:
        """A cache of one clip, holding its first `rows` positions."""
        cache = KeyValueCache(len(self._layers), 1)
        for mine, theirs in zip(cache._layers, self._layers, strict=True):
            if (held := theirs[clip]) is not None:
                mine[0] = (held[0][:, :, :rows], held[1][:, :, :rows])
        return cache


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items two sequences share."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
