"""Search in a table that a long run has written, in hundreds of commits, against a fresh one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_packages
from .rounds import median, run_interleaved
from .vector_search import LIMIT, QUERIES, SPEC, WIDTH, add_vectors, random_vectors
from .worker import Workload

__all__ = ["search_versions"]

_COMMITS = 200


def search_versions(settings: Settings) -> Result:
    """The first half of the rows is indexed before the long run adds the others."""
    require_packages("lancedb")
    rows = 60_000 if settings.quick else 120_000
    rounds = run_interleaved(
        settings,
        {
            name: ("search_versions:search_table", {"rows": rows, "commits": commits})
            for name, commits in (("long", _COMMITS), ("fresh", 1))
        },
    )
    versions = {name: rounds.outputs(name)[0]["versions"] for name in rounds.names}
    return Result(
        what=f"search in {rows} vectors of {WIDTH} float16 numbers, half of them added in "
        f"{_COMMITS} commits to a table with an index and tidied as `index` does, against a table "
        f"written in one commit: the median of {QUERIES} queries",
        dtype="float16",
        figures={
            **{f"{name}_seconds": rounds.median_seconds(name, "search") for name in rounds.names},
            **{
                f"{name}_open_seconds": rounds.median_seconds(name, "open") for name in rounds.names
            },
            **{f"{name}_versions": versions[name] for name in rounds.names},
        },
        ratio=rounds.median_ratio("long", "fresh", "search"),
        target=Target(1.2, at_most=True),
        conditions={"hundreds of versions": versions["long"] >= _COMMITS},
        packages=("lancedb",),
    )


def search_table(rows: int, commits: int) -> Workload:
    """Write a table, then open and search it."""
    from qwen_audio.collection.indices import update_indices
    from qwen_audio.collection.search import search_by_vector
    from qwen_audio.collection.table import WindowTable
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

    vectors = random_vectors(rows + QUERIES, "clustered")
    path = Path(tempfile.mkdtemp()) / "rows.lance"
    table = WindowTable.create(path, EmbeddingSpec.from_settings(**SPEC), WIDTH, has_captions=False)
    first = rows if commits == 1 else rows // 2
    add_vectors(table.table, np.array_split(vectors[:first], 60))
    update_indices(table)
    if commits > 1:
        for block in np.array_split(vectors[first:rows], commits):
            add_vectors(table.table, [block])
        update_indices(table)

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        opened = WindowTable.open(path)
        open_seconds = time.perf_counter() - start
        seconds = []
        for query in vectors[rows:].astype(np.float32):
            start = time.perf_counter()
            search_by_vector(opened, query, limit=LIMIT)
            seconds.append(time.perf_counter() - start)
        return {
            "open": open_seconds,
            "search": median(seconds[5:]),  # the first ones are a warm-up
            "versions": len(opened.table.list_versions()),
        }

    run()
    return run
