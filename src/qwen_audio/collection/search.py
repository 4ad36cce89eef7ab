"""Search in a collection: by audio, by the words of captions, by a row of the collection."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.source import Source
from qwen_audio.audio.window import Window
from qwen_audio.errors import CollectionError, OptionError, text_option, whole_number_option
from qwen_audio.paths import file_name

from .conditions import Condition, sql_literal
from .table import WindowTable
from .vectors import stored_vectors, unit_vector

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.inputs import AudioInput

__all__ = [
    "ANN_MIN_ROWS",
    "SearchResult",
    "full_text_search",
    "search_by_audio",
    "search_by_id",
    "update_indices",
    "vector_search",
]

ANN_MIN_ROWS = 50_000
"""Up to so many rows every vector is compared; beyond, an approximate index is built."""

_PARTITION_ROWS = 1024
"""Target rows of an IVF partition. A size and not a number of partitions: `optimize` keeps to the
size, but forgets a number and merges partitions until every search scans all rows."""
_PROBED_SHARE = 0.1
"""Share of the partitions that a search probes: recall@10 of at least .95, measured (`ann_search`
in benchmarks/)."""
_MAX_LIMIT = 2**31 - 1
"""More results than that aren't asked for at once."""
_WINDOW_NUMBER = re.compile("[0-9]{1,9}")
_VECTOR_INDEX, _TEXT_INDEX = "vector_idx", "caption_idx"


@dataclass(frozen=True)
class SearchResult:
    """One window that a search returned.

    Attributes:
        source: path or URI of the recording.
        window: start and end in seconds.
        score: cosine similarity with the query (1: the same direction); for full-text search the
            BM25 score (positive; only its order means something).
        caption: of the window, if the collection has captions.
        columns: all columns of its row except `vector`.
    """

    source: str
    window: Window
    score: float
    caption: str | None
    columns: dict[str, Any]

    @property
    def id(self) -> str:
        """`source#number of the window`, as `Collection.search(id=…)` takes it."""
        return f"{self.source}#{self.columns['window']}"

    @property
    def name(self) -> str:
        """The file's name, to be shown."""
        return file_name(self.source)

    def __str__(self) -> str:
        text = f": {self.caption}" if self.caption else ""
        return f"{self.score:.3f}  {self.source} at {self.window}{text}"


def search_by_audio(
    collection: WindowTable,
    model: AudioModel,
    audio: AudioInput,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
    sampling_rate: int | None = None,
) -> list[SearchResult]:
    """The windows most similar to a recording, by cosine similarity, best first.

    The recording becomes one vector, made with the collection's embedding spec and pooled over all
    of its windows.

    Args:
        where: SQL over the columns, such as "duration_seconds > 5 AND artist = 'Ann'".
        exact: compare every vector, even where there is an index.

    Raises:
        CollectionError: if the model is not the one of the collection.
        AudioError: if the recording can't be decoded.
        OptionError: for a condition that can't be used, or a bad limit.
    """
    options = collection.spec.options
    collection.check(model.spec(**options))
    options.pop("track", None)  # of the indexed files, not of this one
    limit = check_limit(limit)
    condition = collection.condition(where)
    vector = model.encode(audio, sampling_rate=sampling_rate, **options)
    return _nearest(collection, unit_vector(vector, collection.width), condition, limit, exact)


def search_by_id(
    collection: WindowTable,
    row_id: str,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
) -> list[SearchResult]:
    """The windows most similar to one of the collection's own, without itself.

    Args:
        row_id: a source (its first window), or source#window, as `SearchResult.id` gives it.

    Raises:
        CollectionError: if there is no such row.
        OptionError: for a condition that can't be used, or a bad limit.
    """
    limit = check_limit(limit)
    wanted = collection.condition(where)
    for is_query in _row_conditions(row_id):
        vectors = stored_vectors(collection.columns(["vector"], is_query)["vector"])
        if len(vectors):
            break
    else:
        raise CollectionError(
            f"{collection.path} has no row {row_id!r}: give a source as `qwen-audio collection "
            "list` shows it, with #1, #2, … for its later windows"
        )
    try:
        query = unit_vector(vectors[0], collection.width)
    except OptionError as error:
        raise CollectionError(
            f"{collection.path}: the vector of {row_id!r} is damaged: `qwen-audio collection "
            "verify` lists such rows"
        ) from error
    others = f"NOT ({is_query})" + ("" if wanted is None else f" AND ({wanted})")
    return _nearest(collection, query, Condition(others), limit, exact)


def _row_conditions(row_id: str) -> Iterator[Condition]:
    """The SQL conditions of the rows that an id may mean; the name of a source may end in #1."""
    source, _, number = row_id.rpartition("#")
    pairs = [(source, number)] if _WINDOW_NUMBER.fullmatch(number) else []
    for name, window in [*pairs, (row_id, "0")]:
        uri = Source.from_path(name).uri
        yield Condition(f'source = {sql_literal(uri)} AND "window" = {int(window)}')


def full_text_search(
    collection: WindowTable, text: str, *, where: str | None = None, limit: int = 10
) -> list[SearchResult]:
    """The windows whose captions contain words of a text, best first (BM25).

    Captions are searched, not vectors: this model's hidden states are not an embedding space that
    text and audio share.

    Raises:
        CollectionError: if the collection has no captions.
        OptionError: for an empty text, a condition that can't be used, or a bad limit.
    """
    if not collection.has_captions:
        raise CollectionError(
            f"{collection.path} has no captions for full-text search: index with --describe"
        )
    text_option("text", text)
    if not text.strip():
        raise OptionError("text is empty: give words to search for in captions")
    limit = check_limit(limit)
    condition = collection.condition(where)
    if not any(index.name == _TEXT_INDEX for index in collection.table.list_indices()):
        update_indices(collection)
    query = collection.table.search(text, query_type="fts", fts_columns="caption")
    return _run_query(collection, query, condition, limit, lambda row: float(row.pop("_score")))


def update_indices(collection: WindowTable) -> None:
    """Compact the table's files and create or update its indices.

    Captions get a full-text index, vectors an IVF index of 8-bit vectors from `ANN_MIN_ROWS` on.
    """
    from lancedb.index import FTS, IvfSq

    with collection.locked() as table:
        names = {index.name for index in table.list_indices()}
        rows = table.count_rows()
        if collection.has_captions and rows and _TEXT_INDEX not in names:
            table.create_index("caption", config=FTS(), name=_TEXT_INDEX)
        if rows > ANN_MIN_ROWS and _VECTOR_INDEX not in names:
            config = IvfSq(distance_type="cosine", target_partition_size=_PARTITION_ROWS)
            table.create_index("vector", config=config, name=_VECTOR_INDEX)
        table.optimize(cleanup_older_than=timedelta(days=1))


def vector_search(
    collection: WindowTable,
    vector: Any,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
) -> list[SearchResult]:
    """The windows whose vectors have the highest cosine similarity with a vector, best first.

    Args:
        vector: an array, a tensor or a list of as many numbers as the collection's vectors have.
            Its length doesn't matter.

    Raises:
        OptionError: for a vector of another width, of numbers that aren't finite, or of zeros; for
            a condition that can't be used, or a bad limit.
    """
    limit = check_limit(limit)
    query = unit_vector(vector, collection.width)
    return _nearest(collection, query, collection.condition(where), limit, exact)


def _nearest(
    collection: WindowTable,
    unit_query: Float32[np.ndarray, "width"],
    condition: Condition | None,
    limit: int,
    exact: bool,
) -> list[SearchResult]:
    indices = [index.name for index in collection.table.list_indices()]
    query: Any = collection.table.search(unit_query, vector_column_name="vector")
    query = query.metric("cosine")
    if exact or _VECTOR_INDEX not in indices:
        query = query.bypass_vector_index()
    else:
        partitions = collection.table.count_rows() / _PARTITION_ROWS
        query = query.nprobes(max(8, round(_PROBED_SHARE * partitions))).refine_factor(4)
    return _run_query(
        collection,
        query,
        condition,
        limit,
        lambda row: 1.0 - float(row.pop("_distance")),
    )


def _run_query(
    collection: WindowTable,
    query: Any,
    condition: Condition | None,
    limit: int,
    score_of: Callable[[dict[str, Any]], float],
) -> list[SearchResult]:
    query = query.limit(min(limit, _MAX_LIMIT))
    if condition is not None:
        query = query.where(condition, prefilter=True)
    try:
        table = query.to_arrow()
    except (RuntimeError, ValueError, OSError) as error:
        raise collection.read_error(condition, error) from error
    results = []
    for row in table.drop_columns(["vector"]).to_pylist():
        score = score_of(row)
        window = Window(row["start_seconds"], row["end_seconds"])
        results.append(SearchResult(row["source"], window, score, row["caption"], row))
    return results


def check_limit(limit: int) -> int:
    """The number of results. Raises OptionError for anything but a positive whole number."""
    return whole_number_option("limit", limit, 1)
