"""Indices of a collection's table: full-text of captions, approximate nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

__all__ = [
    "ANN_MIN_ROWS",
    "PARTITION_ROWS",
    "TEXT_INDEX",
    "VECTOR_INDEX",
    "is_outdated",
    "update_indices",
]

ANN_MIN_ROWS = 50_000
"""Up to so many rows every vector is compared; beyond, an approximate index is built."""
PARTITION_ROWS = 1024
"""Target rows of an IVF partition. A size and not a number of partitions: `optimize` keeps to the
size, but forgets a number and merges partitions until every search scans all rows."""
_TRAINING_ROWS_PER_PARTITION, _TRAINING_ITERATIONS = 64, 10
"""Of k-means, whose time grows with both. FAISS, too, makes 10 iterations for an IVF index, and
warns below 39 rows. Lance's defaults, 256 and 50, take 1.5 to 3 times as long at equal recall."""
_UNINDEXED_SHARE, _SMALL_FRAGMENTS = 0.01, 20
"""From `ANN_MIN_ROWS` rows on, an index may lack such a share of the rows, which every search then
scans, and the table may have so many small fragments. To update an index of two million rows takes
as long as to build it, since Lance balances its partitions by writing all of them again."""
VECTOR_INDEX, TEXT_INDEX = "vector_idx", "caption_idx"


def is_outdated(unindexed: int, rows: int) -> bool:
    """Whether an index of a table of so many rows lacks more of them than it may."""
    return unindexed > (rows * _UNINDEXED_SHARE if rows > ANN_MIN_ROWS else 0)


def _is_worn(table: Table, indices: Iterable[str], rows: int) -> bool:
    if rows <= ANN_MIN_ROWS:
        return True
    stats: Any = table.stats()  # a dictionary, though its type says otherwise
    if stats["fragment_stats"]["num_small_fragments"] > _SMALL_FRAGMENTS:
        return True
    found = [table.index_stats(name) for name in indices]
    return any(each is None or is_outdated(each.num_unindexed_rows, rows) for each in found)


def update_indices(collection: WindowTable) -> None:
    """Compact the table's files and create or update its indices, if it is time.

    Captions get a full-text index, vectors an IVF index of 8-bit vectors from `ANN_MIN_ROWS` on.
    """
    from lancedb.index import FTS, IvfSq

    def update(table: Table) -> None:
        names, rows = {index.name for index in table.list_indices()}, table.count_rows()
        # Before new indices are built: it would write them once more.
        if _is_worn(table, names, rows):
            table.optimize(cleanup_older_than=timedelta(days=1))
        if collection.has_captions and rows and TEXT_INDEX not in names:
            table.create_index("caption", config=FTS(), name=TEXT_INDEX)
        if rows > ANN_MIN_ROWS and VECTOR_INDEX not in names:
            config = IvfSq(
                distance_type="cosine",
                target_partition_size=PARTITION_ROWS,
                sample_rate=_TRAINING_ROWS_PER_PARTITION,
                max_iterations=_TRAINING_ITERATIONS,
            )
            table.create_index("vector", config=config, name=VECTOR_INDEX)

    collection.write(update)
