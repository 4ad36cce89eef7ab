"""Packed sequences: clips laid end to end without padding, each attending to itself alone.

transformers' layers look their attention function up by name and hand it every keyword that they
don't know. So the boundaries travel beside the data, and everything else in a layer, being per
position, needs no change. What a clip computes can't depend on its neighbours.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from .kv_cache import KeyValueCache

__all__ = ["ATTENTION", "Packing"]

ATTENTION = "qwen_audio_packed"
"""The name under which transformers' layers find `packed_attention`."""

T = TypeVar("T")


@dataclass(frozen=True)
class Packing:
    """How many rows each clip has in a packed sequence, and what was read of it before."""

    lengths: tuple[int, ...]
    cache: KeyValueCache | None = None
    clips: tuple[int, ...] | None = None
    """Which of the cache's clips these are; all of them where None."""
    earlier: bool = False
    """Whether the cache holds rows of any of them that were read before."""

    def remember(self, module: nn.Module, key: Tensor, value: Tensor) -> None:
        """Keep the keys and values of all clips, where there is a cache to keep them in."""
        if self.cache is not None:
            parts = zip(key.split(self.lengths, 2), value.split(self.lengths, 2), strict=True)
            for place, (k, v) in enumerate(parts):
                self.append_kv(module.layer_idx, place, k, v)  # type: ignore[arg-type]

    def append_kv(
        self, layer: int, place: int, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The keys and values that the clip at `place` sees in a layer."""
        if self.cache is None:
            return key, value
        return self.cache.extend(layer, self.clips[place] if self.clips else place, key, value)


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    attention_mask: None,  # noqa: ARG001 (transformers passes it by place)
    *,
    packing: Packing,
    scaling: float,
    **unused: Any,  # noqa: ARG001 (dropout, sliding_window and the like)
) -> tuple[Float[Tensor, "1 rows heads head_dim"], None]:
    """Attention inside each clip: full for the encoder, causal for the language model.

    The signature is that of transformers' attention functions (`AttentionInterface`).
    """
    if _is_one_call(query, packing):
        packing.remember(module, key, value)
        return _attend_in_one_call(
            query, key, value, packing, bool(module.is_causal), scaling
        ), None
    parts = [part.split(packing.lengths, dim=2) for part in (query, key, value)]
    if not module.is_causal and _by_heads(query):
        output = torch.empty_like(query)
        for q, k, v, out in zip(*parts, output.split(packing.lengths, dim=2), strict=True):
            _attend_by_heads(q, k, v, scaling, out)
        return output.transpose(1, 2).contiguous(), None
    outputs = []
    for place, (q, k, v) in enumerate(zip(*parts, strict=True)):
        rows = q.shape[2]
        if module.is_causal:
            k, v = packing.append_kv(module.layer_idx, place, k, v)  # type: ignore[arg-type]
        earlier = k.shape[2] - rows
        # A single row sees everything; after earlier rows the triangle starts further right.
        triangle = module.is_causal and rows > 1
        mask = (
            torch.ones(rows, k.shape[2], dtype=torch.bool, device=q.device).tril(earlier)
            if triangle and earlier
            else None
        )
        outputs.append(
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=bool(triangle and not earlier),
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _is_one_call(query: Tensor, packing: Packing) -> bool:
    """Whether the kernel for sequences of various lengths can take all clips at once: 16 bits, a
    GPU of 2020 or later, and nothing read before."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0) and not packing.earlier


def _attend_in_one_call(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    packing: Packing,
    causal: bool,
    scaling: float,
) -> Float[Tensor, "1 rows heads head_dim"]:
    from torch.nn.attention.varlen import varlen_attn

    ends = _ends(packing.lengths, query.device)
    longest = max(packing.lengths)
    q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
    attended = varlen_attn(
        q,
        k,
        v,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return cast(Tensor, attended)[None]


@functools.lru_cache(maxsize=8)
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each clip begins, and where the last one ends; the same for every layer."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)


_SCORES_AT_ONCE = 1 << 21
"""Four megabytes of bfloat16, used again and again: what two products and a softmax pass on to each
other in a cache. Less than two heads at once keep two processors no busier."""


def _by_heads(query: Tensor) -> bool:
    """Whether plain products beat torch's fused kernel, which is slow for bfloat16 on CPUs."""
    return query.device.type == "cpu" and query.dtype is torch.bfloat16


def _attend_by_heads(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 heads rows head_dim"],
    value: Float[Tensor, "1 heads rows head_dim"],
    scaling: float,
    output: Float[Tensor, "1 heads rows head_dim"],
) -> None:
    """Softmax between two products, a few heads at a time, written to `output`."""
    _, heads, rows, _ = query.shape
    seen = key.shape[2]
    group = min(heads, max(2, _SCORES_AT_ONCE // (rows * seen)))
    if scaling != 1.0:  # Whisper's encoder has scaled the queries already
        query = query * scaling
    space = query.new_empty(group, rows, seen)
    for start in range(0, heads, group):
        mine = slice(start, start + group)
        part = query[0, mine]
        scores = torch.bmm(part, key[0, mine].transpose(1, 2), out=space[: len(part)])
        weights = torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(weights, value[0, mine], out=output[0, mine])


AttentionInterface.register(ATTENTION, packed_attention)
