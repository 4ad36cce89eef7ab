"""Reliability: whether what is said with a probability is right as often as that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from qwen_audio.errors import whole_number_option

from .files import save_numbers
from .intervals import wilson_interval

__all__ = ["Reliability", "reliability"]


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the likeliest class is right, by its probability, in bins that aren't empty.

    Attributes:
        confidence: the mean probability of each bin, (bins,).
        accuracy: the share of each bin that is right.
        low, high: of accuracy: Wilson's interval of 95 %.
        counts: recordings of each bin.
    """

    confidence: Float64[np.ndarray, " bins"]
    accuracy: Float64[np.ndarray, " bins"]
    low: Float64[np.ndarray, " bins"]
    high: Float64[np.ndarray, " bins"]
    counts: Int64[np.ndarray, " bins"]

    @property
    def expected_calibration_error(self) -> float:
        """The mean distance of accuracy from confidence, over recordings
        (https://arxiv.org/abs/1706.04599)."""
        return float(np.average(abs(self.accuracy - self.confidence), weights=self.counts))

    @property
    def recordings(self) -> int:
        """How many there are in all bins."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """Of how many of them the likeliest class is the true one."""
        return round(float(self.accuracy @ self.counts))

    @property
    def mean_accuracy(self) -> float:
        """The share of all recordings that is right."""
        return self.right / self.recordings

    def facts(self) -> dict[str, Any]:
        """Of all recordings: how many, how many are right, and the calibration error."""
        return {
            "recordings": self.recordings,
            "right": self.right,
            "accuracy": self.mean_accuracy,
            "expected_calibration_error": self.expected_calibration_error,
        }

    def rows(self) -> list[dict[str, Any]]:
        """One for each bin: confidence, accuracy, low, high, recordings."""
        columns = (self.confidence, self.accuracy, self.low, self.high, self.counts)
        names = ("confidence", "accuracy", "low", "high", "recordings")
        return [
            dict(zip(names, (value.item() for value in values), strict=True))
            for values in zip(*columns, strict=True)
        ]

    def save(self, path: str | Path) -> Path:
        """Write `rows` as .csv or .json, or the arrays as .npz: see `save_numbers`."""
        return save_numbers(path, self.facts(), dict(vars(self)), self.rows)


def reliability(
    confidence: Float64[np.ndarray, " items"], is_right: Bool[np.ndarray, " items"], bins: int
) -> Reliability:
    """How often predictions are right, in bins of their probability.

    Args:
        confidence: the probability of each item's predicted class.
        is_right: whether that is the true one.

    Raises:
        OptionError: for no bins.
    """
    bins = whole_number_option("bins", bins, 1, 1000)
    of_item = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(of_item, minlength=bins)
    used = counts > 0
    n = counts[used]
    right = np.bincount(of_item, is_right, minlength=bins)[used]
    low, high = wilson_interval(right, n.astype(np.float64))
    mean = np.bincount(of_item, confidence, minlength=bins)[used] / n
    return Reliability(mean, right / n, low, high, n.astype(np.int64))
