"""Recordings → what stands at taps, recording after recording, each as soon as it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.waveform import RecordingInfo
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.models.tap import Tap
from qwen_audio.weights.device import trim_heap

from .batching import Failed, batched_windows_or_errors
from .pipeline import Pipeline
from .reducers import RowReducer
from .sampling import Sampling

__all__ = ["Reading", "read"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Reading(Generic[T]):
    """One recording's windows, and for each what was kept at every tap and, if asked, said."""

    recording: RecordingInfo
    windows: tuple[Window, ...]
    kept: tuple[dict[Tap, T], ...]
    said: tuple[str, ...] = ()


def read(
    pipeline: Pipeline,
    inputs: Iterable[Any],
    taps: Sequence[Tap],
    keep: RowReducer[T],
    *,
    prompt_text: str | None,
    window_config: WindowConfig,
    sampling_rate: int | None = None,
    continuation: Sampling | None = None,
    question: str | None = None,
) -> Iterator[Reading[T] | AudioError]:
    """For every input, in order, its reading, or the error that says why it can't be heard.

    Args:
        keep: see `Pipeline.states`.
        question: a rendered prompt, to be answered for every window as well.
    """
    held: list[tuple[AudioWindow, dict[Tap, T], str | None]] = []
    current = 0
    for batch in batched_windows_or_errors(pipeline, inputs, sampling_rate, window_config):
        pieces = [piece for piece in batch if not isinstance(piece, Failed)]
        states = iter(
            pipeline.capture(pieces, taps, keep, prompt_text, continuation) if pieces else ()
        )
        said = iter(_answers(pipeline, pieces, question) if question is not None else ())
        trim_heap()
        for piece in batch:
            if held and piece.recording_index != current:
                yield _reading(held)
                held = []
            current = piece.recording_index
            if isinstance(piece, Failed):
                yield piece.error
            else:
                held.append((piece, next(states), next(said, None)))
    if held:
        yield _reading(held)


def _answers(pipeline: Pipeline, pieces: Sequence[AudioWindow], question: str) -> list[str]:
    heard = pipeline.encode_audio([piece.log_mel for piece in pieces])
    clips = [pipeline.build_inputs(question, rows) for rows in heard]
    return (
        [pipeline.prompts.text(new).strip() for new in pipeline.generate(clips, Sampling())]
        if clips
        else []
    )


def _reading(held: Sequence[tuple[AudioWindow, dict[Tap, T], str | None]]) -> Reading[T]:
    pieces, kept, said = zip(*held, strict=True)
    windows = tuple(piece.window for piece in pieces)
    texts = tuple(text for text in said if text is not None)
    return Reading(pieces[0].recording, windows, tuple(kept), texts)
