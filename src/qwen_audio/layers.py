"""Layers: how alike the taps of a line are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from .files import save_numbers

__all__ = ["Layers"]


@dataclass(frozen=True, eq=False, repr=False)
class Layers:
    """How alike the taps of a line are over some recordings; made by `QwenAudio.layers`.

    Attributes:
        names: of the recordings.
        taps: from shallow to deep.
        similarity: shape (taps, taps): see `views.linear_cka`.
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
            f"Layers({len(self.taps)} taps over {len(self.names)} recordings, "
            f"{self.examples} examples)"
        )
