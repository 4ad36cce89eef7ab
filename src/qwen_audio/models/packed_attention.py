"""Attention over packed sequences: clips end to end without padding, each attends only to itself.

transformers' layers look up their attention function by name and pass it every keyword argument
they don't know. The lengths of the clips are passed that way (`packing=`); everything else in a
layer works per position and needs no change. A clip's result does not depend on its neighbours.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from .kv_cache import KeyValueCache

__all__ = ["ATTENTION", "Packing"]

ATTENTION = "qwen_audio_packed"
"""The name under which transformers' layers find `packed_attention`."""


@dataclass(frozen=True)
class Packing:
    """Lengths of the clips in a packed sequence, and the key/value cache that they extend.

    Attributes:
        lengths: rows of each clip, in order.
        cache: past keys and values, extended by those of this sequence; None: nothing is cached.
        cache_indices: the index in the cache of each clip; None: the same as in `lengths`.
        has_past: whether the cache already has rows of any of these clips.
    """

    lengths: tuple[int, ...]
    cache: KeyValueCache | None = None
    cache_indices: tuple[int, ...] | None = None
    has_past: bool = False

    def store_kv(self, layer: nn.Module, key: Tensor, value: Tensor) -> None:
        """Cache the packed keys and values of all clips, if there is a cache."""
        if self.cache is not None:
            clips = zip(key.split(self.lengths, 2), value.split(self.lengths, 2), strict=True)
            for index, (k, v) in enumerate(clips):
                self.append_kv(layer.layer_idx, index, k, v)  # type: ignore[arg-type]

    def append_kv(
        self, layer: int, index: int, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cache the keys and values of the clip at `index`; returns past and new ones together."""
        if self.cache is None:
            return key, value
        clip = self.cache_indices[index] if self.cache_indices else index
        return self.cache.append(layer, clip, key, value)


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    attention_mask: None,  # noqa: ARG001 (transformers passes it by position)
    *,
    packing: Packing,
    scaling: float,
    **unused: Any,  # noqa: ARG001 (dropout, sliding_window and the like)
) -> tuple[Float[Tensor, "1 rows heads head_dim"], None]:
    """Attention within each clip: bidirectional in the encoder, causal in the language model.

    The signature is that of transformers' attention functions (`AttentionInterface`).
    """
    if _can_use_varlen(query, packing):
        packing.store_kv(module, key, value)
        return _varlen_attention(query, key, value, packing, bool(module.is_causal), scaling), None
    clips = [rows.split(packing.lengths, dim=2) for rows in (query, key, value)]
    if not module.is_causal and _is_matmul_faster(query):
        output = torch.empty_like(query)
        for q, k, v, out in zip(*clips, output.split(packing.lengths, dim=2), strict=True):
            _matmul_attention(q, k, v, scaling, out)
        return output.transpose(1, 2).contiguous(), None
    outputs = []
    for index, (q, k, v) in enumerate(zip(*clips, strict=True)):
        rows = q.shape[2]
        if module.is_causal:
            k, v = packing.append_kv(module.layer_idx, index, k, v)  # type: ignore[arg-type]
        past = k.shape[2] - rows
        # A single row attends to all keys. SDPA's is_causal would align the triangle with the
        # first key, so with past rows the mask is explicit.
        needs_mask = module.is_causal and rows > 1
        mask = (
            torch.ones(rows, k.shape[2], dtype=torch.bool, device=q.device).tril(past)
            if needs_mask and past
            else None
        )
        outputs.append(
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=bool(needs_mask and not past),
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _can_use_varlen(query: Tensor, packing: Packing) -> bool:
    """Whether one variable-length flash attention call can process all clips.

    It needs a 16-bit dtype, compute capability 8.0 (Ampere) and clips without past keys.
    """
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0) and not packing.has_past


def _varlen_attention(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    packing: Packing,
    causal: bool,
    scaling: float,
) -> Float[Tensor, "1 rows heads head_dim"]:
    from torch.nn.attention.varlen import varlen_attn

    offsets = _offsets(packing.lengths, query.device)
    max_length = max(packing.lengths)
    q, k, v = (rows[0].transpose(0, 1).contiguous() for rows in (query, key, value))
    output = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        max_length,
        max_length,
        scale=scaling,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return cast(Tensor, output)[None]


@functools.lru_cache(maxsize=8)
def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Cumulative lengths, (clips + 1,) int32. Cached, as every layer asks for the same."""
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=device)


_MAX_SCORES = 1 << 21
"""Attention scores computed at once: 4 MB in bfloat16, so that both products and the softmax find
them in the processor's cache. At least two heads are taken, to keep two cores busy."""


def _is_matmul_faster(query: Tensor) -> bool:
    """Whether explicit matrix products beat SDPA's kernel, which is slow for bfloat16 on CPUs."""
    return query.device.type == "cpu" and query.dtype is torch.bfloat16


def _matmul_attention(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 heads rows head_dim"],
    value: Float[Tensor, "1 heads rows head_dim"],
    scaling: float,
    output: Float[Tensor, "1 heads rows head_dim"],
) -> None:
    """Bidirectional attention as two matrix products, a few heads at a time, into `output`."""
    _, heads, rows, _ = query.shape
    keys = key.shape[2]
    heads_per_step = min(heads, max(2, _MAX_SCORES // (rows * keys)))
    if scaling != 1.0:  # transformers' Whisper layers have scaled the queries already
        query = query * scaling
    buffer = query.new_empty(heads_per_step, rows, keys)
    for start in range(0, heads, heads_per_step):
        step = slice(start, start + heads_per_step)
        q = query[0, step]
        scores = torch.bmm(q, key[0, step].transpose(1, 2), out=buffer[: len(q)])
        weights = torch.softmax(scores, dim=-1, out=scores)
        torch.bmm(weights, value[0, step], out=output[0, step])


AttentionInterface.register(ATTENTION, packed_attention)
