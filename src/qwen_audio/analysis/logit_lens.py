"""Lens: what would be said at every position and level, had the language model ended there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import Span, SpanKind, rows_of_kind
from qwen_audio.models.qwen2_audio.prompt import PromptTokenizer
from qwen_audio.models.tap import Tap

from .files import save_numbers
from .lens_options import check_words

__all__ = ["LensSegment", "LogitLens", "TrackedToken", "follow"]


@dataclass(frozen=True)
class TrackedToken:
    """A word whose probability is followed.

    Attributes:
        word: as it was asked for.
        ids: the tokens whose probabilities are added up.
        label: the word; or, where it is no single token, the first token followed by "…".
    """

    word: str
    ids: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class LensSegment:
    """A stretch of audio summed up: one word a level.

    Attributes:
        words: at each level the word that is likeliest on average over the step's positions.
        probabilities: its mean, counted as 0 where it is not among the `top` likeliest.
    """

    start_seconds: float
    end_seconds: float
    words: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, eq=False, repr=False)
class LogitLens:
    """The logit lens: the final norm and head applied to the residual stream after every layer.

    A position's distribution is over the token that would come after it. The deepest level is what
    the model really says. Made by `AudioModel.lens`; after nostalgebraist, "interpreting GPT: the
    logit lens", 2020.

    Attributes:
        name: of the recording.
        prompt: the text that the model was given, as rendered.
        taps: the levels, from shallow to deep.
        seconds: shape (positions,): when in the recording an audio position starts; NaN for text.
        read: the token that stands at each position; "" where it is audio.
        spans, windows: as in `HiddenStates`.
        entropy_bits: shape (levels, positions): of the distribution over the whole vocabulary.
        top_ids, top_probabilities: shape (levels, positions, top): the likeliest, in order.
        vocabulary: the text of every token id that occurs.
        followed, followed_probabilities, followed_ranks: the words that were asked for; shape
            (levels, positions, words); rank 1 is the likeliest of all (of a word's several
            tokens the likeliest one's).
        nearest_ids, nearest_cosines: shape (audio positions, top): the token embeddings that the
            audio's own rows at `projector` point to most nearly.
        dtype: of the arithmetic; probabilities are float32 always.
    """

    name: str
    prompt: str
    taps: tuple[Tap, ...]
    seconds: Float64[np.ndarray, "positions"]
    read: tuple[str, ...]
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]
    entropy_bits: Float32[np.ndarray, "levels positions"]
    top_ids: Int32[np.ndarray, "levels positions top"]
    top_probabilities: Float32[np.ndarray, "levels positions top"]
    vocabulary: dict[int, str]
    followed: tuple[TrackedToken, ...] = ()
    followed_probabilities: Float32[np.ndarray, "levels positions words"] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.float32)
    )
    followed_ranks: Int32[np.ndarray, "levels positions words"] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.int32)
    )
    nearest_ids: Int32[np.ndarray, "audio top"] | None = None
    nearest_cosines: Float32[np.ndarray, "audio top"] | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        shape = (len(self.taps), len(self.read))
        covered = self.spans[-1].stop if self.spans else 0
        fits = self.top_ids.shape == self.top_probabilities.shape
        fits &= self.top_ids.shape[:2] == self.entropy_bits.shape == shape
        fits &= len(self.seconds) == covered == shape[1]
        if self.followed:
            followed = (*shape, len(self.followed))
            fits &= self.followed_probabilities.shape == self.followed_ranks.shape == followed
        if not fits:
            raise ValueError(f"arrays of different lengths for {shape[0]} levels × {shape[1]}")

    def rows(self, kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
        """Indices of the positions of one kind, in order."""
        return rows_of_kind(self.spans, kind)

    @property
    def end_seconds(self) -> float:
        """When the last audio position ends."""
        return float(self.seconds[self.rows("audio")].max()) + self.taps[0].hop_seconds

    def level(self, tap: str | Tap) -> int:
        """The index of a tap among the levels. Raises OptionError if it isn't one of them."""
        names = [str(known) for known in self.taps]
        if str(tap) not in names:
            raise OptionError(f"{tap} is not in this lens: it has {', '.join(names)}")
        return names.index(str(tap))

    def words(self, level: int, position: int) -> list[tuple[str, float]]:
        """The likeliest tokens' texts at a level and position, with their probabilities."""
        ids = self.top_ids[level, position]
        probabilities = self.top_probabilities[level, position]
        return [
            (self.vocabulary[int(i)], float(p)) for i, p in zip(ids, probabilities, strict=True)
        ]

    def steps(self, most: int = 16) -> list[LensSegment]:
        """The audio, in at most so many steps of equal length, with one word a level."""
        audio = self.rows("audio")
        if not len(audio):
            return []
        hop = self.taps[0].hop_seconds
        end = self.end_seconds
        start = float(self.seconds[audio].min())
        count = max(1, min(most, round((end - start) / hop)))
        length = (end - start) / count
        place = ((self.seconds[audio] + hop / 2 - start) / length).astype(np.int64)
        place = np.clip(place, 0, count - 1)
        steps = []
        for number in range(count):
            mine = audio[place == number]
            if len(mine):
                best = [self._likeliest(level, mine) for level in range(len(self.taps))]
                words, probabilities = zip(*best, strict=True)
                begin = start + number * length
                steps.append(LensSegment(begin, begin + length, words, probabilities))
        return steps

    def _likeliest(self, level: int, positions: Int64[np.ndarray, "some"]) -> tuple[str, float]:
        ids, probabilities = (
            self.top_ids[level, positions],
            self.top_probabilities[level, positions],
        )
        known, place = np.unique(ids, return_inverse=True)
        sums = np.bincount(place.ravel(), probabilities.ravel())
        best = int(sums.argmax())
        return self.vocabulary[int(known[best])], float(sums[best] / len(positions))

    def save(self, path: str | Path) -> Path:
        """.npz: all arrays; .csv and .json: a row for each position and level.

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        arrays = {
            name: getattr(self, name)
            for name in (
                "seconds",
                "entropy_bits",
                "top_ids",
                "top_probabilities",
                "followed_probabilities",
                "followed_ranks",
                "nearest_ids",
                "nearest_cosines",
            )
        }
        facts = self.facts()
        if Path(path).suffix != ".json":  # whose rows say these
            facts |= {
                "spans": [dataclasses.asdict(span) for span in self.spans],
                "read": self.read,
                "vocabulary": self.vocabulary,
            }
        return save_numbers(path, facts, arrays, self.table)

    def facts(self) -> dict[str, Any]:
        """What is to be known of it beside its numbers."""
        return {
            "name": self.name,
            "prompt": self.prompt,
            "taps": [str(tap) for tap in self.taps],
            "dtype": self.dtype,
            "windows": [dataclasses.asdict(window) for window in self.windows],
            "followed": [dataclasses.asdict(word) for word in self.followed],
        }

    def table(self) -> list[dict[str, Any]]:
        """A row for each position and level."""
        kinds = [span.kind for span in self.spans for _ in range(len(span))]
        audio = {int(row): place for place, row in enumerate(self.rows("audio"))}
        table = []
        for position, (kind, read) in enumerate(zip(kinds, self.read, strict=True)):
            for level, tap in enumerate(self.taps):
                row = {
                    "position": position,
                    "kind": kind,
                    "start_seconds": self.seconds[position],
                    "read": read,
                    "tap": str(tap),
                    "entropy_bits": self.entropy_bits[level, position],
                }
                for place, (word, probability) in enumerate(self.words(level, position), start=1):
                    row |= {f"word_{place}": word, f"probability_{place}": probability}
                for number, followed in enumerate(self.followed):
                    at = (level, position, number)
                    row[f"probability of {followed.label}"] = self.followed_probabilities[at]
                    row[f"rank of {followed.label}"] = self.followed_ranks[at]
                if self.nearest_ids is not None and self.nearest_cosines is not None:
                    place = audio.get(position, -1)
                    known = place >= 0
                    row["nearest"] = (
                        self.vocabulary[int(self.nearest_ids[place, 0])] if known else ""
                    )
                    row["cosine"] = self.nearest_cosines[place, 0] if known else float("nan")
                table.append(row)
        return table

    def __repr__(self) -> str:
        levels, positions, top = self.top_ids.shape
        followed = "".join(f", {word.label}" for word in self.followed)
        return (
            f"LogitLens({self.name!r}: {self.taps[0]} … {self.taps[-1]}, "
            f"{levels} levels × {positions} "
            f"positions, top {top}{followed})"
        )


def follow(prompts: PromptTokenizer, words: Sequence[str]) -> tuple[TrackedToken, ...]:
    """Words → the tokens to follow for each.

    A text can say a word with a space before it or, at its beginning, without. Those of the two
    that are a single token are followed, added up. Where neither is one, it is the first token of
    each: other words may begin with it too, which the label says with a "…".

    Raises:
        OptionError: for what is no word; for one whose first token is no whole character; for two
            that are followed by the same tokens.
    """
    check_words(words)
    followed: dict[int, TrackedToken] = {}
    for word in words:
        found = _followed(prompts, word)
        for token in found.ids:
            if (other := followed.get(token)) is not None:
                raise OptionError(
                    f"tokens: {other.word!r} and {word!r} share their first token, "
                    f"{prompts.decode_token(token)!r}, and can't be told apart: follow one of them"
                )
        followed |= dict.fromkeys(found.ids, found)
    return tuple(dict.fromkeys(followed.values()))


def _followed(prompts: PromptTokenizer, word: Any) -> TrackedToken:
    text = word.strip()
    spellings = [prompts.encode(f" {text}"), prompts.encode(text)]
    whole = tuple(dict.fromkeys(ids[0] for ids in spellings if len(ids) == 1))
    if whole:
        return TrackedToken(word, whole, text)
    first = dict.fromkeys(ids[0] for ids in spellings)
    pieces = {i: prompts.decode_token(i).strip() for i in first}
    known = {
        i: piece
        for i, piece in pieces.items()
        if piece and "\N{REPLACEMENT CHARACTER}" not in piece
    }
    if not known:
        raise OptionError(
            f"tokens: {word!r} can't be followed: this model's tokenizer begins it with a part of "
            "a character, which says nothing of the word"
        )
    return TrackedToken(word, tuple(known), f"{max(known.values(), key=len)}…")
