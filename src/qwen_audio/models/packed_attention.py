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
from transformers import AttentionInterface

from qwen_audio.weights.device import to_device

from .attention_kernels import clip_attention, one_row_attention, tree_attention
from .attention_recorder import AttentionRecorder
from .kv_cache import CachePass

__all__ = ["ATTENTION", "Packing"]

ATTENTION = "qwen_audio_packed"
"""The name under which transformers' layers find `packed_attention`."""


@dataclass(frozen=True, eq=False)
class Packing:
    """Lengths of the clips in a packed sequence, and where their keys and values are cached.

    Attributes:
        lengths: rows of each clip, in order.
        cached: past keys and values of the same clips, extended by those of this sequence; None:
            there are none, and nothing is cached.
        trees: for each clip the parents of its last rows, where these are a tree: indices among
            them, -1 for the row before the tree. A row of a tree attends to its ancestors, and to
            all rows before the tree. Empty where no clip has one.
        recorder: of attention weights; None: none are recorded.
    """

    lengths: tuple[int, ...]
    cached: CachePass | None = None
    trees: tuple[tuple[int, ...], ...] = ()
    recorder: AttentionRecorder | None = None

    @property
    def has_past(self) -> bool:
        """Whether any of the clips has keys and values of earlier positions."""
        return self.cached is not None and any(self.cached.starts)

    def tree(self, index: int) -> tuple[int, ...]:
        """The parents of the last rows of a clip; empty where they are no tree."""
        return self.trees[index] if self.trees else ()

    def past(self, index: int) -> int:
        """Cached positions of a clip before its rows."""
        return 0 if self.cached is None else self.cached.starts[index]


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    attention_mask: None,  # noqa: ARG001 (transformers passes it by position)
    *,
    packing: Packing,
    scaling: float,
    sliding_window: int | None = None,
    **unused: Any,  # noqa: ARG001 (dropout and the like)
) -> tuple[Float[Tensor, "1 rows heads head_dim"], None]:
    """Attention within each clip: bidirectional in the encoder, causal in the language model.

    The signature is that of transformers' attention functions (`AttentionInterface`).

    Raises:
        ValueError: for a layer that attends to a sliding window only.
    """
    if sliding_window is not None:
        raise ValueError(f"sliding_window={sliding_window}: attention is to all keys of a clip")
    cached = packing.cached
    if cached is not None:
        cached.write(module.layer_idx, key, value)  # type: ignore[arg-type]
    if packing.recorder is not None:
        _record_weights(module, query, key, packing, packing.recorder, scaling)
    if _can_use_varlen(query):
        output = (
            _block_varlen_attention(module, query, packing, scaling)
            if packing.has_past
            else _varlen_attention(query, key, value, packing, bool(module.is_causal), scaling)
        )
        _attend_trees(module, query, key, value, packing, scaling, output)
        return output, None
    clips = [rows.split(packing.lengths, dim=2) for rows in (query, key, value)]
    if not module.is_causal and _is_matmul_faster(query):
        output = torch.empty_like(query)
        for q, k, v, out in zip(*clips, output.split(packing.lengths, dim=2), strict=True):
            _matmul_attention(q, k, v, scaling, out)
        return output.transpose(1, 2).contiguous(), None
    outputs = []
    for index, (q, k, v) in enumerate(zip(*clips, strict=True)):
        rows, past, tree = q.shape[2], packing.past(index), packing.tree(index)
        if cached is not None and past:
            if rows == 1 and not tree and q.device.type == "cpu":
                parts = cached.runs(module.layer_idx, index)  # type: ignore[arg-type]
                outputs.append(one_row_attention(q, parts, past + 1, scaling))
                continue
            k, v = cached.gather(module.layer_idx, index)  # type: ignore[arg-type]
        if chain := rows - len(tree):
            keys = slice(past + chain)
            is_causal = bool(module.is_causal)
            outputs.append(
                clip_attention(q[:, :, :chain], k[:, :, keys], v[:, :, keys], is_causal, scaling)
            )
        if tree:
            outputs.append(tree_attention(q[:, :, chain:], k, v, tree, scaling))
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _attend_trees(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    packing: Packing,
    scaling: float,
    output: Float[Tensor, "1 rows heads head_dim"],
) -> None:
    """Write the rows of trees into the output of flash attention, which takes no masks."""
    for index, end in enumerate(itertools.accumulate(packing.lengths)):
        if not (tree := packing.tree(index)):
            continue
        rows = slice(end - packing.lengths[index], end)
        if packing.cached is not None and packing.past(index):
            k, v = packing.cached.gather(module.layer_idx, index)  # type: ignore[arg-type]
        else:
            k, v = key[:, :, rows], value[:, :, rows]
        branches = slice(end - len(tree), end)
        attended = tree_attention(query[:, :, branches], k, v, tree, scaling)
        output[:, branches] = attended.transpose(1, 2)


def _record_weights(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    packing: Packing,
    recorder: AttentionRecorder,
    scaling: float,
) -> None:
    """Give the recorder the queries and all keys of each clip."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    if layer not in recorder.layers:
        return
    cached = packing.cached
    clips = (rows.split(packing.lengths, dim=2) for rows in (query, key))
    for index, (q, k) in enumerate(zip(*clips, strict=True)):
        if cached is not None and cached.starts[index]:
            k, _ = cached.gather(layer, index)
        recorder.record(layer, index, q, k, scaling)


def _can_use_varlen(query: Tensor) -> bool:
    """Whether one variable-length flash attention call can process all clips.

    It needs a 16-bit dtype and compute capability 8.0 (Ampere).
    """
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen_attention(
    query: Float[Tensor, "1 heads rows head_dim"],
    key: Float[Tensor, "1 kv_heads rows head_dim"],
    value: Float[Tensor, "1 kv_heads rows head_dim"],
    packing: Packing,
    causal: bool,
    scaling: float,
) -> Float[Tensor, "1 rows heads head_dim"]:
    """One flash attention call for clips without a past."""
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
        num_splits=_ONE_SPLIT,
    )
    return cast(Tensor, output)[None]


def _block_varlen_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads rows head_dim"],
    packing: Packing,
    scaling: float,
) -> Float[Tensor, "1 rows heads head_dim"]:
    """One causal flash attention call that reads keys and values in the cache's blocks."""
    from torch.nn.attention.varlen import varlen_attn

    cached = cast(CachePass, packing.cached)
    keys, values = cached.cache.pool(module.layer_idx)  # type: ignore[arg-type]
    q = query[0].transpose(0, 1).contiguous()
    output = varlen_attn(
        q,
        keys,
        values,
        _offsets(packing.lengths, query.device),
        None,
        max(packing.lengths),
        max(cached.ends),
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=q.shape[1] != keys.shape[2],
        seqused_k=cached.key_counts,
        block_table=cached.block_table,
        num_splits=_ONE_SPLIT,
    )
    return cast(Tensor, output)[None]


_ONE_SPLIT = 1
"""Of a sequence's keys: with more, neighbours in a batch would change a clip's sums."""


@functools.lru_cache(maxsize=8)
def _offsets(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Cumulative lengths, (clips + 1,) int32. Cached, as every layer asks for the same."""
    return to_device([0, *itertools.accumulate(lengths)], torch.int32, device)


_MAX_SCORES = 1 << 21
"""Attention scores computed at once: 4 MB in bfloat16, so that both products and the softmax find
them in the processor's cache. At least two heads are taken, to keep two cores busy."""


def _is_matmul_faster(query: Tensor) -> bool:
    """Whether explicit matrix products beat SDPA's kernel, which is slow for bfloat16 on CPUs."""
    is_slow = query.device.type == "cpu" and query.dtype is torch.bfloat16
    return is_slow and not query.requires_grad  # products into buffers have no gradient


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
