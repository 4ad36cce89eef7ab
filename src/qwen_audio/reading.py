"""Recordings → what stands at taps, recording after recording, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .audio import Window, Windowing
from .batching import Failed, pieces_in_batches
from .compute import give_back_memory
from .errors import AudioError
from .generation import Sampling
from .line import Keep, Line
from .tap import Tap

__all__ = ["Reading", "read"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Reading(Generic[T]):
    """One recording's windows, and for each what was kept at every tap."""

    windows: tuple[Window, ...]
    kept: tuple[dict[Tap, T], ...]


def read(
    line: Line,
    inputs: Iterable[Any],
    taps: Sequence[Tap],
    keep: Keep[T],
    *,
    rendered: str | None,
    windowing: Windowing,
    sampling_rate: int | None = None,
    continuation: Sampling | None = None,
) -> Iterator[Reading[T] | AudioError]:
    """For every input, in order, its reading, or the error that says why it can't be heard.

    Args:
        keep: see `Line.states`.
    """
    held: list[tuple[Window, dict[Tap, T]]] = []
    current = 0
    for batch in pieces_in_batches(line, inputs, sampling_rate, windowing):
        pieces = [piece for piece in batch if not isinstance(piece, Failed)]
        states = iter(line.states(pieces, taps, keep, rendered, continuation) if pieces else ())
        give_back_memory()
        for piece in batch:
            if held and piece.clip != current:
                yield _reading(held)
                held = []
            current = piece.clip
            if isinstance(piece, Failed):
                yield piece.error
            else:
                held.append((piece.window, next(states)))
    if held:
        yield _reading(held)


def _reading(held: Sequence[tuple[Window, dict[Tap, T]]]) -> Reading[T]:
    return Reading(tuple(window for window, _ in held), tuple(kept for _, kept in held))
