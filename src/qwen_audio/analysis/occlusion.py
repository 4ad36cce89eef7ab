"""Occlusion: what removing a part of the sound does to an answer, over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.errors import OptionError, counted, number_option

from .files import where_set
from .picture import Picture
from .tabulated import Tabulated

__all__ = [
    "Occlusion",
    "check_answers",
    "check_occlusion_windows",
    "occluded",
    "occlusion_starts",
]

_MIN_SECONDS, _MAX_SECONDS = 0.01, 1e6
"""The least is a hop of the spectrogram."""
_LEAST_OTHER = 1e-9
"""Probability of other answers, below which float32 can't tell that of one answer from 1."""
_FADE_SECONDS = 0.025
"""Within a window at each of its ends: a frame of the spectrogram, so that cuts don't click."""


def check_answers(answers: Any) -> tuple[str, ...]:
    """A text, or two to compare. Raises OptionError for anything else."""
    texts = () if isinstance(answers, str) else tuple(answers)
    is_text = [isinstance(text, str) and bool(text.strip()) for text in texts]
    if len(texts) not in (1, 2) or not all(is_text):
        raise OptionError(
            f"answers={answers!r:.80}: give a text, such as ['Yes'], or two to compare, such as "
            "['Yes', 'No']"
        )
    return texts


def check_occlusion_windows(window_seconds: float, hop_seconds: float) -> tuple[int, int]:
    """Samples of what is removed, and of the hop.

    Raises:
        OptionError: for less than 10 ms, and hops longer than windows.
    """
    samples = []
    for name, seconds in (("window_seconds", window_seconds), ("hop_seconds", hop_seconds)):
        value = number_option(name, seconds, "a number of seconds")
        if not _MIN_SECONDS <= value <= _MAX_SECONDS:
            raise OptionError(f"{name}={seconds}: use {_MIN_SECONDS:g} s or more")
        samples.append(round(value * SAMPLE_RATE_HZ))
    if hop_seconds > window_seconds:
        raise OptionError(
            f"hop_seconds={hop_seconds} is longer than window_seconds={window_seconds}, so that "
            "parts of the sound would never be removed: use at most as long"
        )
    return samples[0], samples[1]


def occlusion_starts(samples: int, window: int, hop: int) -> list[int]:
    """First samples of windows that together cover a clip; the last one ends with it.

    Raises:
        OptionError: for a window that is longer than the clip.
    """
    if window > samples:
        raise OptionError(
            f"window_seconds={window / SAMPLE_RATE_HZ:g}, but the clip lasts "
            f"{samples / SAMPLE_RATE_HZ:.2f} s: use shorter windows"
        )
    last = samples - window
    return [*range(0, last, hop), last]


def occluded(
    samples: Float32[np.ndarray, "samples"], start: int, window: int
) -> Float32[np.ndarray, "samples"]:
    """A clip with silence in a window, faded out and in within it (raised cosine)."""
    fade = min(round(_FADE_SECONDS * SAMPLE_RATE_HZ), window // 2)
    falling = 0.5 + 0.5 * np.cos(np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    gain = np.concatenate([falling, np.zeros(window - 2 * fade, np.float32), falling[::-1]])
    silenced = samples.copy()
    silenced[start : start + window] *= gain.astype(np.float32)
    return silenced


def _compared(log_probabilities: Float64[np.ndarray, "*windows answers"]) -> np.ndarray:
    """Differences of two answers' log-probabilities, or log-odds of one, log P − log(1 − P)."""
    first = log_probabilities[..., 0]
    if log_probabilities.shape[-1] > 1:
        return np.asarray(first - log_probabilities[..., 1])
    return np.asarray(first - np.log(-np.expm1(np.minimum(first, -_LEAST_OTHER))))


@dataclass(frozen=True, eq=False, repr=False)
class Occlusion(Tabulated, Picture):
    """What an answer loses where a window of the sound is removed; from `AudioModel.occlusion`.

    Attributes:
        name: of the recording.
        prompt: as rendered.
        answers: two texts that are compared, or one, compared with all other answers.
        start_seconds: shape (windows,): where each window begins.
        window_seconds: how long each is.
        heard: log-probabilities of the answers as heard.
        log_probabilities: shape (windows, answers): without the sound of each window.
        envelope: shape (2, columns): least and greatest sample in equal parts of the clip.
        duration_seconds: of the clip.
        dtype: of the computation.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    name: str
    prompt: str
    answers: tuple[str, ...]
    start_seconds: Float64[np.ndarray, "windows"]
    window_seconds: float
    heard: tuple[float, ...]
    log_probabilities: Float64[np.ndarray, "windows answers"]
    envelope: Float32[np.ndarray, "ends columns"]
    duration_seconds: float
    dtype: str = "float32"
    edits: str | None = None

    @property
    def difference(self) -> float:
        """log P(first answer) − log P(second) as heard: above 0 the first is likelier. Of one
        answer its log-odds, so the second is any other answer."""
        return float(_compared(np.array(self.heard)))

    @property
    def effect(self) -> Float64[np.ndarray, "windows"]:
        """How much the difference falls without each window: above 0 it speaks for the first
        answer, below 0 for the second, or against the only one."""
        return np.asarray(self.difference - _compared(self.log_probabilities))

    @property
    def end_seconds(self) -> Float64[np.ndarray, "windows"]:
        """Where each window ends."""
        return self.start_seconds + self.window_seconds

    @property
    def peak_seconds(self) -> float:
        """The middle of the window that speaks most for the first answer."""
        return float(self.start_seconds[np.argmax(self.effect)] + self.window_seconds / 2)

    def map(self) -> tuple[Float64[np.ndarray, "edges"], Float64[np.ndarray, "parts"]]:
        """The mean effect of the windows that cover each part between two of their ends.

        Returns:
            Edges in seconds, shape (parts + 1,), and means, shape (parts,).
        """
        edges = np.unique(np.concatenate([self.start_seconds, self.end_seconds]).round(6))
        middles = (edges[1:] + edges[:-1]) / 2
        covers = (self.start_seconds[:, None] <= middles) & (middles < self.end_seconds[:, None])
        return edges, (covers * self.effect[:, None]).sum(0) / covers.sum(0)

    def table(self) -> list[dict[str, Any]]:
        """One row a window."""
        names = ("log_probability_first", "log_probability_second")[: len(self.answers)]
        return [
            {
                "start_seconds": float(start),
                "end_seconds": float(end),
                "effect": float(effect),
                **dict(zip(names, map(float, of_answers), strict=True)),
            }
            for start, end, effect, of_answers in zip(
                self.start_seconds,
                self.end_seconds,
                self.effect,
                self.log_probabilities,
                strict=True,
            )
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers, and what their axes are of."""
        edges, means = self.map()
        return {
            "start_seconds": self.start_seconds,
            "effect": self.effect,
            "log_probabilities": self.log_probabilities,
            "map_edges_seconds": edges,
            "map": means,
        }

    def facts(self) -> dict[str, Any]:
        """What it is of, and the answers as heard."""
        return {
            "name": self.name,
            "prompt": self.prompt,
            "answers": self.answers,
            "window_seconds": self.window_seconds,
            "difference": self.difference,
            "peak_seconds": self.peak_seconds,
            "dtype": self.dtype,
            **where_set(edits=self.edits),
        }

    def __repr__(self) -> str:
        first = self.answers[0]
        return (
            f"Occlusion({' − '.join(map(repr, self.answers))}: {self.difference:+.2f} as heard, "
            f"most for {first!r} at {self.peak_seconds:.2f} s ({self.effect.max():+.2f}); "
            f"{counted(len(self.effect), 'window')} of {self.window_seconds:g} s; {self.dtype})"
        )
