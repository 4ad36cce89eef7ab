"""Edits that are active, and the rows they act on in a pass of the encoder or decoder."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.errors import OptionError, counted
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import ModelDimensions, Stage, Tap

from . import edits
from .edits import Edit, EditPlace, RowFunction

__all__ = [
    "ActiveEdit",
    "active_edits",
    "described",
    "edited_row_times",
    "edits",
    "gradients_from",
    "is_leaf",
    "keeps_edits",
    "outside_gradients",
    "taps_changed",
    "using_edit",
]

T = TypeVar("T")
P = ParamSpec("P")

REDUCIBLE = (Stage.AUDIO_TOWER, Stage.PROJECTOR)
"""Where the number of rows may change: what follows takes any number."""


@dataclass(frozen=True, eq=False)
class ActiveEdit:
    """An edit in use, of one model.

    Attributes:
        owner: the model's modules: passes of others are not edited.
        row_function: of the rows of the span.
        lost_rows: holds whether an edit of unknown stride has changed the number of rows, so that
            nobody knows what time they are of.
    """

    owner: object
    edit: Edit
    place: EditPlace
    row_function: RowFunction
    lost_rows: list[bool] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.place.tap}[{self.place.span}]: {self.edit}"

    def apply(
        self, rows: Float[Tensor, "rows width"], *, may_reduce: bool = False
    ) -> Float[Tensor, "edited width"]:
        """Edited rows, in the dtype and on the device of those given, which stay as they are.

        Raises:
            OptionError: if the function returns anything else than rows of this width, or changes
                their number where it may not.
        """
        edited: Any = self.row_function(rows.clone())
        if isinstance(edited, np.ndarray):
            edited = torch.from_numpy(edited)
        if not isinstance(edited, Tensor) or edited.ndim != 2 or edited.shape[1] != rows.shape[1]:
            got = (
                f"numbers of shape {tuple(edited.shape)}"
                if isinstance(edited, Tensor)
                else f"an object of type {type(edited).__name__}"
            )
            raise OptionError(
                f"{self}: the edit returned {got} for rows of shape {tuple(rows.shape)}: return "
                f"rows of {rows.shape[1]} numbers"
            )
        result: Tensor = edited.to(rows.device, rows.dtype)
        if not torch.isfinite(result).all():
            raise OptionError(f"{self}: the edit returned NaN or infinity: return finite numbers")
        if len(result) != len(rows):
            self._check_number(len(rows), len(result), may_reduce)
            if self.edit.stride is None and not self.lost_rows:
                self.lost_rows.append(True)
        return result

    def _check_number(self, before: int, after: int, may_reduce: bool) -> None:
        if may_reduce and 0 < after < before:
            return
        if may_reduce:
            allowed = f"return 1 to {before} rows"
        elif self.place.tap.stage in REDUCIBLE:
            allowed = "this model's windows have a fixed number of rows: return as many"
        else:
            allowed = f"return {before}, or edit audio_tower or projector, which may have fewer"
        raise OptionError(f"{self}: the edit made {counted(after, 'row')} of {before}: {allowed}")


_ACTIVE: ContextVar[tuple[ActiveEdit, ...]] = ContextVar("qwen_audio_edits", default=())
_LEAF: ContextVar[tuple[object, Tap] | None] = ContextVar("qwen_audio_leaf", default=None)


def active_edits(owner: object) -> tuple[ActiveEdit, ...]:
    """The edits of a model in this thread or task, in the order in which they act at a tap."""
    return tuple(each for each in _ACTIVE.get() if each.owner is owner)


@contextmanager
def using_edit(owner: object, edit: Edit, place: EditPlace) -> Iterator[ActiveEdit]:
    """Activate an edit, in this thread or task, after those that are active.

    Raises:
        OptionError: if it can't act at this place.
    """
    if edit.stride not in (None, 1) and place.tap.stage not in REDUCIBLE:
        raise OptionError(
            f"edits.{edit} at {place}: the number of rows may change at audio_tower and projector "
            "only, where the language model takes any"
        )
    active = ActiveEdit(owner, edit, place, edit.bind(place))
    token = _ACTIVE.set((*_ACTIVE.get(), active))
    try:
        yield active
    finally:
        _ACTIVE.reset(token)


def keeps_edits(make: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """Of a method that returns an iterator: the edits of its call are those of all its items,
    wherever they are asked for."""

    @functools.wraps(make)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        iterator = make(*args, **kwargs)
        return _in_context(iterator, contextvars.copy_context()) if _ACTIVE.get() else iterator

    return in_context


def _in_context(iterator: Iterator[T], context: contextvars.Context) -> Iterator[T]:
    end: Any = object()
    try:
        while (item := context.run(next, iterator, end)) is not end:
            yield item
    finally:
        context.run(getattr(iterator, "close", lambda: None))


def described(active: Sequence[ActiveEdit], tap: Tap | None = None) -> str | None:
    """What embedding specs hold of the edits that change a tap (None: any); None for none."""
    texts = [str(each) for each in active if tap is None or each.place.tap <= tap]
    return "; ".join(texts) or None


def edited_row_times(
    active: Sequence[ActiveEdit], dimensions: ModelDimensions, tap: Tap
) -> RowTimes:
    """When the audio rows of a tap begin, edits considered.

    Raises:
        OptionError: if an edit has changed their number, and doesn't say which rows are left.
    """
    times = dimensions.times(tap)
    for each in active:
        if each.place.tap > tap:
            continue
        if each.lost_rows:
            raise OptionError(
                f"{each}: the edit changed the number of rows, and nobody knows what times are "
                "left: pool the rows (encode), or use edits.keep_every"
            )
        if each.edit.stride not in (None, 1):
            times = times.every_nth(each.edit.stride)
    return times


# Gradients.


@contextmanager
def gradients_from(owner: object, tap: Tap) -> Iterator[None]:
    """Passes of this model record operations from a tap on, whose rows are leaves."""
    token = _LEAF.set((owner, tap))
    try:
        yield
    finally:
        _LEAF.reset(token)


def is_leaf(owner: object, tap: Tap) -> bool:
    """Whether the rows of a tap are to be leaves."""
    leaf = _LEAF.get()
    return leaf is not None and leaf[0] is owner and leaf[1] == tap


def taps_changed(owner: object) -> frozenset[Tap]:
    """The taps of a model whose rows are edited, or are leaves."""
    leaf = _LEAF.get()
    taps = {each.place.tap for each in active_edits(owner)}
    return frozenset(taps | ({leaf[1]} if leaf is not None and leaf[0] is owner else set()))


def outside_gradients(compute: Callable[P, T]) -> Callable[P, T]:
    """Without recording operations, unless `gradients_from` asks for it."""

    @functools.wraps(compute)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.set_grad_enabled(_LEAF.get() is not None):
            return compute(*args, **kwargs)

    return run
