"""Zero-shot classification: the probability of each class, for each recording."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from qwen_audio.errors import OptionError, counted
from qwen_audio.inference.data_frame import rows_to_pandas
from qwen_audio.inference.html_table import html_table

from .classes import Classes, Prior, as_classes, as_prior, as_temperature
from .files import save_numbers
from .reliability import Reliability, reliability
from .scores import Scores, log_softmax, over_windows, softmax

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Classification"]

_STEEPEST = 1e4
"""Inverse of the lowest temperature that is fitted; the highest is its inverse."""


@dataclass(frozen=True, eq=False)
class Classification:
    """Recordings, each with the probability of each class; returned by `AudioModel.classify`.

    Attributes:
        classes: with the spellings of each, whose probabilities add up.
        scores: of all spellings, for each recording.
        prior: divided out of each class's probability, in the order of the classes; None: nothing.
        temperature: by which log-probabilities are divided; 1 unless given, or fitted on labels.
    """

    classes: Mapping[str, tuple[str, ...]]
    scores: tuple[Scores, ...]
    prior: tuple[float, ...] | None = None
    temperature: float = 1.0

    @classmethod
    def of(
        cls,
        scores: Sequence[Scores],
        classes: Classes,
        prior: Prior = "none",
        temperature: float = 1.0,
    ) -> Classification:
        """Of the scores of all spellings, in their order.

        Raises:
            OptionError: for classes, a prior or a temperature that can't be used.
        """
        spellings = as_classes(classes)
        unknown = as_prior(prior, tuple(spellings))
        result = cls(spellings, tuple(scores), None, as_temperature(temperature))
        if unknown == "batch":
            if len(scores) < 2:
                raise OptionError(
                    "prior='batch' of 1 recording would make all classes alike: give several "
                    "recordings, or a prior of your own"
                )
            means = [softmax(values).mean(axis=0) for values in result._values]
            unknown = tuple(np.mean(means, axis=0).tolist())
        return replace(result, prior=unknown)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return (
            f"Classification({counted(len(self), 'recording')}, "
            f"{counted(len(self.classes), 'class', 'classes')})"
        )

    def only(self, number: int) -> Classification:
        """One recording alone."""
        return replace(self, scores=(self.scores[number],))

    @property
    def names(self) -> tuple[str, ...]:
        """The recordings."""
        return tuple(scores.name for scores in self.scores)

    @cached_property
    def _values(self) -> list[Float64[np.ndarray, "windows classes"]]:
        """For each recording, log-probabilities of the classes without prior or temperature."""
        ends = np.cumsum([len(spellings) for spellings in self.classes.values()])
        return [
            log_softmax(
                np.stack(
                    [
                        np.logaddexp.reduce(part, axis=1)
                        for part in np.split(scores.compared, ends[:-1], axis=1)
                    ],
                    axis=1,
                )
            )
            for scores in self.scores
        ]

    def _adjusted(self, number: int) -> Float64[np.ndarray, "windows classes"]:
        prior = 0.0 if self.prior is None else np.log(self.prior)
        return self._values[number] - prior

    def window_probability(self, number: int = 0) -> Float64[np.ndarray, "windows classes"]:
        """Of each class, in each window of one recording."""
        return softmax(self._tempered(self._adjusted(number)))

    @cached_property
    def log_probability(self) -> Float64[np.ndarray, "recordings classes"]:
        """Logarithm of `probability`."""
        combined = [
            over_windows(self._adjusted(number), scores.over_windows)
            for number, scores in enumerate(self.scores)
        ]
        return log_softmax(self._tempered(np.stack(combined)))

    def _tempered(
        self, values: Float64[np.ndarray, "*rows classes"]
    ) -> Float64[np.ndarray, "*rows classes"]:
        # The highest is 0, which no temperature is too low for.
        with np.errstate(over="ignore"):
            return (values - values.max(axis=-1, keepdims=True)) / self.temperature

    @property
    def probability(self) -> Float64[np.ndarray, "recordings classes"]:
        """Of each class, for each recording: they sum to 1."""
        return np.exp(self.log_probability)

    @property
    def labels(self) -> tuple[str, ...]:
        """The likeliest class of each recording."""
        classes = list(self.classes)
        return tuple(classes[best] for best in self.log_probability.argmax(axis=1))

    @property
    def mass(self) -> Float64[np.ndarray, " recordings"]:
        """The probability that the model gives to all spellings: the lowest of each recording's
        windows."""
        return np.array([scores.mass.min() for scores in self.scores])

    def fit_temperature(self, labels: Mapping[str, str] | Sequence[str]) -> Classification:
        """The same with the temperature at which the labels are likeliest (temperature scaling,
        https://arxiv.org/abs/1706.04599). Which class is likeliest stays as it is.

        Use the temperature for other recordings (`temperature=` of `classify`): for these, it
        has been chosen.

        Args:
            labels: the class of each recording, in order, or by its name.

        Raises:
            OptionError: for labels that aren't of the recordings and classes; or where no
                temperature is best, as all recordings are classified rightly, or no better than by
                chance.
        """
        right = self._numbers_of(labels)
        values = self.log_probability * self.temperature

        def slope(inverse: float) -> float:
            """Of the labels' negative log-likelihood, by the inverse temperature: it rises."""
            expected = (softmax(inverse * values) * values).sum(axis=1)
            return float((expected - values[np.arange(len(right)), right]).sum())

        low, high = 1 / _STEEPEST, _STEEPEST
        if slope(low) >= 0:
            raise OptionError(
                "the labels are no likelier by these scores than by chance, so that no temperature "
                "fits: check their order and names"
            )
        if slope(high) <= 0:
            raise OptionError(
                f"all {counted(len(right), 'recording')} have their label as the likeliest class, "
                "so that no temperature fits: give more, harder ones"
            )
        while high / low > 1 + 1e-9:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if slope(middle) > 0 else (middle, high)
        return replace(self, temperature=1 / low)

    def reliability(
        self, labels: Mapping[str, str] | Sequence[str], *, bins: int = 10
    ) -> Reliability:
        """How often the likeliest class is right, by its probability.

        Args:
            labels: see `fit_temperature`.
            bins: of equal width, from 0 to 1.

        Raises:
            OptionError: for labels that aren't of the recordings and classes.
        """
        right = self._numbers_of(labels)
        best = self.log_probability.argmax(axis=1)
        return reliability(self.probability.max(axis=1), best == right, bins)

    def _numbers_of(self, labels: Mapping[str, str] | Sequence[str]) -> np.ndarray:
        if isinstance(labels, Mapping):
            if missing := [name for name in self.names if name not in labels]:
                raise OptionError(
                    f"labels has none of {missing[0]!r:.80}: give one of each recording"
                )
            labels = [labels[name] for name in self.names]
        if isinstance(labels, str) or len(labels) != len(self):
            raise OptionError(
                f"{counted(len(labels), 'label')} for {counted(len(self), 'recording')}: give one "
                "for each, in order"
            )
        classes = list(self.classes)
        for label in labels:
            if label not in classes:
                raise OptionError(f"label {label!r:.60}: use one of {', '.join(classes)}")
        return np.array([classes.index(label) for label in labels])

    def rows(self) -> list[dict[str, Any]]:
        """One for each window: source, window, start_seconds, end_seconds, label (the likeliest
        class), mass, and the probability of each class under its name."""
        classes = list(self.classes)
        return [
            {
                "source": scores.name,
                "window": index,
                "start_seconds": window.start_seconds,
                "end_seconds": window.end_seconds,
                "label": classes[int(shares.argmax())],
                "mass": float(mass),
                **dict(zip(classes, shares.tolist(), strict=True)),
            }
            for number, scores in enumerate(self.scores)
            for index, (window, mass, shares) in enumerate(
                zip(scores.windows, scores.mass, self.window_probability(number), strict=True)
            )
        ]

    def recordings(self) -> Iterator[dict[str, Any]]:
        """A row for each recording: source, label, mass, and the probability of each class."""
        for name, label, mass, shares in zip(
            self.names, self.labels, self.mass, self.probability, strict=True
        ):
            by_class = dict(zip(self.classes, shares.tolist(), strict=True))
            yield {"source": name, "label": label, "mass": float(mass), **by_class}

    def facts(self) -> dict[str, Any]:
        """What was asked, as JSON can hold it."""
        asked = self.scores[0].facts() if self.scores else {}
        names = ("prompt", "leading_space", "include_end", "length_normalized", "over_windows")
        return {
            "classes": {name: list(texts) for name, texts in self.classes.items()},
            "prior": None if self.prior is None else list(self.prior),
            "temperature": self.temperature,
            **{name: asked[name] for name in (*names, "dtype", "edits") if name in asked},
        }

    def save(self, path: str | Path) -> Path:
        """Write `rows` as .csv or .json, or the arrays as .npz: see `save_numbers`."""
        arrays = {
            "sources": np.array(self.names),
            "probability": self.probability,
            "log_probability": self.log_probability,
            "mass": self.mass,
        }
        return save_numbers(path, self.facts(), arrays, self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """`recordings` as a table.

        Raises:
            MissingExtraError: without pandas.
        """
        return rows_to_pandas(list(self.recordings()))

    def _repr_html_(self) -> str:
        rows = [
            [f"{value:.3f}" if isinstance(value, float) else value for value in row.values()]
            for row in self.recordings()
        ]
        return html_table(("source", "label", "mass", *self.classes), rows, repr(self))
