"""Search in a collection: by audio, by the words of captions, by a row of the collection."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.source import Source
from qwen_audio.errors import CollectionError, OptionError, text_option, whole_number_option
from qwen_audio.paths import is_uri

from .conditions import Condition, source_condition, sql_literal
from .indices import PARTITION_ROWS, TEXT_INDEX, VECTOR_INDEX, update_indices
from .search_results import SearchResult, SearchResults
from .table import WindowTable
from .vectors import stored_vectors, unit_vector

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.inputs import AudioInput

__all__ = [
    "check_limit",
    "check_query",
    "find_row",
    "search_by_audio",
    "search_by_row",
    "search_by_vector",
    "search_by_words",
]

_PROBED_SHARE = 0.1
"""Share of the partitions that a search probes: recall@10 of at least .95, measured (`ann_search`
in benchmarks/)."""
_MAX_LIMIT = 2**31 - 1
"""More results than that aren't asked for at once."""
_TYPICAL_ROWS = 1000
"""Rows whose median cosine with the query is the typical one."""
_QUERIES_WITH = {
    "include_self": ("audio", "like"),
    "exact": ("audio", "like", "vector"),
    "sampling_rate": ("audio",),
}
"""The queries on which an option has an effect."""
_WINDOW_NUMBER = re.compile("[0-9]{1,9}")


def search_by_audio(
    collection: WindowTable,
    model: AudioModel,
    audio: AudioInput,
    *,
    include_self: bool = False,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
    sampling_rate: int | None = None,
) -> SearchResults:
    """The windows most similar to a recording, by cosine similarity, best first.

    The recording becomes one vector, made with the collection's embedding spec and pooled over all
    of its windows.

    Args:
        include_self: also compare a recording, given by its path or opened from it, with its own
            windows in the collection.
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
    own = [] if include_self else _own_sources(collection, audio)
    if own:
        condition = _without(source_condition(own), condition)
    query = unit_vector(vector, collection.width)
    return _nearest(collection, query, condition, limit, exact, left_out=own[0] if own else None)


def _own_sources(collection: WindowTable, audio: Any) -> list[str]:
    """The sources in the collection that are the recording at a path, or of an opened file."""
    name = audio.name if hasattr(audio, "read") and hasattr(audio, "name") else audio
    if not isinstance(name, str | os.PathLike):
        return []
    path = os.fsdecode(name)
    paths = {path} if is_uri(path) else {path, os.path.realpath(Source.from_path(path).path)}
    uris = {Source.from_path(each).uri for each in paths}
    return [uri for uri in sorted(uris) if collection.count(source_condition([uri]))]


def _without(own: Condition, condition: Condition | None) -> Condition:
    return Condition(f"NOT ({own})" + ("" if condition is None else f" AND ({condition})"))


def search_by_row(
    collection: WindowTable,
    row_id: str | SearchResult,
    *,
    include_self: bool = False,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
) -> SearchResults:
    """The windows most similar to one of the collection's own.

    Args:
        row_id: a source (its first window), or source#window, as `SearchResult.id` gives it; or a
            result of an earlier search.
        include_self: also return the row itself.

    Raises:
        CollectionError: if there is no such row.
        OptionError: for a condition that can't be used, or a bad limit.
    """
    limit = check_limit(limit)
    condition = collection.condition(where)
    name = row_id.id if isinstance(row_id, SearchResult) else row_id
    if not isinstance(name, str):
        raise OptionError(f"like={name!r:.80} is no row: give the id that a search shows")
    is_query = find_row(collection, name)
    if is_query is None:
        raise CollectionError(
            f"{collection.location} has no row {name!r}: give a source as `qwen-audio collection "
            "list` shows it, with #1, #2, … for its later windows"
        )
    (vector,) = stored_vectors(collection.columns(["vector"], is_query)["vector"])
    try:
        query = unit_vector(vector, collection.width)
    except OptionError as error:
        raise CollectionError(
            f"{collection.location}: the vector of {name!r} is damaged: `qwen-audio collection "
            "verify` lists such rows"
        ) from error
    if not include_self:
        condition = _without(is_query, condition)
    left_out = None if include_self else name
    return _nearest(collection, query, condition, limit, exact, left_out=left_out)


def find_row(collection: WindowTable, row_id: str) -> Condition | None:
    """The SQL condition that holds for the row of an id only; None if there is no such row."""
    return next(filter(collection.count, _row_conditions(row_id)), None)


def _row_conditions(row_id: str) -> Iterator[Condition]:
    """The SQL conditions of the rows that an id may mean; the name of a source may end in #1."""
    source, _, number = row_id.rpartition("#")
    pairs = [(source, number)] if _WINDOW_NUMBER.fullmatch(number) else []
    for name, window in [*pairs, (row_id, "0")]:
        uri = Source.from_path(name).uri
        yield Condition(f'source = {sql_literal(uri)} AND "window" = {int(window)}')


def search_by_words(
    collection: WindowTable, words: str, *, where: str | None = None, limit: int = 10
) -> SearchResults:
    """Full-text search: the windows whose captions contain words of a text, best first (BM25).

    Captions are searched, not vectors: this model's hidden states are not an embedding space that
    text and audio share.

    Raises:
        CollectionError: if the collection has no captions.
        OptionError: for an empty text, a condition that can't be used, or a bad limit.
    """
    text_option("caption", words)
    if not words.strip():
        raise OptionError("caption is empty: give words to search for in captions")
    if not collection.has_captions:
        raise CollectionError(
            f"{collection.location} has no captions for full-text search: index with --describe"
        )
    limit = check_limit(limit)
    condition = collection.condition(where)
    if not any(index.name == TEXT_INDEX for index in collection.table.list_indices()):
        update_indices(collection)
    query = collection.table.search(words, query_type="fts", fts_columns="caption")
    results = _run_query(collection, query, condition, limit, lambda row: float(row.pop("_score")))
    return SearchResults(results, spec=collection.spec, metric="BM25")


def search_by_vector(
    collection: WindowTable,
    vector: Any,
    *,
    where: str | None = None,
    limit: int = 10,
    exact: bool = False,
) -> SearchResults:
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
    *,
    left_out: str | None = None,
) -> SearchResults:
    indices = [index.name for index in collection.table.list_indices()]
    query: Any = collection.table.search(unit_query, vector_column_name="vector")
    query = query.metric("cosine")
    if exact or VECTOR_INDEX not in indices:
        query = query.bypass_vector_index()
    else:
        partitions = collection.table.count_rows() / PARTITION_ROWS
        query = query.nprobes(max(8, round(_PROBED_SHARE * partitions))).refine_factor(4)
    return SearchResults(
        _run_query(
            collection, query, condition, limit, lambda row: 1.0 - float(row.pop("_distance"))
        ),
        spec=collection.spec,
        metric="cosine",
        typical_score=_typical_cosine(collection, unit_query),
        left_out=left_out,
    )


def _typical_cosine(
    collection: WindowTable, unit_query: Float32[np.ndarray, "width"]
) -> float | None:
    """The median cosine of a query with rows spread over the collection; None without rows."""
    rows = collection.count()
    offsets = np.unique(np.linspace(0, rows - 1, min(rows, _TYPICAL_ROWS)).astype(int))
    if not len(offsets):
        return None
    sample = collection.table.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()
    cosines = stored_vectors(sample["vector"]).astype(np.float32) @ unit_query
    cosines = cosines[np.isfinite(cosines)]  # but for damaged rows
    return float(np.median(cosines)) if len(cosines) else None


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
    for rank, row in enumerate(table.drop_columns(["vector"]).to_pylist(), 1):
        score = score_of(row)
        places = row["window"], row["start_seconds"], row["end_seconds"]
        results.append(SearchResult(rank, score, row["source"], *places, row["caption"], row))
    return results


def check_query(queries: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises OptionError unless one query is given, and no option that has no effect on it."""
    given = [name for name, query in queries.items() if query is not None]
    if len(given) != 1:
        raise OptionError(
            f"search takes one of audio, caption=, like= and vector=, not {len(given)} of them"
        )
    for option, value in options.items():
        if value and given[0] not in _QUERIES_WITH[option]:
            raise OptionError(f"{option} has no effect on a search by {given[0]}: leave it out")


def check_limit(limit: int) -> int:
    """The number of results. Raises OptionError for anything but a positive whole number."""
    return whole_number_option("limit", limit, 1)
