"""Similarity search in a collection with an approximate index: latency and recall."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_packages
from .rounds import median, run_in_new_process
from .worker import Workload

__all__ = ["LIMIT", "QUERIES", "SPEC", "WIDTH", "add_vectors", "ann_search", "random_vectors"]

WIDTH, QUERIES, LIMIT = 1280, 100, 10
_ROWS_PER_BLOCK = 1_000
SPEC: dict[str, Any] = {
    "model": "random",
    "revision": "0",
    "dtype": "bfloat16",
    "tap": "audio_tower",
    "pooling": "mean",
    "span": "audio",
    "prompt": None,
    "window_seconds": 10.0,
    "hop_seconds": 10.0,
}


def ann_search(settings: Settings) -> Result:
    require_packages("lancedb")
    rows = 2_000 if settings.quick else 100_000
    outputs = {
        distribution: run_in_new_process(
            settings, ("vector_search:search_rows", {"rows": rows, "distribution": distribution})
        )
        for distribution in ("clustered", "unstructured")
    }
    clustered = outputs["clustered"]
    return Result(
        what=f"search in {rows} vectors of {WIDTH} float16 numbers, {LIMIT} results, the median of "
        f"{QUERIES} queries that are not among them; recall against exact search. Clustered: 2,000 "
        "centres in 64 dimensions, and noise in all, similar to embeddings of recordings. "
        "Unstructured: normally distributed, without near neighbours",
        dtype="float16",
        figures={
            f"{distribution}_{key}": output[key]
            for distribution, output in outputs.items()
            for key in output
        },
        ratio=1000 * clustered["median_seconds"],
        target=Target(20, at_most=True, unit=" ms"),
        conditions={"recall@10 at least .95": clustered["recall"] >= 0.95},
        packages=("lancedb",),
    )


def search_rows(rows: int, distribution: str) -> Workload:
    """Build a table and search it as `Collection.search` does, without encoding queries."""
    from qwen_audio.collection.indices import update_indices
    from qwen_audio.collection.search import search_by_vector
    from qwen_audio.collection.table import WindowTable
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

    vectors = random_vectors(rows + QUERIES, distribution)
    folder = Path(tempfile.mkdtemp())

    def run() -> dict[str, Any]:
        window_table = WindowTable.create(
            folder / "rows.lance", EmbeddingSpec.from_settings(**SPEC), WIDTH, has_captions=False
        )
        add_vectors(window_table.table, np.split(vectors[:rows], rows // _ROWS_PER_BLOCK))
        start = time.perf_counter()
        update_indices(window_table)
        build_seconds = time.perf_counter() - start
        query_seconds, recalls = [], []
        for query in vectors[rows:].astype(np.float32):
            start = time.perf_counter()
            results = search_by_vector(window_table, query, limit=LIMIT)
            query_seconds.append(time.perf_counter() - start)
            exact_results = search_by_vector(window_table, query, limit=LIMIT, exact=True)
            common = {r.source for r in results} & {r.source for r in exact_results}
            recalls.append(len(common) / LIMIT)
        return {
            "median_seconds": median(query_seconds[5:]),  # the first ones are a warm-up
            "recall": float(np.mean(recalls)),
            "build_seconds": build_seconds,
        }

    return run


def add_vectors(table: Any, blocks: Iterable[np.ndarray]) -> None:
    """Add rows with these vectors, each a source of one window, other columns null."""
    import pyarrow as pa

    def batches() -> Iterator[Any]:
        first = table.count_rows()
        for block in blocks:
            values: dict[str, list[Any]] = {
                "source": [f"{first + index}" for index in range(len(block))],
                "window": [0] * len(block),
                "start_seconds": [0.0] * len(block),
                "end_seconds": [10.0] * len(block),
            }
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), WIDTH)
                if field.name == "vector"
                else pa.array(values.get(field.name, [None] * len(block)), field.type)
                for field in table.schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=table.schema)
            first += len(block)

    table.add(pa.RecordBatchReader.from_batches(table.schema, batches()))


def random_vectors(count: int, distribution: str) -> np.ndarray:
    """Unit vectors [count, WIDTH] in float16; `distribution` as in `ann_search`."""
    random = np.random.default_rng(0)
    if distribution == "clustered":
        centres = random.standard_normal((2000, 64)) @ random.standard_normal((64, WIDTH)) / 8
        vectors = centres[random.integers(0, len(centres), count)].astype(np.float32)
        vectors += 0.5 * random.standard_normal((count, WIDTH), dtype=np.float32)
    else:
        vectors = random.standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16)
