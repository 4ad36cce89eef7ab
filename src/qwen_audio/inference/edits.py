"""Edits: functions of rows that replace what a tap holds, for `AudioModel.edit`.

    with model.edit("audio_tower", qa.edits.shuffle(seed=0)):
        model.describe("song.flac")

Each has a description, which the embedding specs of vectors that were computed with it hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.errors import OptionError, whole_number_option
from qwen_audio.models.tap import Tap

from .edit_arguments import digest, finite_number, process_identity, row_matrix, width_vector
from .hidden_states import HiddenStates

__all__ = [
    "Edit",
    "EditPlace",
    "RowFunction",
    "add",
    "function",
    "identity",
    "keep_every",
    "mean_over_time",
    "replace",
    "scale",
    "scale_heads",
    "shuffle",
    "zero",
]

RowFunction: TypeAlias = Callable[[Tensor], Tensor]
"""Rows → rows, (rows, width) both, in the dtype and on the device of the pass."""


@dataclass(frozen=True)
class EditPlace:
    """Where an edit acts.

    Attributes:
        width: of the rows.
        heads: of the language model's attention; 0 where there are none.
    """

    tap: Tap
    span: str
    width: int
    heads: int = 0

    def __str__(self) -> str:
        return f"{self.tap} ({self.span})"


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """A function of the rows of a span at a tap.

    Attributes:
        name, arguments: identify it; arguments are numbers and texts.
        bind: the function of rows at a place; raises OptionError where it can't act.
        stride: 1 if the number of rows stays, n if every nth is kept; None: not known.
    """

    name: str
    bind: Callable[[EditPlace], RowFunction]
    arguments: Mapping[str, str | int | float] = field(default_factory=dict)
    stride: int | None = 1

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{self.name}({arguments})"

    def __repr__(self) -> str:
        return f"edits.{self}"


def identity() -> Edit:
    """Rows as they are: a control, which changes no bit."""
    return _everywhere("identity", lambda rows: rows)


def mean_over_time() -> Edit:
    """Every row becomes the mean of the span's rows: what is left without time."""

    def repeat_mean(rows: Tensor) -> Tensor:
        mean = rows.to(torch.promote_types(rows.dtype, torch.float32)).mean(0, keepdim=True)
        return mean.to(rows.dtype).expand_as(rows)

    return _everywhere("mean_over_time", repeat_mean)


def shuffle(seed: int = 0) -> Edit:
    """The rows in another order, which depends on the seed and on their number alone."""
    seed = whole_number_option("seed", seed, 0, 2**63 - 1)

    def permute(rows: Tensor) -> Tensor:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        return rows[order.to(rows.device)]

    return _everywhere("shuffle", permute, seed=seed)


def zero() -> Edit:
    """Rows of zeros."""
    return _everywhere("zero", torch.zeros_like)


def scale(factor: float) -> Edit:
    """Rows times a number."""
    factor = finite_number("factor", factor)
    return _everywhere("scale", lambda rows: rows * factor, factor=factor)


def add(vector: Any, scale: float = 1.0) -> Edit:
    """Rows plus a vector times a number: steering.

    Args:
        vector: an array or tensor of shape (width,), or a `Direction`.

    Raises:
        OptionError: for numbers that aren't finite; where it is used, for another width.
    """
    scale = finite_number("scale", scale)
    values = width_vector(vector)

    def bind(place: EditPlace) -> RowFunction:
        if len(values) != place.width:
            raise OptionError(
                f"edits.add of a vector of {len(values)} numbers at {place}, whose rows have "
                f"{place.width}: give a vector of that tap"
            )
        scaled = values * scale
        return lambda rows: rows + scaled.to(rows.device, rows.dtype)

    return Edit("add", bind, {"vector": digest(values), "scale": scale})


def keep_every(n: int) -> Edit:
    """Every nth row, from the first on: at `audio_tower` and `projector`, where the number of rows
    may change."""
    n = whole_number_option("n", n, 1)
    return Edit("keep_every", lambda _: lambda rows: rows[::n], {"n": n}, stride=n)


def replace(rows: Any) -> Edit:
    """Rows of something else in their place, the same for every clip.

    Args:
        rows: an array or tensor, (rows, width), or the `HiddenStates` of another clip at the same
            tap, of which the rows of the edit's span are taken. As many as there are; at
            `audio_tower` and `projector` fewer, too.

    Raises:
        OptionError: for rows that aren't finite, or no matrix; where it is used, for hidden states
            of another tap or without the span.
    """
    if isinstance(rows, HiddenStates):
        states = rows

        def bind_states(place: EditPlace) -> RowFunction:
            if states.tap != place.tap:
                raise OptionError(
                    f"edits.replace with hidden states of {states.tap} at {place.tap}: give those "
                    "of the same tap"
                )
            indices = _indices(states, place.span)
            if not len(indices):
                raise OptionError(
                    f"edits.replace: the hidden states of {states.name or 'that clip'} have no "
                    f"rows of the span {place.span!r}"
                )
            chosen = row_matrix(states.to_torch()[torch.from_numpy(indices)])
            return _constant(chosen, place)

        return Edit("replace", bind_states, {"rows": digest(states.to_torch())}, stride=None)
    values = row_matrix(rows)
    return Edit(
        "replace", lambda place: _constant(values, place), {"rows": digest(values)}, stride=None
    )


def scale_heads(heads: Iterable[int] | int, factor: float = 0.0) -> Edit:
    """Attention heads, counted from 0, times a number; 0 removes them. At taps `lm.K.heads`.

    Raises:
        OptionError: for no heads; where it is used, for heads that the model hasn't.
    """
    given = [heads] if isinstance(heads, int) else list(heads)
    numbers = sorted({whole_number_option("heads", head, 0) for head in given})
    factor = finite_number("factor", factor)
    if not numbers:
        raise OptionError("heads is empty: name at least one, such as [0]")

    def bind(place: EditPlace) -> RowFunction:
        if place.tap.part != "heads":
            raise OptionError(
                f"edits.scale_heads at {place.tap}: heads are apart at lm.K.heads only, K from 1"
            )
        if numbers[-1] >= place.heads:
            raise OptionError(
                f"edits.scale_heads: {place.tap} has heads 0 to {place.heads - 1}, not "
                f"{numbers[-1]}"
            )

        def scale_chosen(rows: Tensor) -> Tensor:
            by_head = rows.unflatten(1, (place.heads, -1)).clone()
            by_head[:, numbers] *= factor
            return by_head.flatten(1)

        return scale_chosen

    joined = "+".join(map(str, numbers))
    return Edit("scale_heads", bind, {"heads": joined, "factor": factor})


def function(rows_to_rows: Any, name: str | None = None) -> Edit:
    """Any function of rows, a tensor (rows, width), that returns rows of the same width.

    Args:
        name: identifies it in embedding specs: vectors of functions of one name are compared.
            Without, a function is known in this process only, and its vectors compare with no
            other process's.

    Raises:
        OptionError: for what can't be called, or a name that isn't text.
    """
    if not callable(rows_to_rows):
        raise OptionError(
            f"an edit of type {type(rows_to_rows).__name__}: give one of qa.edits, or a function "
            "of rows"
        )
    if name is None:
        name = f"{getattr(rows_to_rows, '__name__', 'function')}#{process_identity(rows_to_rows)}"
    elif not isinstance(name, str) or not name:
        raise OptionError(f"name={name!r}: give an edit's name as text")
    return Edit("function", lambda _: rows_to_rows, {"name": name}, stride=None)


def _everywhere(name: str, rows_to_rows: RowFunction, **arguments: str | int | float) -> Edit:
    """An edit of any rows, whose number stays."""
    return Edit(name, lambda _: rows_to_rows, arguments)


def _constant(values: Float[Tensor, "rows width"], place: EditPlace) -> RowFunction:
    if values.shape[1] != place.width:
        raise OptionError(
            f"edits.replace with rows of {values.shape[1]} numbers at {place}, whose rows have "
            f"{place.width}: give rows of that tap"
        )
    return lambda rows: values.to(rows.device, rows.dtype)


def _indices(states: HiddenStates[Any], span: str) -> np.ndarray:
    """Of the rows that an edit of this span replaces."""
    if span == "all":
        return np.arange(len(states))
    if span == "last":
        return states.indices("prompt")[-1:]
    return states.indices(span)  # type: ignore[arg-type]
