"""Attention of one clip's rows: to keys up to each, to those of a tree, or of a single row."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

__all__ = ["clip_attention", "one_row_attention", "tree_attention"]


def clip_attention(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads all head_dim"],
    value: Float[Tensor, "1 kv_heads all head_dim"],
    is_causal: bool,
    scaling: float,
) -> Float[Tensor, "1 heads rows head_dim"]:
    """Attention of the last rows of one clip to all of its keys, or to those up to each row."""
    rows, past = query.shape[2], key.shape[2] - query.shape[2]
    # SDPA's is_causal would align the triangle with the first key, so with past rows the mask is
    # explicit. A single row attends to all keys.
    needs_mask = is_causal and rows > 1
    mask = (
        torch.ones(rows, past + rows, dtype=torch.bool, device=query.device).tril(past)
        if needs_mask and past
        else None
    )
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=needs_mask and not past,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def tree_attention(
    query: Float[Tensor, "1 heads tree head_dim"],
    key: Float[Tensor, "1 kv_heads all head_dim"],
    value: Float[Tensor, "1 kv_heads all head_dim"],
    parents: tuple[int, ...],
    scaling: float,
) -> Float[Tensor, "1 heads tree head_dim"]:
    """Attention of the rows of a tree, whose keys are the last: see `Packing.trees`."""
    before = key.shape[2] - len(parents)
    mask = pad(_ancestors(parents, query.device), (before, 0), value=True)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


@functools.lru_cache(maxsize=8)
def _ancestors(parents: tuple[int, ...], device: torch.device) -> Bool[Tensor, "tree tree"]:
    """For each row of a tree which rows it attends to: itself and its ancestors. Cached, as every
    layer asks for the same."""
    rows = torch.eye(len(parents), dtype=torch.bool)
    for row, parent in enumerate(parents):
        if parent >= 0:
            rows[row] |= rows[parent]
    return rows.to(device)


def one_row_attention(
    query: Float[Tensor, "1 heads 1 head_dim"],
    parts: Iterable[tuple[Tensor, Tensor]],
    count: int,
    scaling: float,
) -> Float[Tensor, "1 heads 1 head_dim"]:
    """Attention of one row to `count` keys, in the cache's parts, computed in float32 at least.

    SDPA's kernel for CPUs reads 16-bit keys at a quarter of the memory's speed. A part in float32
    stays in the processor's cache for its product.
    """
    _, heads, _, head_dim = query.shape
    dtype = torch.promote_types(query.dtype, torch.float32)
    parts = list(parts)
    lengths = [len(keys) for keys, _ in parts]
    kv_heads = parts[0][0].shape[1]
    q = (query[0, :, 0].to(dtype) * scaling).view(kv_heads, heads // kv_heads, head_dim)
    scores = q.new_empty(*q.shape[:2], count)
    for scored, (keys, _) in zip(scores.split(lengths, 2), parts, strict=True):
        scored.copy_(torch.bmm(q, keys.to(dtype).permute(1, 2, 0)))
    weights = scores.softmax(-1)
    output = torch.zeros_like(q)
    for weighted, (_, values) in zip(weights.split(lengths, 2), parts, strict=True):
        output.baddbmm_(weighted, values.to(dtype).transpose(0, 1))
    return output.view(1, heads, 1, head_dim).to(query.dtype)
