"""Layers: how alike the taps of a line are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from qwen_audio.errors import OptionError

from .files import save_numbers

__all__ = ["LayerSimilarity", "cka_matrix"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerSimilarity:
    """How alike the taps of a line are over some recordings; made by `AudioModel.layer_similarity`.

    Attributes:
        names: of the recordings.
        taps: from shallow to deep.
        similarity: shape (taps, taps): see `cka_matrix`.
        examples: how many stretches of sound it was computed from, each of 40 ms or more.
        dtype: of the arithmetic.
    """

    names: tuple[str, ...]
    taps: tuple[str, ...]
    similarity: Float32[np.ndarray, "taps taps"]
    examples: int
    dtype: str

    def __post_init__(self) -> None:
        if self.similarity.shape != (len(self.taps), len(self.taps)):
            raise ValueError(f"{self.similarity.shape} for {len(self.taps)} taps")

    def save(self, path: str | Path) -> Path:
        """.npz: the matrix; .csv and .json: a row a tap.

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        return save_numbers(path, self.facts(), {"similarity": self.similarity}, self.table)

    def facts(self) -> dict[str, Any]:
        """What is to be known of it beside its numbers."""
        return {
            "names": self.names,
            "taps": self.taps,
            "examples": self.examples,
            "dtype": self.dtype,
        }

    def table(self) -> list[dict[str, Any]]:
        """A row a tap."""
        return [
            {"tap": tap, **dict(zip(self.taps, row, strict=True))}
            for tap, row in zip(self.taps, self.similarity, strict=True)
        ]

    def __repr__(self) -> str:
        return (
            f"LayerSimilarity({len(self.taps)} taps over {len(self.names)} recordings, "
            f"{self.examples} examples)"
        )


def cka_matrix(
    views: Sequence[Float[np.ndarray, "_examples _width"]],
) -> Float64[np.ndarray, "views views"]:
    """Linear centred kernel alignment (CKA) of every pair of representations of the same examples.

    1 where two are the same up to rotation and scale, 0 where they are unrelated (Kornblith et al.,
    "Similarity of neural network representations revisited", 2019), with the estimate of HSIC that
    is unbiased for few examples in many dimensions (Song et al., "Feature selection via dependence
    maximization", 2012), which may come out slightly below 0. NaN where the examples don't differ.

    Raises:
        OptionError: for fewer than 4 examples, or different numbers of them.
    """
    counts = {len(view) for view in views}
    if len(counts) != 1 or min(counts) < 4:
        raise OptionError(
            f"CKA of {sorted(counts)} examples: it takes the same 4 or more on every side"
        )
    grams = np.stack([_without_diagonal(view).ravel() for view in views])
    products = grams.astype(np.float64) @ grams.T.astype(np.float64)
    lengths = np.sqrt(np.diag(products))
    scale = np.where(lengths > 0, lengths, np.nan)
    return products / np.outer(scale, scale)


def _without_diagonal(
    view: Float[np.ndarray, "examples width"],
) -> Float32[np.ndarray, "examples examples"]:
    """The products of all pairs of examples, U-centred (Székely & Rizzo, "Partial distance
    correlation", 2014): sums over pairs of such are n(n−3) times the unbiased HSIC. Scaled to 1."""
    centred = view.astype(np.float64) - view.mean(axis=0, dtype=np.float64)
    size = float(np.abs(centred).max(initial=0))
    least = 1e-6 * max(float(np.abs(view).max(initial=0)), 1e-30)
    if size <= least:  # what rounding leaves of examples that are all the same
        return np.zeros((len(view), len(view)), np.float32)
    centred /= size
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0)
    n, sums = len(gram), gram.sum(axis=0)
    gram += sums.sum() / ((n - 1) * (n - 2)) - (sums[:, None] + sums[None, :]) / (n - 2)
    np.fill_diagonal(gram, 0)
    return (gram / np.linalg.norm(gram)).astype(np.float32)
