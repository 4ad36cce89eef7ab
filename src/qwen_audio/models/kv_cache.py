"""Key/value cache of the decoder: many sequences, in blocks of positions, written in place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen_audio.weights.device import to_device

__all__ = ["CachePass", "KeyValueCache", "block_positions", "common_prefix_length"]


def block_positions(device: torch.device) -> int:
    """Positions in a block of a cache.

    Flash attention takes blocks of 256, or a multiple. On a CPU they are smaller, as those of a
    short text are filled in part: 34 MB of the 7B in 16 bits with 64.
    """
    return 256 if device.type == "cuda" else 64


_RUN_POSITIONS = 256
"""Read at a time by a single row's attention on a CPU: with fewer, threads wait for each other more
often; with more, they leave the cache in float32. Of 801 positions of 32 heads of 128 it takes 2.1
ms with 64, 1.8 with 256 and 2.2 with all, on one core."""


class KeyValueCache:
    """Keys and values of every layer, of sequences that come and go.

    A sequence has a slot: its blocks, in order, and how many of their positions are filled. A block
    is of all layers, and may belong to several slots: `fork` copies at most one. No slot writes to
    a block that another reads.

    Args:
        layers, heads, head_dim: of the decoder; heads are those of keys and values.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.block_positions = block_positions(device)
        self._shape = (self.block_positions, heads, head_dim)
        self._dtype, self._device = dtype, device
        empty = self._new_blocks(0)
        # One tensor of all blocks for keys and one for values in each layer, as flash attention
        # takes them.
        self._layers = [(empty, empty) for _ in range(layers)]
        self._capacity = 0
        self._blocks: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._uses: Counter[int] = Counter()
        self._slot_numbers = itertools.count()

    @property
    def reserved_positions(self) -> int:
        """Positions that there is memory for."""
        return self._capacity * self.block_positions

    def add(self) -> int:
        """A new slot, without positions."""
        slot = next(self._slot_numbers)
        self._blocks[slot], self._lengths[slot] = [], 0
        return slot

    def release(self, slot: int) -> None:
        """Remove a slot; its blocks are used again, and freed with the last slot."""
        self._uses -= Counter(self._blocks.pop(slot))
        del self._lengths[slot]
        if not self._blocks:
            self._capacity = 0
            empty = self._new_blocks(0)
            self._layers = [(empty, empty) for _ in self._layers]

    def length(self, slot: int) -> int:
        """Number of positions of a slot."""
        return self._lengths[slot]

    def fork(self, slot: int, length: int) -> int:
        """A new slot with the first `length` positions of another, which it shares."""
        length = min(length, self._lengths[slot])
        begun = self._copy_begun_block(slot, length)
        shared = self._blocks[slot][: length // self.block_positions]
        self._uses.update(shared)
        new = self.add()
        self._blocks[new], self._lengths[new] = shared + begun, length
        return new

    def truncate(self, slot: int, length: int) -> None:
        """Forget the positions of a slot from `length` on. Blocks that it reserved stay."""
        length = min(length, self._lengths[slot])
        blocks, full = self._blocks[slot], length // self.block_positions
        # Where the next position will be written. The blocks after one that no other slot reads
        # are no other slot's, either.
        if any(self._uses[block] > 1 for block in blocks[full : full + 1]):
            begun = self._copy_begun_block(slot, length)
            self._uses -= Counter(blocks[full:])
            blocks[full:] = begun
        self._lengths[slot] = length

    def reserve(self, lengths: Mapping[int, int]) -> None:
        """Provide blocks for so many positions of each slot, past ones included."""
        missing = {
            slot: max(0, -(-length // self.block_positions) - len(self._blocks[slot]))
            for slot, length in lengths.items()
        }
        blocks = iter(self._take_blocks(sum(missing.values())))
        for slot, count in missing.items():
            self._blocks[slot] += itertools.islice(blocks, count)

    @contextmanager
    def extend(self, slots: Sequence[int], lengths: Sequence[int]) -> Iterator[CachePass]:
        """Places for the rows of a pass over packed sequences: `lengths` rows of each slot.

        They are positions afterwards, written in every layer; none is where the pass fails.
        """
        starts = tuple(self._lengths[slot] for slot in slots)
        cache_pass = CachePass(self, tuple(slots), starts, tuple(lengths))
        ends = dict(zip(slots, cache_pass.ends, strict=True))
        self.reserve(ends)
        yield cache_pass
        self._lengths |= ends

    def blocks(self, slot: int) -> Sequence[int]:
        """The numbers of a slot's blocks, in the order of its positions."""
        return self._blocks[slot]

    def pool(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and all values of a layer, (blocks, positions, heads, head_dim) each."""
        return self._layers[layer]

    def _copy_begun_block(self, slot: int, length: int) -> list[int]:
        """A copy of a slot's block that its first `length` positions fill in part, if any."""
        full, begun = divmod(length, self.block_positions)
        copies = self._take_blocks(min(begun, 1))
        for target in copies:
            source = self._blocks[slot][full]
            for pool in itertools.chain.from_iterable(self._layers):
                pool[target, :begun] = pool[source, :begun]
        return copies

    def _take_blocks(self, count: int) -> list[int]:
        """Blocks of no slot, in use from now on."""
        if (needed := len(self._uses) + count) > self._capacity:
            # One layer after another, so that only one is in memory twice.
            for layer, (keys, values) in enumerate(self._layers):
                self._layers[layer] = (self._grown(keys, needed), self._grown(values, needed))
            self._capacity = needed
        free = (block for block in range(self._capacity) if block not in self._uses)
        blocks = list(itertools.islice(free, count))
        self._uses.update(blocks)
        return blocks

    def _grown(self, pool: Tensor, count: int) -> Tensor:
        if len(pool) >= count:  # since memory ended in a later layer
            return pool
        grown = self._new_blocks(count)
        grown[: len(pool)] = pool
        return grown

    def _new_blocks(self, count: int) -> Tensor:
        return torch.empty(count, *self._shape, dtype=self._dtype, device=self._device)


@dataclass(frozen=True, eq=False)
class CachePass:
    """What one pass over packed sequences reads from a cache, and writes to it.

    Attributes:
        slots: of the sequences, in their order.
        starts: for each the positions before those of this pass.
        lengths: for each the rows of this pass.
    """

    cache: KeyValueCache
    slots: tuple[int, ...]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """For each sequence all positions, those of this pass included."""
        return tuple(a + b for a, b in zip(self.starts, self.lengths, strict=True))

    @cached_property
    def _places(self) -> Int[Tensor, " rows"]:
        """Where in the flattened blocks each row of the pass goes; the same in every layer."""
        size = self.cache.block_positions
        places: list[int] = []
        for slot, start, end in zip(self.slots, self.starts, self.ends, strict=True):
            blocks = self.cache.blocks(slot)
            places += [blocks[p // size] * size + p % size for p in range(start, end)]
        return self._on_device(places, torch.long)

    def write(
        self,
        layer: int,
        key: Float[Tensor, "1 heads rows head_dim"],
        value: Float[Tensor, "1 heads rows head_dim"],
    ) -> None:
        """Store the keys and values of all rows of the pass."""
        for pool, rows in zip(self.cache.pool(layer), (key, value), strict=True):
            pool.flatten(0, 1).index_copy_(0, self._places, rows[0].transpose(0, 1))

    def runs(
        self, layer: int, index: int
    ) -> Iterator[
        tuple[Float[Tensor, "positions heads head_dim"], Float[Tensor, "positions heads head_dim"]]
    ]:
        """Keys and values of all positions of one sequence, not copied: in parts of blocks that
        follow each other in memory, up to `_RUN_POSITIONS`."""
        keys, values = (pool.flatten(0, 1) for pool in self.cache.pool(layer))
        end, size = self.ends[index], self.cache.block_positions
        blocks, start = self.cache.blocks(self.slots[index]), 0
        while start < end:
            first = blocks[start // size]
            count = size
            while (
                start + count < end
                and count < _RUN_POSITIONS
                and blocks[(start + count) // size] == first + count // size
            ):
                count += size
            count = min(count, end - start)
            part = slice(first * size, first * size + count)
            yield keys[part], values[part]
            start += count

    def gather(
        self, layer: int, index: int
    ) -> tuple[Float[Tensor, "1 heads all head_dim"], Float[Tensor, "1 heads all head_dim"]]:
        """Keys and values of all positions of one sequence, copied together."""
        keys, values = zip(*self.runs(layer, index), strict=True)
        together = (torch.cat(rows).transpose(0, 1)[None] for rows in (keys, values))
        return next(together), next(together)

    @cached_property
    def key_counts(self) -> Int[Tensor, " sequences"]:
        """`ends` in int32, on the cache's device."""
        return self._on_device(self.ends, torch.int32)

    @cached_property
    def block_table(self) -> Int[Tensor, "sequences blocks"]:
        """Block numbers of every sequence, filled up with 0, in int32: flash attention's."""
        tables = [self.cache.blocks(slot) for slot in self.slots]
        widest = max(map(len, tables))
        rows = [[*table, *[0] * (widest - len(table))] for table in tables]
        return self._on_device(rows, torch.int32)

    def _on_device(self, values: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return to_device(values, dtype, self.cache.pool(0)[0].device)


def common_prefix_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading items that two sequences share."""
    pairs = zip(left, right, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
