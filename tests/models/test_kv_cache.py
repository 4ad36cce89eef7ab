"""The key/value cache: slots against plain tensors, blocks that are shared and used again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from qwen_audio.models import kv_cache
from qwen_audio.models.kv_cache import KeyValueCache, common_prefix_length

HEADS, HEAD_DIM, LAYERS = 2, 4, 2


def new_cache() -> KeyValueCache:
    return KeyValueCache(LAYERS, HEADS, HEAD_DIM, torch.float32, torch.device("cpu"))


def write(cache: KeyValueCache, rows: dict[int, Tensor]) -> None:
    """One pass that writes rows, (heads, rows, head_dim), to slots; values are −keys + layer."""
    cache_pass = cache.begin_pass(list(rows), [part.shape[1] for part in rows.values()])
    keys = torch.cat(list(rows.values()), dim=1)[None]
    for layer in range(LAYERS):
        cache_pass.write(layer, keys + layer, layer - keys)
    cache.end_pass(cache_pass)


def read(cache: KeyValueCache, slot: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, (heads, positions, head_dim)."""
    cache_pass = cache.begin_pass([slot], [0])
    if not cache.length(slot):
        return [(torch.empty(HEADS, 0, HEAD_DIM),) * 2] * LAYERS
    pairs = (cache_pass.gather(layer, 0) for layer in range(LAYERS))
    return [(keys[0], values[0]) for keys, values in pairs]


class CacheMachine(RuleBasedStateMachine):
    """Slots do what a dict of tensors does, however blocks are shared."""

    @initialize(block=st.sampled_from([1, 3, 4]))
    def begin(self, block: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(kv_cache, "block_positions", lambda _: block)
        self.cache = new_cache()
        self.expected: dict[int, Tensor] = {}
        self.written = 0

    def teardown(self) -> None:
        self.patch.undo()

    def slot(self, choice: int) -> int:
        return sorted(self.expected)[choice % len(self.expected)]

    def rows(self, count: int) -> Tensor:
        start, self.written = self.written, self.written + count
        numbers = torch.arange(start, self.written, dtype=torch.float32)
        return numbers[None, :, None].expand(HEADS, count, HEAD_DIM)

    @precondition(lambda self: len(self.expected) < 6)
    @rule()
    def add(self) -> None:
        self.expected[self.cache.add()] = torch.empty(HEADS, 0, HEAD_DIM)

    @precondition(lambda self: self.expected)
    @rule(choices=st.lists(st.integers(0, 5), min_size=1, max_size=3), counts=st.integers(1, 7))
    def extend(self, choices: list[int], counts: int) -> None:
        slots = dict.fromkeys(map(self.slot, choices))
        rows = {slot: self.rows(counts + number) for number, slot in enumerate(slots)}
        write(self.cache, rows)
        for slot, part in rows.items():
            self.expected[slot] = torch.cat([self.expected[slot], part], dim=1)

    @precondition(lambda self: self.expected)
    @rule(choice=st.integers(0, 5), count=st.integers(1, 4))
    def fail(self, choice: int, count: int) -> None:
        """A pass that ends before its last layer leaves no positions."""
        cache_pass = self.cache.begin_pass([self.slot(choice)], [count])
        rows = torch.full((1, HEADS, count, HEAD_DIM), torch.nan)
        cache_pass.write(0, rows, rows)

    @precondition(lambda self: self.expected)
    @rule(choice=st.integers(0, 5), length=st.integers(0, 12))
    def truncate(self, choice: int, length: int) -> None:
        slot = self.slot(choice)
        self.cache.truncate(slot, length)
        self.expected[slot] = self.expected[slot][:, :length]

    @precondition(lambda self: 0 < len(self.expected) < 6)
    @rule(choice=st.integers(0, 5), length=st.integers(0, 12))
    def fork(self, choice: int, length: int) -> None:
        slot = self.slot(choice)
        self.expected[self.cache.fork(slot, length)] = self.expected[slot][:, :length]

    @precondition(lambda self: self.expected)
    @rule(choice=st.integers(0, 5), length=st.integers(0, 20))
    def reserve(self, choice: int, length: int) -> None:
        self.cache.reserve({self.slot(choice): length})

    @precondition(lambda self: self.expected)
    @rule(choice=st.integers(0, 5))
    def release(self, choice: int) -> None:
        slot = self.slot(choice)
        self.cache.release(slot)
        del self.expected[slot]

    @invariant()
    def slots_hold_what_was_written(self) -> None:
        for slot, keys in self.expected.items():
            assert self.cache.length(slot) == keys.shape[1]
            for layer, (read_keys, values) in enumerate(read(self.cache, slot)):
                assert torch.equal(read_keys, keys + layer)
                assert torch.equal(values, layer - keys)
        if not self.expected:
            assert self.cache.reserved_positions == 0


CacheMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
test_slots_do_what_tensors_do = pytest.mark.slow(CacheMachine.TestCase)


def test_a_fork_shares_all_blocks_but_the_one_that_is_begun() -> None:
    cache = new_cache()
    slot = cache.add()
    size = cache.block_positions
    write(cache, {slot: torch.randn(HEADS, 3 * size, HEAD_DIM)})
    fork = cache.fork(slot, 2 * size + 1)
    assert cache.blocks(fork)[:2] == cache.blocks(slot)[:2]
    assert cache.blocks(fork)[2] != cache.blocks(slot)[2]
    assert cache.reserved_positions == 4 * size


def test_blocks_are_used_again() -> None:
    cache = new_cache()
    staying = cache.add()
    write(cache, {staying: torch.randn(HEADS, 10, HEAD_DIM)})
    for _ in range(20):
        slot = cache.add()
        write(cache, {slot: torch.randn(HEADS, 100, HEAD_DIM)})
        cache.release(slot)
    assert cache.reserved_positions == 3 * cache.block_positions
    cache.release(staying)
    assert cache.reserved_positions == 0


def test_memory_that_ends_while_it_grows_leaves_the_cache_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = new_cache()
    slot = cache.add()
    rows = torch.randn(HEADS, 10, HEAD_DIM)
    write(cache, {slot: rows})
    new_blocks, calls = KeyValueCache._new_blocks, iter(range(9))

    def fail_at_the_third(self: KeyValueCache, count: int) -> Any:
        if next(calls) == 2:
            raise MemoryError
        return new_blocks(self, count)

    with monkeypatch.context() as patch:
        patch.setattr(KeyValueCache, "_new_blocks", fail_at_the_third)
        with pytest.raises(MemoryError):
            cache.reserve({slot: 1000})
    assert torch.equal(read(cache, slot)[1][0], rows + 1)
    write(cache, {slot: torch.randn(HEADS, 1000, HEAD_DIM)})
    assert torch.equal(read(cache, slot)[1][0][:, :10], rows + 1)


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix(shared: list[int], left: list[int], right: list[int]) -> None:
    a, b = [*shared, *left], (*shared, *right)
    length = common_prefix_length(a, b)
    assert len(shared) <= length <= min(len(a), len(b))
    assert list(b[:length]) == a[:length]
    assert length in (len(a), len(b)) or a[length] != b[length]
