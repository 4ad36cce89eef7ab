"""Similarity of layers: linear CKA between all pairs of taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from qwen_audio.errors import OptionError, counted

from .files import save_numbers
from .picture import Picture

__all__ = ["LayerSimilarity", "cka_matrix"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerSimilarity(Picture):
    """Linear CKA of all pairs of taps over recordings; created by `AudioModel.layer_similarity`.

    Attributes:
        names: of the recordings.
        taps: from shallow to deep.
        similarity: shape (taps, taps): see `cka_matrix`.
        examples: number of audio segments, each of 40 ms or more, that it was computed from.
        dtype: of the computation.
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
        """Write the matrix (.npz), or a table with a row per tap (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        return save_numbers(path, self.facts(), {"similarity": self.similarity}, self.table)

    def facts(self) -> dict[str, Any]:
        """Metadata: everything but the matrix."""
        return {
            "names": self.names,
            "taps": self.taps,
            "examples": self.examples,
            "dtype": self.dtype,
        }

    def table(self) -> list[dict[str, Any]]:
        """One row per tap."""
        return [
            {"tap": tap, **dict(zip(self.taps, row, strict=True))}
            for tap, row in zip(self.taps, self.similarity, strict=True)
        ]

    def __repr__(self) -> str:
        return (
            f"LayerSimilarity({counted(len(self.taps), 'tap')} over "
            f"{counted(len(self.names), 'recording')}, {counted(self.examples, 'example')})"
        )


def cka_matrix(
    views: Sequence[Float[np.ndarray, "_examples _width"]],
) -> Float64[np.ndarray, "views views"]:
    """Linear centred kernel alignment (CKA) of every pair of representations of the same examples.

    1 if two are equal up to rotation and scale, 0 if unrelated (Kornblith et al., "Similarity of
    neural network representations revisited", 2019). HSIC is estimated without bias (Song et al.,
    "Feature selection via dependence maximization", 2012), as there are few examples in many
    dimensions; the result may be slightly below 0. NaN if all examples are equal.

    Raises:
        OptionError: for fewer than 4 examples, or different numbers of them.
    """
    counts = {len(view) for view in views}
    if len(counts) != 1 or min(counts) < 4:
        raise OptionError(
            f"CKA of {sorted(counts)} examples: give the same number for all, 4 or more"
        )
    grams = np.stack([_u_centred_gram(view).ravel() for view in views])
    products = grams.astype(np.float64) @ grams.T.astype(np.float64)
    lengths = np.sqrt(np.diag(products))
    scale = np.where(lengths > 0, lengths, np.nan)
    return products / np.outer(scale, scale)


def _u_centred_gram(
    view: Float[np.ndarray, "examples width"],
) -> Float32[np.ndarray, "examples examples"]:
    """U-centred Gram matrix of the examples, of Frobenius norm 1 (Székely & Rizzo, "Partial
    distance correlation", 2014): the product of two is n(n−3) times the unbiased HSIC."""
    centred = view.astype(np.float64) - view.mean(axis=0, dtype=np.float64)
    size = float(np.abs(centred).max(initial=0))
    least = 1e-6 * max(float(np.abs(view).max(initial=0)), 1e-30)
    if size <= least:  # only rounding errors: all examples are equal
        return np.zeros((len(view), len(view)), np.float32)
    centred /= size
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0)
    n, sums = len(gram), gram.sum(axis=0)
    gram += sums.sum() / ((n - 1) * (n - 2)) - (sums[:, None] + sums[None, :]) / (n - 2)
    np.fill_diagonal(gram, 0)
    return (gram / np.linalg.norm(gram)).astype(np.float32)
