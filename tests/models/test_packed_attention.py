"""Packed attention against transformers' plain eager attention, one clip at a time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

from qwen_audio.inference.batching import batch_by_size
from qwen_audio.models import packed_attention as packed
from qwen_audio.models.kv_cache import KeyValueCache, common_prefix_length
from qwen_audio.models.packed_attention import ATTENTION, Packing, packed_attention

HEAD_DIM, SCALING = 8, 0.4


class Layer(nn.Module):
    """What an attention function asks of the layer that calls it."""

    def __init__(self, is_causal: bool, groups: int = 1, layer_idx: int = 0) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups, self.layer_idx = is_causal, groups, layer_idx
        self.eval()


def random_rows(generator: torch.Generator, heads: int, rows: int) -> Tensor:
    return torch.randn(1, heads, rows, HEAD_DIM, generator=generator)


def attend(layer: Layer, parts: tuple[Tensor, ...], packing: Packing) -> Tensor:
    query, key, value = parts
    out, weights = packed_attention(
        layer, query, key, value, None, packing=packing, scaling=SCALING, dropout=0.0
    )
    assert weights is None
    assert out.shape == (1, query.shape[2], query.shape[1], HEAD_DIM)
    return out


def eager(layer: Layer, parts: tuple[Tensor, ...]) -> Tensor:
    query, key, value = parts
    rows, all_rows = query.shape[2], key.shape[2]
    mask = torch.zeros(rows, all_rows)
    if layer.is_causal:
        later = torch.arange(all_rows)[None] > torch.arange(all_rows - rows, all_rows)[:, None]
        mask[later] = -torch.inf
    out, _ = eager_attention_forward(layer, query, key, value, mask[None, None], scaling=SCALING)
    return out


heads = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)])
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


@settings(max_examples=30)
@given(lengths, heads, st.booleans(), seeds)
def test_each_clip_attends_as_it_would_alone(
    clips: list[int], heads: tuple[int, int], is_causal: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_heads, key_heads = heads
    layer = Layer(is_causal, query_heads // key_heads)
    parts = tuple(
        random_rows(generator, n, sum(clips)) for n in (query_heads, key_heads, key_heads)
    )
    packed = attend(layer, parts, Packing(tuple(clips)))
    alone = [
        eager(layer, clip) for clip in zip(*(p.split(clips, dim=2) for p in parts), strict=True)
    ]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), atol=2e-6, rtol=1e-5)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=3, max_size=3), min_size=1, max_size=4),
    heads,
    seeds,
)
def test_reading_in_steps_is_reading_at_once(
    steps: list[list[int]], heads: tuple[int, int], seed: int
) -> None:
    """Three clips, each step some more rows of each, of any number, a cache between."""
    generator = torch.Generator().manual_seed(seed)
    query_heads, key_heads = heads
    layer = Layer(True, query_heads // key_heads, layer_idx=1)
    totals = [sum(rows) for rows in zip(*steps, strict=True)]
    clips = [
        tuple(random_rows(generator, n, total) for n in (query_heads, key_heads, key_heads))
        for total in totals
    ]
    cache = KeyValueCache(2, 3)
    read = [0, 0, 0]
    outputs: list[list[Tensor]] = [[], [], []]
    for rows in steps:
        parts = tuple(
            torch.cat(
                [clip[p][:, :, at : at + n] for clip, at, n in zip(clips, read, rows, strict=True)],
                dim=2,
            )
            for p in range(3)
        )
        packed = attend(layer, parts, Packing(tuple(rows), cache))
        for place, out in enumerate(packed.split(rows, dim=1)):
            outputs[place].append(out)
        read = [at + n for at, n in zip(read, rows, strict=True)]
    for clip, parts_read in zip(clips, outputs, strict=True):
        torch.testing.assert_close(
            torch.cat(parts_read, dim=1), eager(layer, clip), atol=2e-6, rtol=1e-5
        )
    assert cache.length(0) == 0  # that is layer 0, which has read nothing
    for place, total in enumerate(totals):
        key, _ = cache.append(1, place, *(clips[place][1][:, :, :0] for _ in range(2)))
        assert key.shape[2] == total


@pytest.mark.parametrize("is_causal", [True, False])
def test_neighbours_do_not_matter(is_causal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = Layer(is_causal)
    parts = tuple(random_rows(generator, 2, 10) for _ in range(3))
    before = attend(layer, parts, Packing((3, 4, 3)))
    other = tuple(part.clone() for part in parts)
    for part in other:
        part[:, :, :3] = torch.nan
        part[:, :, 7:] = 1e30
    after = attend(layer, other, Packing((3, 4, 3)))
    assert torch.equal(before[:, 3:7], after[:, 3:7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_causal_rows_see_nothing_later() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = tuple(random_rows(generator, 2, 6) for _ in range(3))
    other = tuple(part.clone() for part in parts)
    for part in other:
        part[:, :, 4:] += 1
    causal = [attend(Layer(True), each, Packing((6,)))[:, :4] for each in (parts, other)]
    torch.testing.assert_close(*causal, atol=1e-6, rtol=0)
    full = [attend(Layer(False), each, Packing((6,)))[:, :4] for each in (parts, other)]
    assert (full[0] - full[1]).abs().max() > 0.01


def test_some_of_a_caches_clips_may_be_read_alone() -> None:
    """As when others have finished their answers: clip 2 and clip 0, in this order."""
    generator = torch.Generator().manual_seed(0)
    layer = Layer(True)
    cache = KeyValueCache(1, 3)
    first = tuple(random_rows(generator, 2, 9) for _ in range(3))
    attend(layer, first, Packing((2, 3, 4), cache))
    second = tuple(random_rows(generator, 2, 3) for _ in range(3))
    packed = attend(layer, second, Packing((1, 2), cache, cache_indices=(2, 0)))
    assert [cache.length(clip) for clip in range(3)] == [4, 3, 5]

    whole_2 = tuple(
        torch.cat([a[:, :, 5:], b[:, :, :1]], dim=2) for a, b in zip(first, second, strict=True)
    )
    whole_0 = tuple(
        torch.cat([a[:, :, :2], b[:, :, 1:]], dim=2) for a, b in zip(first, second, strict=True)
    )
    torch.testing.assert_close(packed[:, :1], eager(layer, whole_2)[:, 4:])
    torch.testing.assert_close(packed[:, 1:], eager(layer, whole_0)[:, 2:])


def test_the_encoder_leaves_a_cache_alone() -> None:
    cache = KeyValueCache(1, 1)
    parts = tuple(random_rows(torch.Generator().manual_seed(0), 1, 4) for _ in range(3))
    attend(Layer(False), parts, Packing((4,), cache))
    assert cache.length(0) == 0


# bfloat16 on a processor: plain products in place of torch's fused kernel.


def exact(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Attention as it is written, in float64."""
    scores = query.double() @ key.double().transpose(-1, -2) * scaling
    return scores.softmax(-1) @ value.double()


@settings(max_examples=60)
@given(
    heads=st.integers(1, 9),
    rows=st.integers(1, 70),
    head_dim=st.sampled_from([1, 2, 5, 8, 16, 64]),
    scaling=st.sampled_from([1.0, 0.125, 0.7]),
    at_once=st.sampled_from([1, 500, 5000, 1 << 21]),
    seed=seeds,
)
def test_plain_products_are_attention_to_bfloat16s_rounding(
    heads: int, rows: int, head_dim: int, scaling: float, at_once: int, seed: int
) -> None:
    """However many heads are taken at once; each rounding is of 8 bits, of numbers about 1."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, heads, rows, head_dim, generator=generator).bfloat16() for _ in range(3)
    )
    given_query = query.clone()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(packed, "_MAX_SCORES", at_once)
        ours = torch.full_like(query, torch.nan)
        packed._matmul_attention(query, key, value, scaling, ours)
    assert torch.equal(query, given_query)
    theirs = exact(query, key, value, scaling)
    # Scores of size s are off by s/256, and so are weights, relatively; then value and output.
    largest = float((query.double() @ key.double().transpose(-1, -2) * scaling).abs().max())
    bound = (3 * largest + 4) / 256 * float(value.abs().max())
    assert float((ours.double() - theirs).abs().max()) <= bound
    fused = scaled_dot_product_attention(query, key, value, scale=scaling).double()
    off, usual = (float((each - theirs).pow(2).mean().sqrt()) for each in (ours.double(), fused))
    assert off <= 4 * usual + 0.01


@settings(max_examples=25)
@given(lengths, st.booleans(), seeds)
def test_bfloat16_clips_attend_as_they_would_alone(
    clips: list[int], is_causal: bool, seed: int
) -> None:
    """To the last bit: a clip's products are its own."""
    generator = torch.Generator().manual_seed(seed)
    layer = Layer(is_causal)
    parts = tuple(random_rows(generator, 4, sum(clips)).bfloat16() for _ in range(3))
    together = attend(layer, parts, Packing(tuple(clips)))
    alone = [
        attend(layer, clip, Packing((clip[0].shape[2],)))
        for clip in zip(*(part.split(clips, dim=2) for part in parts), strict=True)
    ]
    assert torch.equal(together, torch.cat(alone, dim=1))


def test_only_bfloat16_in_the_ear_takes_plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.dtype] = []
    by_heads = packed._matmul_attention

    def watched(query: Tensor, *rest: Any) -> None:
        taken.append(query.dtype)
        by_heads(query, *rest)

    monkeypatch.setattr(packed, "_matmul_attention", watched)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        for is_causal in (True, False):
            parts = tuple(random_rows(generator, 2, 5).to(dtype) for _ in range(3))
            attend(Layer(is_causal), parts, Packing((5,)))
    assert taken == [torch.bfloat16]


def test_lengths_are_the_rows() -> None:
    parts = tuple(random_rows(torch.Generator().manual_seed(0), 1, 4) for _ in range(3))
    with pytest.raises(RuntimeError, match="split"):
        attend(Layer(True), parts, Packing((3,)))


def test_transformers_finds_it_by_name() -> None:
    assert AttentionInterface()[ATTENTION] is packed_attention


# The cache.


def filled_cache() -> tuple[KeyValueCache, Tensor]:
    rows = random_rows(torch.Generator().manual_seed(0), 2, 6)
    cache = KeyValueCache(2, 2)
    for layer in range(2):
        cache.append(layer, 1, rows + layer, -rows - layer)
    return cache, rows


def test_a_cache_holds_each_clip_and_layer_apart() -> None:
    cache, rows = filled_cache()
    assert (cache.length(0), cache.length(1)) == (0, 6)
    for layer in range(2):
        key, value = cache.append(layer, 1, rows[:, :, :2], rows[:, :, 2:4])
        assert torch.equal(key, torch.cat([rows + layer, rows[:, :, :2]], dim=2))
        assert torch.equal(value, torch.cat([-rows - layer, rows[:, :, 2:4]], dim=2))
    assert (cache.length(0), cache.length(1)) == (0, 8)


@pytest.mark.parametrize("rows_kept", [0, 1, 4, 6])
def test_a_cut_cache_goes_its_own_way(rows_kept: int) -> None:
    cache, rows = filled_cache()
    cut = cache.truncated(1, rows_kept)
    assert cut.length(0) == rows_kept
    more = torch.ones(1, 2, 3, HEAD_DIM)
    for layer in range(2):
        key, value = cut.append(layer, 0, more, 2 * more)
        assert torch.equal(key, torch.cat([rows[:, :, :rows_kept] + layer, more], dim=2))
        assert torch.equal(value, torch.cat([-rows[:, :, :rows_kept] - layer, 2 * more], dim=2))
    assert cache.length(1) == 6
    key, _ = cache.append(0, 1, more, more)
    assert torch.equal(key[:, :, :6], rows)


def test_cutting_copies_nothing() -> None:
    cache, _ = filled_cache()
    key, _ = cache.append(0, 1, *(torch.ones(1, 2, 1, HEAD_DIM),) * 2)
    part, _ = cache.truncated(1, 3).truncated(0, 2)._layers[0][0] or (None, None)
    assert part is not None
    assert part.data_ptr() == key.data_ptr()


def test_cutting_what_has_not_been_read() -> None:
    assert filled_cache()[0].truncated(0, 3).length(0) == 0
    assert KeyValueCache(0, 1).length(0) == 0


# Batches.


@given(st.lists(st.integers(0, 20)), st.integers(0, 30))
def test_batches_keep_every_item_within_the_budget(sizes: list[int], budget: int) -> None:
    items = list(enumerate(sizes))
    made = list(batch_by_size(iter(items), lambda item: item[1], budget))
    assert [item for batch in made for item in batch] == items
    assert all(made)
    for batch in made:
        assert len(batch) == 1 or sum(size for _, size in batch) <= budget
    for left, right in itertools.pairwise(made):  # none could have been begun later
        assert sum(size for _, size in left) + right[0][1] > budget


def test_batches_are_made_as_they_are_asked_for() -> None:
    """Of an endless stream the first batch is there as soon as the next item would not fit."""
    taken: list[int] = []

    def endless() -> Any:
        for number in range(10**9):
            taken.append(number)
            yield number

    assert next(batch_by_size(endless(), lambda _: 1, 3)) == [0, 1, 2]
    assert taken == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix(shared: list[int], left: list[int], right: list[int]) -> None:
    a, b = [*shared, *left], (*shared, *right)
    length = common_prefix_length(a, b)
    assert len(shared) <= length <= min(len(a), len(b))
    assert list(b[:length]) == a[:length]
    assert length in (len(a), len(b)) or a[length] != b[length]
