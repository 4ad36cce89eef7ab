"""AttentionWeights: where the language model's attention looks, by layer, head and position."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from qwen_audio.errors import counted
from qwen_audio.inference.row_index import RowIndex

from .files import where_set
from .picture import Picture
from .tabulated import Tabulated

__all__ = ["AttentionWeights"]


@dataclass(frozen=True, eq=False, repr=False)
class AttentionWeights(Tabulated, Picture):
    """Attention weights of chosen layers, heads and queries; returned by `AudioModel.attention`.

    They say where attention looks, not why an answer is what it is: values that are looked at may
    be ignored, and the first position is looked at by many heads that have nothing to do. What an
    answer depends on is a question for `occlusion` and `trace`.

    Attributes:
        name: of the recording.
        prompt: as rendered.
        levels: k for the attention of the layer before `lm.k`, from 1 on.
        heads: numbers of the heads of queries, from 0 on.
        weights: shape (levels, heads, queries, keys): over all keys they sum to 1; those of later
            positions are 0.
        query_positions: shape (queries,): their positions in the language model.
        keys: of all positions: their times, spans and tokens.
        dtype: of the computation; weights are computed in float32 of its queries and keys.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    name: str
    prompt: str
    levels: tuple[int, ...]
    heads: tuple[int, ...]
    weights: Float32[np.ndarray, "levels heads queries keys"]
    query_positions: np.ndarray
    keys: RowIndex
    dtype: str = "float32"
    edits: str | None = None

    def __post_init__(self) -> None:
        expected = (len(self.levels), len(self.heads), len(self.query_positions), len(self.keys))
        if self.weights.shape != expected:
            raise ValueError(f"weights of shape {self.weights.shape}, not {expected}")

    @property
    def queries(self) -> RowIndex:
        """Times, spans and tokens of the queries."""
        return self.keys[self.query_positions]

    @property
    def is_audio(self) -> Bool[np.ndarray, "keys"]:
        """Which keys are audio."""
        return np.asarray(self.keys.span == "audio")

    @property
    def by_level(self) -> Float32[np.ndarray, "levels queries keys"]:
        """The mean over the heads."""
        return np.asarray(self.weights.mean(axis=1))

    @property
    def on_audio(self) -> Float32[np.ndarray, "levels heads queries"]:
        """The share of each query's attention that audio has."""
        return np.asarray(self.weights[..., self.is_audio].sum(-1))

    def table(self) -> list[dict[str, Any]]:
        """One row for each level, head, query and key up to the query."""
        tokens = self._tokens()
        return [
            {
                "level": level,
                "head": head,
                "query": int(query),
                "query_token": tokens[query],
                "key": key,
                "key_token": tokens[key],
                "span": str(self.keys.span[key]),
                "start_seconds": float(self.keys.start_seconds[key]),
                "end_seconds": float(self.keys.end_seconds[key]),
                "weight": float(of_query[key]),
            }
            for (level, of_level) in zip(self.levels, self.weights, strict=True)
            for (head, of_head) in zip(self.heads, of_level, strict=True)
            for (query, of_query) in zip(self.query_positions, of_head, strict=True)
            for key in range(query + 1)
        ]

    def arrays(self) -> dict[str, np.ndarray]:
        """The numbers, and what their axes are of."""
        arrays = {"weights": self.weights, "query_positions": self.query_positions}
        return arrays | {f"key_{name}": column for name, column in self.keys.columns().items()}

    def facts(self) -> dict[str, Any]:
        """What the weights are of."""
        return {
            "name": self.name,
            "prompt": self.prompt,
            "levels": self.levels,
            "heads": self.heads,
            "dtype": self.dtype,
            **where_set(edits=self.edits),
        }

    def query_names(self) -> list[str]:
        """A text for each query: its token, or its time."""
        index, tokens = self.queries, self._tokens()
        return [
            f"{start:.2f} s" if span == "audio" else tokens[position].strip() or f"({position})"
            for start, span, position in zip(
                index.start_seconds, index.span, self.query_positions, strict=True
            )
        ]

    def _tokens(self) -> list[str]:
        tokens = self.keys.token
        return list(itertools.repeat("", len(self.keys))) if tokens is None else tokens.tolist()

    def __repr__(self) -> str:
        counts = zip(self.weights.shape, ("level", "head", "query position", "key"), strict=True)
        shape = " × ".join(counted(count, name) for count, name in counts)
        return (
            f"AttentionWeights({shape}; {self.on_audio.mean():.0%} of it on the audio; "
            f"{self.dtype})"
        )
