"""Generated text as an answer about a window of a recording."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.audio.window import Window
from qwen_audio.inference.generation import GeneratedText
from qwen_audio.inference.pipeline import Pipeline

from .answer import Answer

__all__ = ["padding_tokens", "window_answer"]


def padding_tokens(pipeline: Pipeline, window: Window) -> int:
    """How many positions of padding the language model is given after a window's audio."""
    family = pipeline.checkpoint.family
    samples = round(window.duration_seconds * SAMPLE_RATE_HZ)
    return family.padding_tokens(family.mel_frames(samples))


def window_answer(
    text: GeneratedText,
    source: str,
    number: int,
    window: Window,
    pipeline: Pipeline,
    audios: Sequence[Window] | None = None,
) -> Answer:
    """Generated text as the answer about a window of a recording, counted from 0 on.

    Args:
        audios: what was encoded, if it isn't the window.
    """
    padding = sum(padding_tokens(pipeline, audio) for audio in audios or [window])
    return Answer(
        text=text.text,
        source=source,
        window=number,
        start_seconds=window.start_seconds,
        end_seconds=window.end_seconds,
        audio_tokens=text.audio_tokens - padding,
        prompt_tokens=text.prompt_tokens,
        token_ids=text.token_ids,
        complete=text.ended_by == "stop token",
        ended_by=text.ended_by,
        dtype=pipeline.dtype_name,
        padding_tokens=padding,
        edits=pipeline.all_edits,
    )
