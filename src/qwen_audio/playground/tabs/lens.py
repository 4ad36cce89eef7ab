"""Logit lens: the tokens that each layer of the language model predicts, over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qwen_audio import AudioError, LogitLens, OptionError
from qwen_audio.playground.context import AppContext, report_errors

__all__ = ["LensCard"]

_CELLS, _MAX_CELLS = 16, 200
"""Segments of audio, by default and at most."""
_MAX_WORDS = 6
"""Words to follow: each is a grid of its own."""


class LensCard:
    """Request handler of the logit lens."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def lens(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The lens of the open part, its audio in at most so many "cells".

        "tokens" are words whose probability is followed. Each cell holds, by level, the likeliest
        tokens with their mean probabilities, the mean entropy in bits, and the mean probabilities
        of the words. Positions of the prompt are cells of their own.
        """
        context, session = self.context, self.context.session(request)
        clip = session.open_clip
        window, samples = clip.window, clip.window_waveform
        cells, words = _cells(data.get("cells", _CELLS)), _words(data.get("tokens", []))
        work = context.run_on_model_thread(lambda: context.model.lens(samples, tokens=words))
        lens = work.result()
        if session.clip is not clip or clip.window != window:
            raise AudioError("Another recording or part has been opened meanwhile.")
        session.results["lens"] = lens
        segments = [
            {
                "start": window.start_seconds + segment.start_seconds,
                "end": window.start_seconds + segment.end_seconds,
                "levels": [
                    _level(*values)
                    for values in zip(
                        segment.likeliest,
                        segment.entropy_bits,
                        segment.followed_probabilities,
                        strict=True,
                    )
                ],
            }
            for segment in lens.steps(cells)
        ]
        return {
            "start": window.start_seconds,
            "end": window.end_seconds,
            "taps": [str(tap) for tap in lens.taps],
            "hop_seconds": lens.row_times.hop_seconds,
            "prompt": lens.prompt,
            "followed": [word.label for word in lens.followed],
            "segments": segments,
            "positions": _prompt_positions(lens),
        }


def _prompt_positions(lens: LogitLens) -> list[dict[str, Any]]:
    """The positions of text, in order; the last one predicts the answer's first token."""
    first_audio = min(lens.indices("audio"), default=0)
    return [
        {
            "position": int(position),
            "read": lens.read[position],
            "before": bool(position < first_audio),
            "levels": [
                _level(
                    lens.words(level, int(position)),
                    lens.entropy_bits[level, position],
                    lens.followed_probabilities[level, position] if lens.followed else (),
                )
                for level in range(len(lens.taps))
            ],
        }
        for position in lens.indices("prompt")
    ]


def _level(
    tokens: Sequence[tuple[str, float]], entropy_bits: float, followed: Iterable[float]
) -> dict[str, Any]:
    return {
        "tokens": [[text, round(probability, 6)] for text, probability in tokens],
        "entropy": round(float(entropy_bits), 4),
        "followed": [float(f"{probability:.6g}") for probability in followed],
    }


def _cells(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _MAX_CELLS:
        raise OptionError(f"cells={value!r:.40}: use a whole number from 1 to {_MAX_CELLS}")
    return value


def _words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise OptionError(f"tokens={value!r:.40}: give words in a list")
    if len(value) > _MAX_WORDS:
        raise OptionError(f"{len(value)} words to follow: give at most {_MAX_WORDS}")
    return value
