"""What a search returns: windows with their relevance, best first, as a list that can be shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qwen_audio.analysis.files import save_numbers
from qwen_audio.audio.timecode import format_range
from qwen_audio.errors import counted
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.html_table import html_table
from qwen_audio.paths import file_name

__all__ = ["SearchResult", "SearchResults"]


@dataclass(frozen=True)
class SearchResult:
    """One window that a search returned.

    Attributes:
        rank: 1 for the best.
        score: cosine similarity with the query (1: the same direction); for full-text search the
            BM25 score (positive; only its order means something).
        source: path or URI of the recording.
        window: its number in the recording, from 0 on.
        start_seconds, end_seconds: in the recording.
        caption: of the window, if the collection has captions.
        columns: all columns of its row except `vector`.
    """

    rank: int
    score: float
    source: str
    window: int
    start_seconds: float
    end_seconds: float
    caption: str | None
    columns: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """`source#number of the window`, as `Collection.search(like=…)` takes it."""
        return f"{self.source}#{self.window}"

    @property
    def time(self) -> str:
        """The time of the window, to be shown: 0:05–0:10."""
        return format_range(self.start_seconds, self.end_seconds)

    @property
    def name(self) -> str:
        """The file's name, to be shown."""
        return file_name(self.source)

    def row(self) -> dict[str, Any]:
        """Its attributes but the further columns."""
        names = ("rank", "score", "source", "window", "start_seconds", "end_seconds", "caption")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        text = f": {self.caption}" if self.caption else ""
        return f"{self.rank:2}  {self.score:.3f}  {self.id} at {self.time}{text}"


class SearchResults(list[SearchResult]):
    """The windows that a search returned, best first: a list, which notebooks show as a table.

    Attributes:
        spec: what the vectors of the collection were made with, its tap and span among it.
        metric: what the scores are: "cosine" similarities of vectors, or "BM25" of captions.
        typical_score: the median cosine similarity of the query with up to 1000 windows spread over
            the collection: what a window scores that has nothing to do with the query. None for
            captions.
        left_out: the query's own recording or row, which was not compared with itself; None where
            the query isn't in the collection, or `include_self` is set.
    """

    def __init__(
        self,
        results: Iterable[SearchResult] = (),
        *,
        spec: EmbeddingSpec,
        metric: Literal["cosine", "BM25"],
        typical_score: float | None = None,
        left_out: str | None = None,
    ) -> None:
        super().__init__(results)
        self.spec, self.metric = spec, metric
        self.typical_score, self.left_out = typical_score, left_out

    @property
    def explanation(self) -> str:
        """What the scores mean, in one line."""
        if self.metric == "BM25":
            return "scores: BM25 of the query's words in captions; only their order means something"
        meaning = "scores: cosine similarity with the query; 1 is the same direction"
        if self.typical_score is None:
            return meaning
        return f"{meaning}, {self.typical_score:.3f} the median of this collection's windows"

    def table(self) -> list[dict[str, Any]]:
        """`SearchResult.row` of each, best first."""
        return [result.row() for result in self]

    def save(self, path: str | Path) -> Path:
        """Write `table` as .csv or .json, or the scores and rows as .npz: see `save_numbers`."""
        facts = {
            "metric": self.metric,
            "typical_score": self.typical_score,
            "left_out": self.left_out,
            "spec": json.loads(self.spec.to_json()),
        }
        arrays = {
            "score": np.array([result.score for result in self]),
            "source": np.array([result.source for result in self]),
            "window": np.array([result.window for result in self], np.int64),
        }
        return save_numbers(path, facts, arrays, self.table)

    def _repr_html_(self) -> str:
        has_captions = any(result.caption for result in self)
        columns = ("rank", self.metric, "id", "time", *(["caption"] if has_captions else []))
        rows = (
            (r.rank, f"{r.score:.3f}", r.id, r.time, *([r.caption or ""] if has_captions else []))
            for r in self
        )
        return html_table(columns, rows, f"{counted(len(self), 'window')}; {self.explanation}")
