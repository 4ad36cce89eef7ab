"""Scores of choices: how likely each is as the answer about each window of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from qwen_audio.audio.timecode import format_range
from qwen_audio.audio.window import Window
from qwen_audio.inference.choices import OverWindows
from qwen_audio.inference.data_frame import rows_to_pandas
from qwen_audio.inference.html_table import html_table

from .files import save_numbers, where_set

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scores", "log_softmax", "over_windows", "softmax"]


@dataclass(frozen=True, eq=False)
class Scores:
    """How likely each choice is as the answer about each window; returned by `AudioModel.score`.

    Attributes:
        name: the recording: its path, or its name.
        choices: the texts.
        windows: of the recording.
        token_log_probabilities: for each window and choice those of its tokens in order; with
            `include_end`, last that of the answer's end.
        tokens: of each choice, as text; with `include_end`, last "".
        prompt: as rendered.
        leading_space: whether the choices were tokenised with a space before them.
        include_end: whether the answer ends after a choice.
        length_normalized: whether `probability` is of the mean over a choice's tokens, and not of
            their sum.
        over_windows: how windows are combined in `recording_probability`: the "mean" of their
            log-probabilities, or the "sum", as of windows that are independent of each other.
        dtype: of the computation.
        notes: what was left out of the file.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    name: str
    choices: tuple[str, ...]
    windows: tuple[Window, ...]
    token_log_probabilities: tuple[tuple[tuple[float, ...], ...], ...]
    tokens: tuple[tuple[str, ...], ...]
    prompt: str
    leading_space: bool
    include_end: bool
    length_normalized: bool
    over_windows: OverWindows
    dtype: str
    notes: tuple[str, ...] = ()
    edits: str | None = None

    def __repr__(self) -> str:
        shares = dict(zip(self.choices, self.recording_probability.tolist(), strict=True))
        best = ", ".join(f"{choice!r} {shares[choice]:.3f}" for choice in self.ranking()[:3])
        more = "" if len(self.choices) <= 3 else ", …"
        return f"Scores({self.name!r}, {best}{more}; mass {self.mass.min():.3g})"

    @cached_property
    def log_probability(self) -> Float64[np.ndarray, "windows choices"]:
        """Of each choice as a whole: the sum over its tokens."""
        return np.array(
            [[sum(steps) for steps in of_window] for of_window in self.token_log_probabilities]
        )

    @property
    def mass(self) -> Float64[np.ndarray, " windows"]:
        """The probability that the model gives to all choices together: to other answers it gives
        the rest."""
        mass: np.ndarray = np.exp(self.log_probability).sum(axis=1)
        return mass

    @property
    def compared(self) -> Float64[np.ndarray, "windows choices"]:
        """What choices are compared by: `log_probability`; divided by the number of tokens where
        `length_normalized`."""
        if not self.length_normalized:
            return self.log_probability
        return self.log_probability / np.array([len(tokens) for tokens in self.tokens])

    @property
    def probability(self) -> Float64[np.ndarray, "windows choices"]:
        """Of each choice among the choices: in each window they sum to 1."""
        return softmax(self.compared)

    @property
    def recording_probability(self) -> Float64[np.ndarray, " choices"]:
        """Of each choice among the choices, for the recording: see `over_windows`."""
        return softmax(over_windows(self.compared, self.over_windows))

    def ranking(self) -> tuple[str, ...]:
        """The choices, the likeliest for the recording first."""
        order = np.argsort(-self.recording_probability, kind="stable")
        return tuple(self.choices[number] for number in order)

    def rows(self) -> list[dict[str, Any]]:
        """One for each window and choice: source, window, start_seconds, end_seconds, choice,
        log_probability, tokens (their number), probability, mass."""
        probability, mass = self.probability, self.mass
        return [
            {
                "source": self.name,
                "window": number,
                "start_seconds": window.start_seconds,
                "end_seconds": window.end_seconds,
                "choice": choice,
                "log_probability": float(self.log_probability[number, index]),
                "tokens": len(self.tokens[index]),
                "probability": float(probability[number, index]),
                "mass": float(mass[number]),
            }
            for number, window in enumerate(self.windows)
            for index, choice in enumerate(self.choices)
        ]

    def facts(self) -> dict[str, Any]:
        """What was asked, as JSON can hold it."""
        return {
            "choices": list(self.choices),
            "tokens": [list(tokens) for tokens in self.tokens],
            "prompt": self.prompt,
            "leading_space": self.leading_space,
            "include_end": self.include_end,
            "length_normalized": self.length_normalized,
            "over_windows": self.over_windows,
            "dtype": self.dtype,
            "notes": list(self.notes),
            **where_set(edits=self.edits),
        }

    def save(self, path: str | Path) -> Path:
        """Write `rows` as .csv or .json, or the arrays as .npz: see `save_numbers`."""
        arrays = {
            "log_probability": self.log_probability,
            "probability": self.probability,
            "mass": self.mass,
            "recording_probability": self.recording_probability,
        }
        return save_numbers(path, {"source": self.name, **self.facts()}, arrays, self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """`rows` as a table.

        Raises:
            MissingExtraError: without pandas.
        """
        return rows_to_pandas(self.rows())

    def _repr_html_(self) -> str:
        return html_table(
            ("time", "mass", *self.choices),
            (
                (
                    format_range(window.start_seconds, window.end_seconds),
                    f"{mass:.3g}",
                    *(f"{share:.3f}" for share in shares),
                )
                for window, mass, shares in zip(
                    self.windows, self.mass, self.probability, strict=True
                )
            ),
            self.name,
        )


def softmax(values: Float64[np.ndarray, "*rows choices"]) -> Float64[np.ndarray, "*rows choices"]:
    """Shares that sum to 1, of log-probabilities up to a constant."""
    return np.exp(log_softmax(values))


def log_softmax(
    values: Float64[np.ndarray, "*rows choices"],
) -> Float64[np.ndarray, "*rows choices"]:
    """The logarithms of `softmax`."""
    shifted = values - values.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def over_windows(
    values: Float64[np.ndarray, "windows choices"], how: OverWindows
) -> Float64[np.ndarray, " choices"]:
    """Log-probabilities of a recording from those of its windows."""
    combined: np.ndarray = values.mean(axis=0) if how == "mean" else values.sum(axis=0)
    return combined
