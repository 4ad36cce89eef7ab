"""The key/value cache, against plain lists of what was written to each slot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen_audio.models import kv_cache
from qwen_audio.models.kv_cache import KeyValueCache, common_prefix_length

LAYERS, BLOCK = 2, 3


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(kv_cache, "block_positions", lambda _: BLOCK)
        yield


def new_cache() -> KeyValueCache:
    return KeyValueCache(LAYERS, 1, 1, torch.float32, torch.device("cpu"))


def write(cache: KeyValueCache, numbers: dict[int, list[float]], *, fails: bool = False) -> None:
    """One pass that writes numbers as the keys of each slot's next positions."""
    keys = torch.tensor([float(number) for each in numbers.values() for number in each])
    keys = keys.view(1, 1, -1, 1)
    lengths = [len(each) for each in numbers.values()]
    with suppress(InterruptedError), cache.extend(list(numbers), lengths) as cached:
        for layer in range(LAYERS):
            cached.write(layer, keys + layer, -keys - layer)
            if fails:
                raise InterruptedError


def read(cache: KeyValueCache, slot: int) -> list[float]:
    """What was written, from the keys of layer 0, after a check of all others."""
    rows: list[Tensor] = []
    with cache.extend([slot], [0]) as cached:
        pass
    for layer in range(LAYERS):
        for keys, values in cached.runs(layer, 0):
            assert torch.equal(keys, -values)
            if layer == 0:
                rows.append(keys.flatten())
        if cache.length(slot):
            keys, values = cached.gather(layer, 0)
            assert torch.equal(keys.flatten(), torch.cat(rows) + layer)
            assert torch.equal(keys, -values)
    return torch.cat(rows).tolist() if rows else []


def blocks_of(positions: int) -> int:
    return -(-positions // BLOCK)


FIRST = [("add", 0, 0), ("write", 0, 4), ("write", 0, 4), ("fork", 0, 7)]
"""Two slots that share blocks, and a begun one that they must not share."""
operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "fork", "truncate", "release", "reserve", "write", "fail"]),
        st.integers(0, 3),
        st.integers(0, 8),
    ),
    max_size=25,
)


@settings(max_examples=25)
@given(operations)
def test_a_slot_holds_what_was_written_to_it_whatever_others_do(
    operations: list[tuple[str, int, int]],
) -> None:
    cache, written, number = new_cache(), dict[int, list[float]](), 0.0
    for name, choice, length in [*FIRST, *operations]:
        if name == "add" or not written:
            written[cache.add()] = []
            continue
        slot = list(written)[choice % len(written)]
        if name == "fork":
            written[cache.fork(slot, length)] = written[slot][:length]
        elif name == "truncate":
            cache.truncate(slot, length)
            written[slot] = written[slot][:length]
        elif name == "release":
            cache.release(slot)
            del written[slot]
        elif name == "reserve":
            cache.reserve({slot: length})
        else:  # all slots, in one pass
            rows = [(each, (length + place) % 5) for place, each in enumerate(written)]
            numbers = {each: [number := number + 1 for _ in range(count)] for each, count in rows}
            write(cache, numbers, fails=name == "fail")
            if name == "write":
                written = {each: written[each] + numbers[each] for each in written}
        for each, expected in written.items():
            assert cache.length(each) == len(expected)
            assert read(cache, each) == expected
            begun = cache.blocks(each)[len(expected) // BLOCK :]
            assert all(cache._uses[block] == 1 for block in begun)  # where it will write
    for slot in written:
        cache.release(slot)
    assert cache.reserved_positions == 0
    assert not cache._uses


def test_a_fork_shares_full_blocks_and_copies_the_begun_one() -> None:
    cache = new_cache()
    slot = cache.add()
    write(cache, {slot: [1, 2, 3, 4, 5, 6, 7]})
    fork = cache.fork(slot, 5)
    assert cache.blocks(fork)[0] == cache.blocks(slot)[0]
    assert cache.blocks(fork)[1] != cache.blocks(slot)[1]
    write(cache, {fork: [8, 9], slot: [10]})
    assert read(cache, fork) == [1, 2, 3, 4, 5, 8, 9]
    assert read(cache, slot) == [1, 2, 3, 4, 5, 6, 7, 10]
    cache.truncate(slot, 2)  # into a block that the fork reads
    write(cache, {slot: [11]})
    assert read(cache, fork) == [1, 2, 3, 4, 5, 8, 9]
    assert read(cache, slot) == [1, 2, 11]
    assert cache.fork(slot, 99) == fork + 1
    assert read(cache, fork + 1) == [1, 2, 11]


def test_blocks_are_used_again() -> None:
    """Texts that come and go: there is memory for as many as there are at once."""
    cache = new_cache()
    waiting = [cache.add(), cache.add()]
    write(cache, {slot: [1, 2, 3, 4] for slot in waiting})
    for round_ in range(20):
        slot = cache.add()
        cache.reserve({slot: 7})
        write(cache, {slot: [round_] * 7})
        cache.release(waiting.pop(0))
        waiting.append(slot)
    assert cache.reserved_positions == 3 * BLOCK * blocks_of(7)
    pools = cache.pool(0)[0].data_ptr()
    cache.reserve({waiting[0]: 7})
    assert cache.pool(0)[0].data_ptr() == pools
    for slot in waiting:
        cache.release(slot)
    assert cache.reserved_positions == cache.pool(0)[0].numel() == 0


def test_positions_are_reserved_for_all_at_once() -> None:
    cache = new_cache()
    slots = [cache.add() for _ in range(3)]
    cache.reserve(dict.fromkeys(slots, 7))
    pool = cache.pool(1)[1].data_ptr()
    for number in range(7):
        write(cache, {slot: [number] for slot in slots})
    assert cache.pool(1)[1].data_ptr() == pool
    assert cache.reserved_positions == 3 * BLOCK * blocks_of(7)


@pytest.mark.parametrize("allocation", range(2 * LAYERS))
def test_memory_that_ends_while_the_cache_grows(
    allocation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = new_cache()
    slot = cache.add()
    write(cache, {slot: [1, 2, 3, 4]})
    allocate, left = cache._new_blocks, allocation

    def limited(count: int) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise torch.OutOfMemoryError
        return allocate(count)

    monkeypatch.setattr(cache, "_new_blocks", limited)
    actions: list[Any] = [
        lambda: cache.fork(slot, 4),
        lambda: write(cache, {slot: [9] * 30}),
        lambda: cache.reserve({slot: 40}),
    ]
    for action in actions:
        left = allocation
        with pytest.raises(torch.OutOfMemoryError):
            action()
        assert read(cache, slot) == [1, 2, 3, 4]
    monkeypatch.undo()
    write(cache, {slot: [5, 6, 7]})
    assert read(cache, slot) == [1, 2, 3, 4, 5, 6, 7]
    cache.release(slot)
    assert cache.reserved_positions == 0


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix(shared: list[int], left: list[int], right: list[int]) -> None:
    a, b = [*shared, *left], (*shared, *right)
    length = common_prefix_length(a, b)
    assert len(shared) <= length <= min(len(a), len(b))
    assert list(b[:length]) == a[:length]
    assert length in (len(a), len(b)) or a[length] != b[length]
