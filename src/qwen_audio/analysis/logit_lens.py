"""Logit lens: next-token distributions after every layer of the language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError, whole_number_option
from qwen_audio.inference.row_index import IndexedRows, RowIndex
from qwen_audio.inference.spans import Span, SpanKind, index_of_spans, indices_of_kind
from qwen_audio.models.components.prompt import PromptTokenizer
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Tap

from .files import save_numbers
from .lens_options import check_words
from .lens_segments import LensSegment, lens_segments
from .picture import Picture

__all__ = ["LogitLens", "TrackedToken", "track_tokens"]


@dataclass(frozen=True)
class TrackedToken:
    """A word whose probability is tracked.

    Attributes:
        word: as given.
        ids: the tokens whose probabilities are summed.
        label: the word; its first token and "…" if it isn't a single token.
    """

    word: str
    ids: tuple[int, ...]
    label: str


@dataclass(frozen=True, eq=False, repr=False)
class LogitLens(IndexedRows, Picture):
    """The logit lens: the final norm and head applied to the residual stream after every layer.

    The distribution at a position is over the next token. That of the last layer is the model's own
    prediction. Created by `AudioModel.lens`; after nostalgebraist, "interpreting GPT: the
    logit lens", 2020.

    Attributes:
        name: of the recording.
        prompt: the rendered prompt.
        taps: the layers, from shallow to deep; their indices are called levels.
        start_seconds: shape (positions,): of audio, in the recording; NaN for text. Also
            `end_seconds`, `window`, `span` and `source`: see `RowIndex`.
        read: the token at each position; "" for audio.
        spans, windows, row_times: as in `HiddenStates`.
        entropy_bits: shape (levels, positions): of the distribution over the whole vocabulary.
        top_ids, top_probabilities: shape (levels, positions, top): the most likely tokens.
        vocabulary: token id → text, for the ids that occur.
        followed, followed_probabilities, followed_ranks: the tracked words; shape (levels,
            positions, words); rank 1 is the most likely token (a word of several tokens has the
            rank of its most likely one).
        nearest_ids, nearest_cosines: shape (audio positions, top): the token embeddings of highest
            cosine similarity to the audio rows at `projector`.
        dtype: of the computation; probabilities are always float32.
    """

    name: str
    prompt: str
    taps: tuple[Tap, ...]
    start_seconds: Float64[np.ndarray, "positions"]
    read: tuple[str, ...]
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]
    row_times: RowTimes
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
        fits &= len(self.start_seconds) == covered == shape[1]
        if self.followed:
            followed = (*shape, len(self.followed))
            fits &= self.followed_probabilities.shape == self.followed_ranks.shape == followed
        if not fits:
            raise ValueError(f"arrays of different lengths for {shape[0]} levels × {shape[1]}")

    def indices(self, kind: SpanKind) -> Int64[np.ndarray, "chosen"]:
        """Indices of the positions of one kind, in order."""
        return indices_of_kind(self.spans, kind)

    @property
    def index(self) -> RowIndex:
        """The recording, window, time, span and token of each position."""
        starts, times = self.start_seconds, self.row_times
        return index_of_spans(self.name, self.spans, starts, self.windows, times, self.read)

    def level(self, tap: str | Tap) -> int:
        """The index of a tap among the levels. Raises OptionError if it isn't one of them."""
        names = [str(known) for known in self.taps]
        if str(tap) not in names:
            raise OptionError(f"{tap} is not in this lens: it has {', '.join(names)}")
        return names.index(str(tap))

    def words(self, level: int, position: int) -> list[tuple[str, float]]:
        """The most likely tokens at a level and position: (text, probability)."""
        ids = self.top_ids[level, position]
        probabilities = self.top_probabilities[level, position]
        return [
            (self.vocabulary[int(i)], float(p)) for i, p in zip(ids, probabilities, strict=True)
        ]

    def steps(self, most: int = 16) -> list[LensSegment]:
        """The audio in at most so many segments of equal length, with their likeliest tokens.

        Raises:
            OptionError: unless `most` is a whole number from 1 on.
        """
        return lens_segments(self, whole_number_option("most", most, 1))

    def save(self, path: str | Path) -> Path:
        """Write all arrays (.npz), or a table with a row per position and level (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        names = ("start_seconds", "end_seconds", "entropy_bits", "top_ids", "top_probabilities")
        more = ("followed_probabilities", "followed_ranks", "nearest_ids", "nearest_cosines")
        arrays = {name: getattr(self, name) for name in (*names, *more)}
        facts = self.facts()
        if Path(path).suffix != ".json":  # its rows contain these
            facts |= {
                "spans": [dataclasses.asdict(span) for span in self.spans],
                "read": self.read,
                "vocabulary": self.vocabulary,
            }
        return save_numbers(path, facts, arrays, self.table)

    def facts(self) -> dict[str, Any]:
        """Metadata: everything but the arrays."""
        return {
            "name": self.name,
            "prompt": self.prompt,
            "taps": [str(tap) for tap in self.taps],
            "dtype": self.dtype,
            "windows": [dataclasses.asdict(window) for window in self.windows],
            "followed": [dataclasses.asdict(word) for word in self.followed],
        }

    def table(self) -> list[dict[str, Any]]:
        """One row per position and level."""
        audio_index = {int(row): k for k, row in enumerate(self.indices("audio"))}
        table, index = [], self.index
        for position, read in enumerate(self.read):
            for level, tap in enumerate(self.taps):
                row = {
                    "position": position,
                    "window": index.window[position],
                    "span": index.span[position],
                    "start_seconds": index.start_seconds[position],
                    "end_seconds": index.end_seconds[position],
                    "read": read,
                    "tap": str(tap),
                    "entropy_bits": self.entropy_bits[level, position],
                }
                for rank, (word, probability) in enumerate(self.words(level, position), start=1):
                    row |= {f"word_{rank}": word, f"probability_{rank}": probability}
                for number, followed in enumerate(self.followed):
                    at = (level, position, number)
                    row[f"probability of {followed.label}"] = self.followed_probabilities[at]
                    row[f"rank of {followed.label}"] = self.followed_ranks[at]
                if self.nearest_ids is not None and self.nearest_cosines is not None:
                    number = audio_index.get(position, -1)
                    is_audio = number >= 0
                    row["nearest"] = (
                        self.vocabulary[int(self.nearest_ids[number, 0])] if is_audio else ""
                    )
                    row["cosine"] = self.nearest_cosines[number, 0] if is_audio else float("nan")
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


def track_tokens(tokenizer: PromptTokenizer, words: Sequence[str]) -> tuple[TrackedToken, ...]:
    """The tokens to track for each word. The name of a control token is that token.

    A word has a spelling with a space before it and one without. Those that are single tokens are
    tracked together. If neither is, the first token of each is tracked; as other words may begin
    with it, the label ends in "…".

    Raises:
        OptionError: for anything but words, a word whose first token isn't a whole character, and
            two words with the same tokens.
    """
    check_words(words)
    tracked: dict[int, TrackedToken] = {}
    for word in words:
        token = _tracked_token(tokenizer, word)
        for token_id in token.ids:
            if (other := tracked.get(token_id)) is not None:
                raise OptionError(
                    f"tokens: {other.word!r} and {word!r} share their first token, "
                    f"{tokenizer.decode_token(token_id)!r}: track one of them"
                )
        tracked |= dict.fromkeys(token.ids, token)
    return tuple(dict.fromkeys(tracked.values()))


def _tracked_token(tokenizer: PromptTokenizer, word: Any) -> TrackedToken:
    text = word.strip()
    spellings = [tokenizer.encode(f" {text}"), tokenizer.encode(text)]
    whole = tuple(dict.fromkeys(ids[0] for ids in spellings if len(ids) == 1))
    if whole:
        return TrackedToken(word, whole, text)
    first = dict.fromkeys(ids[0] for ids in spellings)
    texts = {i: tokenizer.decode_token(i).strip() for i in first}
    known = {i: t for i, t in texts.items() if t and "\N{REPLACEMENT CHARACTER}" not in t}
    if not known:
        raise OptionError(
            f"tokens: {word!r} can't be tracked: its first token is a part of a character: use "
            "another word"
        )
    return TrackedToken(word, tuple(known), f"{max(known.values(), key=len)}…")
