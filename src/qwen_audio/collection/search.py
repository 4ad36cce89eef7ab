"""Search in a collection: by sound, by the words of captions, by a row that is there already."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.source import Source
from qwen_audio.audio.window import Window
from qwen_audio.errors import CollectionError, OptionError

from .table import WindowTable, bad_condition, sql_text

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.inputs import AudioInput

__all__ = [
    "ANN_ROWS",
    "SearchResult",
    "nearest",
    "refresh_indices",
    "search",
    "search_text",
    "similar",
]

ANN_ROWS = 50_000
"""Up to so many rows every vector is compared; from there on an index finds the likely ones."""

_LIST_ROWS = 1024
"""Rows a list of the index. Said as a size and not as a number of lists, for tidying up keeps to
the size: a number it forgets, and joins lists until every search goes through all rows."""
_LISTS_SHARE = 0.1
"""Of the index's lists so many are looked through: recall@10 of .95 and more, measured."""
_VECTOR_INDEX, _TEXT_INDEX = "vector_idx", "caption_idx"


@dataclass(frozen=True)
class SearchResult:
    """One window that was found.

    Attributes:
        score: the cosine with the query (1 is the same), or, for words, how well the caption fits
            them (any positive number; only its order means something).
        columns: all of its row, `vector` apart.
    """

    source: str
    window: Window
    score: float
    caption: str | None
    columns: dict[str, Any]

    @property
    def id(self) -> str:
        """What `similar` finds it by: the source, and where in it the window begins."""
        return f"{self.source}#{self.columns['window']}"

    def __str__(self) -> str:
        text = f": {self.caption}" if self.caption else ""
        return f"{self.score:.3f}  {self.source} at {self.window}{text}"


def search(
    collection: WindowTable,
    model: AudioModel,
    audio: AudioInput,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
    sampling_rate: int | None = None,
) -> list[SearchResult]:
    """The windows that sound most like a recording, by the cosine of their vectors.

    The recording's vector is made as those in the collection are, over all of it.

    Args:
        where: SQL over the columns, such as "duration_seconds > 5 AND artist = 'Ann'".
        exact: compare every vector, also where there is an index.

    Raises:
        CollectionError: if the model is not the one of the collection.
        AudioError: if the recording can't be heard.
        OptionError: for a condition that can't be read, or a bad limit.
    """
    options = collection.spec.options
    collection.check(model.spec(**options))
    vector = model.encode(audio, sampling_rate=sampling_rate, **options)
    return nearest(collection, vector, where, limit, exact)


def similar(
    collection: WindowTable,
    row: str,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
) -> list[SearchResult]:
    """The windows that sound most like one of the collection's own, itself left out.

    Args:
        row: a source (its first window), or source#window, as `SearchResult.id` gives it.

    Raises:
        CollectionError: if there is no such row.
    """
    source, _, number = row.rpartition("#") if row.rpartition("#")[2].isdigit() else (row, "", "")
    mine = f'source = {sql_text(Source.from_path(source).uri)} AND "window" = {int(number or 0)}'
    found = collection.columns(["vector"], mine)["vector"].to_pylist()
    if not found:
        raise CollectionError(
            f"{collection.path} has no row {row!r}: give a source as `qwen-audio collection list` "
            "shows it, with #1, #2, … for its later windows"
        )
    vector = np.asarray(found[0], np.float32)
    others = f"NOT ({mine})" + (f" AND ({where})" if where else "")
    return nearest(collection, vector, others, limit, exact)


def search_text(
    collection: WindowTable, text: str, *, where: str | None = None, limit: int = 10
) -> list[SearchResult]:
    """The windows whose captions hold the words of a text, the best fit first.

    Words search captions, not vectors: this model's hidden states are no space that text and sound
    share.

    Raises:
        CollectionError: if the collection has no captions.
        OptionError: for a text without words, or a condition that can't be read.
    """
    if not collection.describes:
        raise CollectionError(
            f"{collection.path} has no captions to search for words in: index with --describe"
        )
    if not text.strip():
        raise OptionError("text is empty: give words that captions may hold")
    _check_limit(limit)
    if not any(index.name == _TEXT_INDEX for index in collection.table.list_indices()):
        refresh_indices(collection)
    query = collection.table.search(text, query_type="fts", fts_columns="caption").limit(limit)
    return _hits(query, where, lambda row: float(row.pop("_score")))


def refresh_indices(collection: WindowTable) -> None:
    """Tidy the files up and bring indices up to date: of words where there are captions, of
    vectors beyond `ANN_ROWS` rows."""
    from lancedb.index import FTS, IvfSq

    with collection.writing() as table:
        names = {index.name for index in table.list_indices()}
        rows = table.count_rows()
        if collection.describes and rows and _TEXT_INDEX not in names:
            table.create_index("caption", config=FTS(), name=_TEXT_INDEX)
        if rows > ANN_ROWS and _VECTOR_INDEX not in names:
            lists = IvfSq(distance_type="cosine", target_partition_size=_LIST_ROWS)
            table.create_index("vector", config=lists, name=_VECTOR_INDEX)
        table.optimize(cleanup_older_than=timedelta(days=1))


def nearest(
    collection: WindowTable,
    vector: Float32[np.ndarray, "width"],
    where: str | None,
    limit: int,
    exact: bool,
) -> list[SearchResult]:
    """The rows whose vectors point most nearly where one does."""
    _check_limit(limit)
    collection.table.checkout_latest()
    indices = [index.name for index in collection.table.list_indices()]
    query: Any = collection.table.search(vector, vector_column_name="vector")
    query = query.metric("cosine")
    if exact or _VECTOR_INDEX not in indices:
        query = query.bypass_vector_index()
    else:
        lists = collection.table.count_rows() / _LIST_ROWS
        query = query.nprobes(max(8, round(_LISTS_SHARE * lists))).refine_factor(4)
    return _hits(query.limit(limit), where, lambda row: 1.0 - float(row.pop("_distance")))


def _hits(query: Any, where: str | None, score_of: Any) -> list[SearchResult]:
    if where:
        query = query.where(where, prefilter=True)
    try:
        table = query.to_arrow()
    except (RuntimeError, ValueError, OSError) as error:
        raise bad_condition(where, error) from error
    hits = []
    for row in table.drop_columns(["vector"]).to_pylist():
        score = score_of(row)
        window = Window(row["start_seconds"], row["end_seconds"])
        hits.append(SearchResult(row["source"], window, score, row["caption"], row))
    return hits


def _check_limit(limit: Any) -> None:
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise OptionError(f"limit={limit!r}: use a whole number from 1 on")
