"""Segments of audio of a logit lens: the most likely tokens of each layer in the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int32, Int64

from qwen_audio.inference.spans import SpanKind
from qwen_audio.models.row_times import RowTimes

__all__ = ["LensSegment", "lens_segments"]


@runtime_checkable
class _Lens(Protocol):
    """What is read of a `LogitLens`, which has these segments."""

    @property
    def taps(self) -> Sequence[Any]: ...
    @property
    def start_seconds(self) -> Float[np.ndarray, "positions"]: ...
    @property
    def end_seconds(self) -> Float[np.ndarray, "positions"]: ...
    @property
    def row_times(self) -> RowTimes: ...
    @property
    def entropy_bits(self) -> Float32[np.ndarray, "levels positions"]: ...
    @property
    def top_ids(self) -> Int32[np.ndarray, "levels positions top"]: ...
    @property
    def top_probabilities(self) -> Float32[np.ndarray, "levels positions top"]: ...
    @property
    def vocabulary(self) -> Mapping[int, str]: ...
    @property
    def followed(self) -> Sequence[Any]: ...
    @property
    def followed_probabilities(self) -> Float32[np.ndarray, "levels positions words"]: ...
    def indices(self, kind: SpanKind) -> Int64[np.ndarray, "chosen"]: ...


@dataclass(frozen=True)
class LensSegment:
    """A segment of audio with the most likely tokens of each layer.

    Attributes:
        likeliest: for each layer the tokens with the highest mean probabilities over the segment,
            as (text, probability), the likeliest first; as many as the lens has (`top`). A position
            where a token isn't among the `top` most likely counts as 0.
        entropy_bits: for each layer the mean.
        followed_probabilities: for each layer and tracked word the mean.
    """

    start_seconds: float
    end_seconds: float
    likeliest: tuple[tuple[tuple[str, float], ...], ...]
    entropy_bits: tuple[float, ...]
    followed_probabilities: tuple[tuple[float, ...], ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The likeliest token of each layer."""
        return tuple(tokens[0][0] for tokens in self.likeliest)

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The mean probability of each of `words`."""
        return tuple(tokens[0][1] for tokens in self.likeliest)


def lens_segments(lens: _Lens, most: int) -> list[LensSegment]:
    """The audio of a lens in at most `most` segments of equal length."""
    audio = lens.indices("audio")
    if not len(audio):
        return []
    hop = lens.row_times.hop_seconds
    end = float(lens.end_seconds[audio].max())
    start = float(lens.start_seconds[audio].min())
    count = max(1, min(most, round((end - start) / hop)))
    length = (end - start) / count
    number_of = ((lens.start_seconds[audio] + hop / 2 - start) / length).astype(np.int64)
    number_of = np.clip(number_of, 0, count - 1)
    segments = []
    for number in range(count):
        positions = audio[number_of == number]
        if len(positions):
            begin = start + number * length
            segments.append(_segment(lens, begin, begin + length, positions))
    return segments


def _segment(
    lens: _Lens, start: float, end: float, positions: Int64[np.ndarray, "some"]
) -> LensSegment:
    levels = range(len(lens.taps))
    followed = (
        lens.followed_probabilities[:, positions].mean(axis=1).tolist()
        if lens.followed
        else [[] for _ in levels]
    )
    return LensSegment(
        start,
        end,
        tuple(_likeliest(lens, level, positions) for level in levels),
        tuple(lens.entropy_bits[:, positions].mean(axis=1).tolist()),
        tuple(map(tuple, followed)),
    )


def _likeliest(
    lens: _Lens, level: int, positions: Int64[np.ndarray, "some"]
) -> tuple[tuple[str, float], ...]:
    ids, probabilities = lens.top_ids[level, positions], lens.top_probabilities[level, positions]
    known, index = np.unique(ids, return_inverse=True)
    means = np.bincount(index.ravel(), probabilities.ravel()) / len(positions)
    best = np.argsort(-means, kind="stable")[: ids.shape[1]]
    return tuple((lens.vocabulary[int(known[token])], float(means[token])) for token in best)
