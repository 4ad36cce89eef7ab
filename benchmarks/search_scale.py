"""Search in two million vectors: the index's time to build, memory, latency and recall.

The table stays in the folder of work, complete with the figures of its making, since that takes
long; what is measured of searching is measured in every run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Result, Settings, Target
from .machine import require_linux, require_packages
from .resources import peak_bytes
from .rounds import median, run_in_new_process
from .vector_search import LIMIT, SPEC, WIDTH, add_vectors
from .worker import Workload

__all__ = ["search_scale"]

_ROWS, _ROWS_QUICK = 2_000_000, 60_000
_QUERIES, _EXACT_QUERIES = 100, 5
_ROWS_PER_ADD = 20_000
_CLUSTERS, _CLUSTER_WIDTH = 2_000, 64
_WARM_UP = 5


def search_scale(settings: Settings) -> Result:
    """Build once, then search in a new process, and without the index in another."""
    require_packages("lancedb")
    require_linux()
    rows = _ROWS_QUICK if settings.quick else _ROWS
    folder = settings.work / f"search_{rows}"
    built_path = folder / "built.json"
    if not built_path.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        built = run_in_new_process(
            settings, ("search_scale:build", {"folder": str(folder), "rows": rows})
        )
        built_path.write_text(json.dumps(built))
    built = json.loads(built_path.read_text())
    options = {"folder": str(folder)}
    indexed = run_in_new_process(settings, ("search_scale:search", options))
    exact = run_in_new_process(settings, ("search_scale:search_exactly", options))
    recalls = [
        len(set(found) & set(best)) / LIMIT
        for found, best in zip(indexed["results"], exact["results"], strict=False)
    ]
    return Result(
        what=f"search in {rows} vectors of {WIDTH} float16 numbers through the index, {LIMIT} "
        f"results, the median of {_QUERIES} queries that are not among them; recall of "
        f"{_EXACT_QUERIES} of them against exact search. {_CLUSTERS} clusters, as in `ann_search`",
        dtype="float16",
        figures={
            **{name: built[name] for name in built if name != "seconds"},
            "index_seconds": indexed["median_seconds"],
            "index_p95_seconds": indexed["p95_seconds"],
            "index_peak_gb": indexed["peak"] / 1e9,
            "exact_seconds": exact["median_seconds"],
            "exact_peak_gb": exact["peak"] / 1e9,
            "recall": float(np.mean(recalls)),
            "exact_over_index": exact["median_seconds"] / indexed["median_seconds"],
        },
        ratio=1000 * indexed["median_seconds"],
        target=Target(200, at_most=True, unit=" ms"),
        conditions={"recall@10 at least .95": float(np.mean(recalls)) >= 0.95},
        packages=("lancedb",),
    )


# Workloads.


def build(folder: str, rows: int) -> Workload:
    """Write the rows as one recording each, and build the index."""
    from qwen_audio.collection.indices import update_indices
    from qwen_audio.collection.table import WindowTable
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

    spec = EmbeddingSpec.from_settings(**SPEC)
    path = Path(folder) / "rows.lance"

    def run() -> dict[str, Any]:
        table = WindowTable.create(path, spec, WIDTH, has_captions=False)
        start = time.perf_counter()
        add_vectors(table.table, _blocks(rows))
        write_seconds, write_peak = time.perf_counter() - start, peak_bytes()
        start, start_cpu = time.perf_counter(), time.process_time()
        update_indices(table)
        return {
            "write_seconds": write_seconds,
            "write_peak_gb": write_peak / 1e9,
            "build_seconds": time.perf_counter() - start,
            "build_processor_seconds": time.process_time() - start_cpu,
            "build_peak_gb": peak_bytes() / 1e9,
            "table_gb": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e9,
        }

    return run


def search(folder: str) -> Workload:
    """`Collection.search` with vectors, through the index."""
    return _search(folder, _QUERIES, exact=False)


def search_exactly(folder: str) -> Workload:
    """The same, comparing every vector."""
    return _search(folder, _EXACT_QUERIES, exact=True)


def _search(folder: str, count: int, *, exact: bool) -> Workload:
    from qwen_audio.collection.search import search_by_vector
    from qwen_audio.collection.table import WindowTable

    table = WindowTable.open(Path(folder) / "rows.lance")
    queries = next(_blocks(_QUERIES, seed=1)).astype(np.float32)[:count]

    def run() -> dict[str, Any]:
        seconds, results = [], []
        for query in queries:
            start = time.perf_counter()
            found = search_by_vector(table, query, limit=LIMIT, exact=exact)
            seconds.append(time.perf_counter() - start)
            results.append([result.source for result in found])
        timed = seconds if exact else seconds[_WARM_UP:]
        return {
            "median_seconds": median(timed),
            "p95_seconds": float(np.quantile(timed, 0.95)),
            "results": results,
            "peak": peak_bytes(),
        }

    return run


def _blocks(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Unit vectors in float16, some thousand at a time; other seeds have the same clusters."""
    centre_random = np.random.default_rng(0)
    centres = centre_random.standard_normal((_CLUSTERS, _CLUSTER_WIDTH), dtype=np.float32)
    centres = centres @ centre_random.standard_normal((_CLUSTER_WIDTH, WIDTH), dtype=np.float32) / 8
    random = np.random.default_rng((1, seed))
    for start in range(0, count, _ROWS_PER_ADD):
        size = min(_ROWS_PER_ADD, count - start)
        vectors = 0.5 * random.standard_normal((size, WIDTH), dtype=np.float32)
        vectors += centres[random.integers(0, _CLUSTERS, size)]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield vectors.astype(np.float16)
