"""Division of a pipeline's memory: weights, activations, and cached keys and values.

Keys and values are half a megabyte for every position of the 7B model in 16 bits: those of a batch
of texts, or of the windows of an hour, take more than its weights. So batches of the language model
are bounded by positions, the room for answers included, and sessions keep the caches that fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar
from weakref import WeakKeyDictionary

from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.weights.device import batch_positions
from qwen_audio.weights.module_store import ModuleStore

from .cost import (
    MIN_CACHED_POSITIONS,
    batch_frames,
    cache_position_bytes,
    cached_positions,
    check_memory,
    min_memory_bytes,
    non_weight_bytes,
)
from .generation import CachedContext

__all__ = ["MemoryBudget", "batch_by_size"]

T = TypeVar("T")


class MemoryBudget:
    """What a pipeline may use of its device's memory, and for what.

    Args:
        modules: the weights; `divide` sets how much memory they may take.
        max_memory: bytes of the process; None: weights are not limited.
        base_bytes: what the process holds without weights.

    Attributes:
        users: that generate text in turns, each with keys and values of its own: one, or two.
    """

    def __init__(
        self, checkpoint: Checkpoint, modules: ModuleStore, max_memory: int | None, base_bytes: int
    ) -> None:
        self._checkpoint, self._modules = checkpoint, modules
        self._max_memory, self._base_bytes = max_memory, base_bytes
        self.users = 1
        self._divided: tuple[object, ...] | None = None
        self._kept: WeakKeyDictionary[CachedContext, None] = WeakKeyDictionary()

    @cached_property
    def max_frames(self) -> int:
        """Encoder frames in one pass; a single window may need more."""
        modules = self._modules
        return batch_frames(
            self._checkpoint, modules.dtype, modules.device, self._max_memory, self._base_bytes
        )

    @property
    def max_positions(self) -> int:
        """Of which each user's keys and values are cached at once; one text may need more."""
        return self._all_positions // self.users

    @property
    def holds_two_users(self) -> bool:
        """Whether two may have keys and values of a window of 30 s and its answer, or more."""
        return self._all_positions >= 2 * MIN_CACHED_POSITIONS

    @cached_property
    def _all_positions(self) -> int:
        modules = self._modules
        return cached_positions(
            self._checkpoint, modules.dtype, modules.device, self._max_memory, self._base_bytes
        )

    def divide(self, tap: Tap | None, positions: int = 0) -> None:
        """Leave to weights what the process, the activations up to a tap (None: text), and cached
        keys and values don't need.

        Args:
            positions: of the longest text, its answer included.

        Raises:
            OptionError: if `max_memory` is too little.
        """
        if self._max_memory is None:
            return
        # Before each pass, mostly for the same as before: of short clips it takes a tenth of the
        # time between passes.
        if self._divided == (tap, positions, self._kept_bytes(), self._modules.max_bytes):
            return
        self._divide(self._max_memory, tap, positions)
        self._divided = (tap, positions, self._kept_bytes(), self._modules.max_bytes)

    def _divide(self, max_memory: int, tap: Tap | None, positions: int) -> None:
        modules = self._modules
        settings = (self._checkpoint, tap, modules.dtype, modules.device, self._base_bytes)
        if tap is None:
            check_memory(max_memory, *settings, positions)
            # A text of more positions than are cached at once is alone in its pass.
            other = max(
                non_weight_bytes(*settings, self._all_positions, self.max_frames),
                non_weight_bytes(*settings, positions),
            )
            modules.max_bytes = max_memory - other
            return
        check_memory(max_memory, *settings)
        frames = self.max_frames
        if min_memory_bytes(*settings, frames=frames) + self._kept_bytes() > max_memory:
            self._drop(list(self._kept))
        other = non_weight_bytes(*settings, frames=frames) + self._kept_bytes()
        modules.max_bytes = max_memory - other

    def batches(
        self, items: Iterable[T], positions: Callable[[T], tuple[int, int]]
    ) -> Iterator[list[T]]:
        """Consecutive items in batches for one pass of the language model each.

        Args:
            positions: of an item, those to process, and those to cache with its answer.
        """
        limits = (batch_positions(self.max_frames), self.max_positions)
        return batch_by_size(items, positions, limits)

    def make_room(self, positions: int, context: CachedContext | None = None) -> None:
        """Drop kept keys and values until so many positions fit beside the others.

        Those of other sessions go first, the one used longest ago before the others; then those of
        the same session, the one used last before the others: its windows are asked in turn.

        Args:
            context: whose positions these are; it is not dropped.
        """
        positions = max(positions, 0 if context is None else len(context))
        limit = max(self.max_positions, positions)
        owner = None if context is None else context.owner
        others = [kept for kept in self._kept if kept is not context]
        same = [kept for kept in others if owner is not None and kept.owner is owner]
        for kept in (*(kept for kept in others if kept not in same), *reversed(same)):
            if positions + sum(len(each) for each in self._kept if each is not context) <= limit:
                return
            self._drop([kept])

    def keep(self, context: CachedContext) -> None:
        """Note that a context's keys and values are kept, and were used just now."""
        self._kept.pop(context, None)
        self._kept[context] = None

    def _drop(self, contexts: Iterable[CachedContext]) -> None:
        for context in contexts:
            context.clear()
            del self._kept[context]

    def _kept_bytes(self) -> int:
        position_bytes = cache_position_bytes(self._checkpoint, self._modules.dtype)
        return position_bytes * sum(map(len, self._kept))


def batch_by_size(
    items: Iterable[T], size: Callable[[T], Sequence[int]], limits: Sequence[int]
) -> Iterator[list[T]]:
    """Consecutive items in batches whose sizes add up to at most the limits, in each measure.

    An item larger than a limit gets a batch of its own. Order is kept, and every item is in exactly
    one batch.
    """
    batch: list[T] = []
    totals = [0] * len(limits)
    for item in items:
        sizes = size(item)
        grown = [total + part for total, part in zip(totals, sizes, strict=True)]
        if batch and any(total > limit for total, limit in zip(grown, limits, strict=True)):
            yield batch
            batch, grown = [], list(sizes)
        batch.append(item)
        totals = grown
    if batch:
        yield batch
