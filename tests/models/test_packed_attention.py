"""Packed attention against transformers' plain eager attention, one clip at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

from qwen_audio.inference.memory_budget import batch_by_size
from qwen_audio.models import kv_cache
from qwen_audio.models import packed_attention as packed
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.packed_attention import ATTENTION, Packing, packed_attention

HEAD_DIM, SCALING = 8, 0.4


class Layer(nn.Module):
    """The attributes of a layer that attention functions use."""

    def __init__(self, is_causal: bool, groups: int = 1, layer_idx: int = 0) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups, self.layer_idx = is_causal, groups, layer_idx
        self.eval()


def random_rows(generator: torch.Generator, heads: int, rows: int) -> Tensor:
    return torch.randn(1, heads, rows, HEAD_DIM, generator=generator)


def attend(layer: Layer, qkv: tuple[Tensor, ...], packing: Packing) -> Tensor:
    query, key, value = qkv
    out, weights = packed_attention(
        layer, query, key, value, None, packing=packing, scaling=SCALING, dropout=0.0
    )
    assert weights is None
    assert out.shape == (1, query.shape[2], query.shape[1], HEAD_DIM)
    return out


def eager_attention(layer: Layer, qkv: tuple[Tensor, ...], scaling: float = SCALING) -> Tensor:
    """Of rows that are the last ones of the keys."""
    query, key, value = qkv
    rows, all_rows = query.shape[2], key.shape[2]
    mask: Any = torch.zeros(1, 1, rows, all_rows)
    if layer.is_causal:
        later = torch.arange(all_rows)[None] > torch.arange(all_rows - rows, all_rows)[:, None]
        mask[..., later] = -torch.inf
    out, _ = eager_attention_forward(layer, query, key, value, mask, scaling=scaling)
    return out


heads = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)])
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


@settings(max_examples=30)
@given(lengths, heads, st.booleans(), seeds)
def test_packed_clips_equal_single_clips(
    clips: list[int], heads: tuple[int, int], is_causal: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_heads, key_heads = heads
    layer = Layer(is_causal, query_heads // key_heads)
    qkv = tuple(random_rows(generator, n, sum(clips)) for n in (query_heads, key_heads, key_heads))
    packed = attend(layer, qkv, Packing(tuple(clips)))
    single = [
        eager_attention(layer, clip)
        for clip in zip(*(rows.split(clips, dim=2) for rows in qkv), strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(single, dim=1), atol=2e-6, rtol=1e-5)


def new_cache(heads: int, dtype: torch.dtype = torch.float32) -> KeyValueCache:
    return KeyValueCache(2, heads, HEAD_DIM, dtype, torch.device("cpu"))


def attend_cached(
    layer: Layer, qkv: tuple[Tensor, ...], cache: KeyValueCache, rows: dict[int, int]
) -> Tensor:
    """One pass over so many rows of each slot."""
    with cache.extend(list(rows), list(rows.values())) as cached:
        return attend(layer, qkv, Packing(tuple(rows.values()), cached))


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=3, max_size=3), min_size=1, max_size=4),
    heads,
    st.sampled_from([1, 2, 5]),
    st.booleans(),
    seeds,
)
def test_cached_steps_equal_one_pass(
    steps: list[list[int]], heads: tuple[int, int], block: int, in_one_call: bool, seed: int
) -> None:
    """Three clips; each step adds some rows of each to the cache."""
    generator = torch.Generator().manual_seed(seed)
    query_heads, key_heads = heads
    layer = Layer(True, query_heads // key_heads, layer_idx=1)
    totals = [sum(rows) for rows in zip(*steps, strict=True)]
    clips = [
        tuple(random_rows(generator, n, total) for n in (query_heads, key_heads, key_heads))
        for total in totals
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kv_cache, "block_positions", lambda _: block)
        if in_one_call:  # as on a GPU
            monkeypatch.setattr(packed, "_can_use_varlen", lambda _: True)
            monkeypatch.setattr(varlen, "varlen_attn", defined_varlen_attention)
        cache = new_cache(key_heads)
        slots = [cache.add() for _ in clips]
        outputs: list[list[Tensor]] = [[], [], []]
        for rows in steps:
            starts = [cache.length(slot) for slot in slots]
            qkv = tuple(
                torch.cat(
                    [
                        clip[tensor][:, :, start : start + count]
                        for clip, start, count in zip(clips, starts, rows, strict=True)
                    ],
                    dim=2,
                )
                for tensor in range(3)
            )
            out = attend_cached(layer, qkv, cache, dict(zip(slots, rows, strict=True)))
            for index, part in enumerate(out.split(rows, dim=1)):
                outputs[index].append(part)
    for clip, clip_outputs in zip(clips, outputs, strict=True):
        torch.testing.assert_close(
            torch.cat(clip_outputs, dim=1), eager_attention(layer, clip), atol=2e-6, rtol=1e-5
        )
    assert [cache.length(slot) for slot in slots] == totals


def defined_varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    num_splits: int,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
) -> Tensor:
    """What torch's documentation says that its kernel computes, sequence by sequence."""
    assert num_splits == 1  # else a clip's sums depend on its neighbours
    assert enable_gqa == (query.shape[1] != key.shape[-2])
    layer = Layer(window_size == (-1, 0), query.shape[1] // key.shape[-2])
    outputs = []
    for index, (start, end) in enumerate(itertools.pairwise(cu_seq_q.tolist())):
        if block_table is None:
            assert cu_seq_k is not None
            k, v = (rows[cu_seq_k[index] : cu_seq_k[index + 1]] for rows in (key, value))
        else:
            assert seqused_k is not None
            assert block_table.dtype == seqused_k.dtype == torch.int32
            assert layer.is_causal
            count = int(seqused_k[index])
            k, v = (pool[block_table[index]].flatten(0, 1)[:count] for pool in (key, value))
        assert end - start <= max_q
        assert len(k) <= max_k
        qkv = tuple(rows.transpose(0, 1)[None] for rows in (query[start:end], k, v))
        outputs.append(eager_attention(layer, qkv, scale)[0])
    return torch.cat(outputs)


def test_torch_takes_the_arguments_of_one_call_for_all_clips() -> None:
    """Traced with a GPU's tensors that hold no numbers, in torch's own function."""
    with FakeTensorMode():
        query, key = (
            torch.empty(1, heads, 4, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2)
        )
        with pytest.MonkeyPatch.context() as monkeypatch:
            for module in (packed, kv_cache):  # pinned memory needs a driver
                monkeypatch.setattr(
                    module,
                    "to_device",
                    lambda values, dtype, device: torch.tensor(values, dtype=dtype, device=device),
                )
            monkeypatch.setattr(packed, "_can_use_varlen", lambda _: True)
            packed._offsets.cache_clear()
            cache = KeyValueCache(1, 2, 64, torch.bfloat16, torch.device("cuda"))
            slots = [cache.add(), cache.add()]
            for _ in range(2):
                with cache.extend(slots, [3, 1]) as cached:
                    packing = Packing((3, 1), cached)
                    out, _ = packed_attention(
                        Layer(True, 2), query, key, key, None, packing=packing, scaling=1
                    )
                assert out.shape == (1, 4, 4, 64)
            assert cached.block_table.shape == (2, 1)
            packed._offsets.cache_clear()


@pytest.mark.parametrize("is_causal", [True, False])
def test_other_clips_do_not_affect_the_result(is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Layer(is_causal)
    qkv = tuple(random_rows(generator, 2, 10) for _ in range(3))
    before = attend(layer, qkv, Packing((3, 4, 3)))
    other = tuple(rows.clone() for rows in qkv)
    for rows in other:
        rows[:, :, :3] = torch.nan
        rows[:, :, 7:] = 1e30
    after = attend(layer, other, Packing((3, 4, 3)))
    assert torch.equal(before[:, 3:7], after[:, 3:7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_causal_rows_do_not_attend_to_later_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = tuple(random_rows(generator, 2, 6) for _ in range(3))
    other = tuple(rows.clone() for rows in qkv)
    for rows in other:
        rows[:, :, 4:] += 1
    causal = [attend(Layer(True), each, Packing((6,)))[:, :4] for each in (qkv, other)]
    torch.testing.assert_close(*causal, atol=1e-6, rtol=0)
    full = [attend(Layer(False), each, Packing((6,)))[:, :4] for each in (qkv, other)]
    assert (full[0] - full[1]).abs().max() > 0.01


def test_a_pass_over_some_clips_of_a_cache() -> None:
    """As when generation of the others has ended: clip 2 and clip 0, in this order."""
    generator = torch.Generator().manual_seed(0)
    layer = Layer(True)
    cache = new_cache(2)
    a, b, c = cache.add(), cache.add(), cache.add()
    first = tuple(random_rows(generator, 2, 9) for _ in range(3))
    attend_cached(layer, first, cache, {a: 2, b: 3, c: 4})
    second = tuple(random_rows(generator, 2, 3) for _ in range(3))
    together = attend_cached(layer, second, cache, {c: 1, a: 2})
    assert [cache.length(slot) for slot in (a, b, c)] == [4, 3, 5]

    whole_c = tuple(
        torch.cat([a[:, :, 5:], b[:, :, :1]], dim=2) for a, b in zip(first, second, strict=True)
    )
    whole_a = tuple(
        torch.cat([a[:, :, :2], b[:, :, 1:]], dim=2) for a, b in zip(first, second, strict=True)
    )
    torch.testing.assert_close(together[:, :1], eager_attention(layer, whole_c)[:, 4:])
    torch.testing.assert_close(together[:, 1:], eager_attention(layer, whole_a)[:, 2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_one_row_reads_the_blocks_in_float32(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    """Of bfloat16 only keys, values and the result are rounded."""
    generator = torch.Generator().manual_seed(0)
    layer, cache = Layer(True), new_cache(heads[1], dtype)
    slot, past = cache.add(), 200  # four blocks
    groups = heads[0] // heads[1]
    q, k, v = (
        random_rows(generator, n, past + 1).to(dtype) for n in (heads[0], heads[1], heads[1])
    )
    attend_cached(layer, tuple(rows[:, :, :past] for rows in (q, k, v)), cache, {slot: past})
    row = attend_cached(layer, tuple(rows[:, :, past:] for rows in (q, k, v)), cache, {slot: 1})
    keys, values = (rows.repeat_interleave(groups, 1) for rows in (k, v))
    expected = float64_attention(q[:, :, past:], keys, values, SCALING)
    torch.testing.assert_close(
        row.transpose(1, 2).double(),
        expected,
        atol=1e-6,
        rtol=1e-5 if dtype is torch.float32 else 2**-8,  # half of bfloat16's last bit
    )


# bfloat16 on a CPU: matrix products instead of torch's fused kernel.


def float64_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention by its definition, in float64."""
    scores = query.double() @ key.double().transpose(-1, -2) * scaling
    return scores.softmax(-1) @ value.double()


@settings(max_examples=60)
@given(
    heads=st.integers(1, 9),
    rows=st.integers(1, 70),
    head_dim=st.sampled_from([1, 2, 5, 8, 16, 64]),
    scaling=st.sampled_from([1.0, 0.125, 0.7]),
    max_scores=st.sampled_from([1, 500, 5000, 1 << 21]),
    seed=seeds,
)
def test_matmul_attention_is_exact_up_to_bfloat16_rounding(
    heads: int, rows: int, head_dim: int, scaling: float, max_scores: int, seed: int
) -> None:
    """For any number of heads per step; bfloat16 rounds to 8 bits, and values are about 1."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, heads, rows, head_dim, generator=generator).bfloat16() for _ in range(3)
    )
    query_before = query.clone()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(packed, "_MAX_SCORES", max_scores)
        output = torch.full_like(query, torch.nan)
        packed._matmul_attention(query, key, value, scaling, output)
    assert torch.equal(query, query_before)
    expected = float64_attention(query, key, value, scaling)
    # Scores of size s have errors of s/256, so weights the same relative error; then value, output.
    largest = float((query.double() @ key.double().transpose(-1, -2) * scaling).abs().max())
    bound = (3 * largest + 4) / 256 * float(value.abs().max())
    assert float((output.double() - expected).abs().max()) <= bound
    fused = scaled_dot_product_attention(query, key, value, scale=scaling).double()
    rms_error, fused_rms_error = (
        float((each - expected).pow(2).mean().sqrt()) for each in (output.double(), fused)
    )
    assert rms_error <= 4 * fused_rms_error + 0.01


@settings(max_examples=25)
@given(lengths, st.booleans(), seeds)
def test_packed_bfloat16_clips_equal_single_clips(
    clips: list[int], is_causal: bool, seed: int
) -> None:
    """Bit for bit: each clip has its own matrix products."""
    generator = torch.Generator().manual_seed(seed)
    layer = Layer(is_causal)
    qkv = tuple(random_rows(generator, 4, sum(clips)).bfloat16() for _ in range(3))
    packed_output = attend(layer, qkv, Packing(tuple(clips)))
    single = [
        attend(layer, clip, Packing((clip[0].shape[2],)))
        for clip in zip(*(rows.split(clips, dim=2) for rows in qkv), strict=True)
    ]
    assert torch.equal(packed_output, torch.cat(single, dim=1))


def test_only_bidirectional_bfloat16_uses_matmul_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes: list[torch.dtype] = []
    original = packed._matmul_attention

    def recording(query: Tensor, *rest: Any) -> None:
        dtypes.append(query.dtype)
        original(query, *rest)

    monkeypatch.setattr(packed, "_matmul_attention", recording)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for is_causal in (True, False):
            qkv = tuple(random_rows(generator, 2, 5).to(dtype) for _ in range(3))
            attend(Layer(is_causal), qkv, Packing((5,)))
    assert dtypes == [torch.bfloat16]


def test_lengths_must_add_up_to_the_rows() -> None:
    qkv = tuple(random_rows(torch.Generator().manual_seed(0), 1, 4) for _ in range(3))
    with pytest.raises(RuntimeError, match="split"):
        attend(Layer(True), qkv, Packing((3,)))


def test_the_attention_function_is_registered() -> None:
    assert AttentionInterface()[ATTENTION] is packed_attention


# Batches.


@pytest.mark.slow
@given(st.lists(st.integers(0, 20)), st.integers(0, 30))
def test_batches_contain_every_item_within_the_budget(sizes: list[int], budget: int) -> None:
    items = list(enumerate(sizes))
    batches = list(batch_by_size(iter(items), lambda item: [item[1]], [budget]))
    assert [item for batch in batches for item in batch] == items
    assert all(batches)
    for batch in batches:
        assert len(batch) == 1 or sum(size for _, size in batch) <= budget
    for left, right in itertools.pairwise(batches):  # no batch could have been larger
        assert sum(size for _, size in left) + right[0][1] > budget


def test_batches_are_lazy() -> None:
    """A batch is returned as soon as the next item doesn't fit: the stream may be endless."""
    consumed: list[int] = []

    def endless() -> Any:
        for number in range(10**9):
            consumed.append(number)
            yield number

    assert next(batch_by_size(endless(), lambda _: [1], [3])) == [0, 1, 2]
    assert consumed == [0, 1, 2, 3]


def test_attention_in_a_sliding_window_is_refused() -> None:
    """transformers' layers pass it to every attention function: ignored, numbers would be wrong."""
    rows = torch.zeros(1, 1, 4, 2)
    module = torch.nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    options: dict[str, Any] = {"packing": Packing((4,)), "scaling": 1.0}
    packed_attention(module, rows, rows, rows, None, sliding_window=None, **options)
    with pytest.raises(ValueError, match="sliding_window=3"):
        packed_attention(module, rows, rows, rows, None, sliding_window=3, **options)


@pytest.mark.parametrize("in_one_call", [False, True])
@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_rows_of_a_tree_attend_to_their_ancestors(
    heads: tuple[int, int], past: int, in_one_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as the last row of a sequence of its own, whose rows are the same; two of three clips
    end with a tree, and the rows before it don't see it."""
    query_heads, key_heads = heads
    generator = torch.Generator().manual_seed(0)
    layer, cache = Layer(True, query_heads // key_heads, layer_idx=1), new_cache(key_heads)
    trees, chains = ((-1, 0, 0, -1, 3, 1), (), (-1, -1)), (4, 5, 1)
    lengths = [chain + len(tree) for chain, tree in zip(chains, trees, strict=True)]
    slots = [cache.add() for _ in lengths]
    before = [
        tuple(random_rows(generator, n, past) for n in (query_heads, key_heads, key_heads))
        for _ in lengths
    ]
    now = [
        tuple(random_rows(generator, n, length) for n in (query_heads, key_heads, key_heads))
        for length in lengths
    ]
    if in_one_call:  # as on a GPU
        monkeypatch.setattr(packed, "_can_use_varlen", lambda _: True)
        monkeypatch.setattr(varlen, "varlen_attn", defined_varlen_attention)

    def joined(clips: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        return tuple(torch.cat(rows, dim=2) for rows in zip(*clips, strict=True))

    if past:
        attend_cached(layer, joined(before), cache, dict.fromkeys(slots, past))
    with cache.extend(slots, lengths) as cached:
        out = attend(layer, joined(now), Packing(tuple(lengths), cached, trees))
    for clip, output in enumerate(out.split(lengths, dim=1)):
        whole = joined([before[clip], now[clip]])
        chain, tree = chains[clip], trees[clip]
        for row in range(lengths[clip]):
            path, node = [row], row - chain
            while node >= 0 and tree[node] >= 0:
                node = tree[node]
                path.insert(0, chain + node)
            first = min(row, chain)
            rows = [*range(past + first), *(past + each for each in path)]
            sequence = tuple(each[:, :, rows] for each in whole)
            expected = eager_attention(layer, sequence)[:, -1]
            torch.testing.assert_close(output[:, row], expected, atol=2e-6, rtol=1e-5)
