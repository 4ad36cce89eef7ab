"""Recordings → what stands at taps, recording after recording, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qwen_audio.audio.log_mel import Piece
from qwen_audio.audio.waveform import Recording, Window, Windowing
from qwen_audio.errors import AudioError
from qwen_audio.models.tap import Tap
from qwen_audio.weights.device import give_back_memory

from .batching import Failed, pieces_in_batches
from .pipeline import Line
from .reducers import Keep
from .sampling import Sampling

__all__ = ["Reading", "read"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Reading(Generic[T]):
    """One recording's windows, and for each what was kept at every tap and, if asked, said."""

    recording: Recording
    windows: tuple[Window, ...]
    kept: tuple[dict[Tap, T], ...]
    said: tuple[str, ...] = ()


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
    question: str | None = None,
) -> Iterator[Reading[T] | AudioError]:
    """For every input, in order, its reading, or the error that says why it can't be heard.

    Args:
        keep: see `Line.states`.
        question: a rendered prompt, to be answered for every window as well.
    """
    held: list[tuple[Piece, dict[Tap, T], str | None]] = []
    current = 0
    for batch in pieces_in_batches(line, inputs, sampling_rate, windowing):
        pieces = [piece for piece in batch if not isinstance(piece, Failed)]
        states = iter(line.states(pieces, taps, keep, rendered, continuation) if pieces else ())
        said = iter(_answers(line, pieces, question) if question is not None else ())
        give_back_memory()
        for piece in batch:
            if held and piece.clip != current:
                yield _reading(held)
                held = []
            current = piece.clip
            if isinstance(piece, Failed):
                yield piece.error
            else:
                held.append((piece, next(states), next(said, None)))
    if held:
        yield _reading(held)


def _answers(line: Line, pieces: Sequence[Piece], question: str) -> list[str]:
    heard = line.hear([piece.mel for piece in pieces])
    clips = [line.positions(question, rows) for rows in heard]
    return [line.prompts.text(new).strip() for new in line.say(clips, Sampling())] if clips else []


def _reading(held: Sequence[tuple[Piece, dict[Tap, T], str | None]]) -> Reading[T]:
    pieces, kept, said = zip(*held, strict=True)
    windows = tuple(piece.window for piece in pieces)
    texts = tuple(text for text in said if text is not None)
    return Reading(pieces[0].recording, windows, tuple(kept), texts)
