"""Indexing on a Ray cluster of this machine, against one process: the time, and where it goes."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from .benchmark import Result, Settings, Target
from .indexing import DTYPE, load_embedded, short_files
from .machine import require_packages
from .rounds import run_interleaved
from .worker import Workload

__all__ = ["ray_index"]


def ray_index(settings: Settings) -> Result:
    """Both hash, decode, encode, pool and commit; the workers of Ray send their rows."""
    require_packages("lancedb", "ray", "soundfile")
    paths = short_files(settings, 8 if settings.quick else 2000, 5.0)
    options = {"folder": str(Path(paths[0]).parent), "count": len(paths)}
    rounds = run_interleaved(
        settings,
        {
            "local": ("ray_indexing:index_local", {**options, "threads": settings.threads}),
            "ray": ("ray_indexing:index_with_ray", {**options, "workers": settings.threads}),
        },
    )
    start = max(output["start_seconds"] for output in rounds.outputs("ray"))
    return Result(
        what=f"indexing {len(paths)} new files of 5 s with the embedded checkpoint by "
        f"{settings.threads} Ray workers of one thread, from when they have loaded the model, "
        f"against `index` in one process of {settings.threads} threads",
        dtype=DTYPE,
        figures={
            "ray_seconds": rounds.median_seconds("ray"),
            "local_seconds": rounds.median_seconds("local"),
            "start_seconds": start,
        },
        ratio=rounds.median_ratio("ray", "local"),
        target=Target(1.40, at_most=True),
        conditions={
            "all indexed by both": {
                output["rows"] for name in rounds.names for output in rounds.outputs(name)
            }
            == {len(paths)}
        },
        packages=("lancedb", "ray"),
    )


def index_local(folder: str, count: int, threads: int) -> Workload:
    """Index the files in this process."""
    return _workload(load_embedded(threads), folder, count)


def index_with_ray(folder: str, count: int, workers: int) -> Workload:
    """Index the files by workers of one thread, on a cluster that begins and ends with each run."""
    return _workload(load_embedded(1), folder, count, engine="ray", workers=workers)


def _workload(model: Any, folder: str, count: int, **engine: Any) -> Workload:
    from qwen_audio.collection.collection import Collection

    paths = sorted(Path(folder).glob("*.flac"))[:count]
    tables, numbers = Path(tempfile.mkdtemp()), itertools.count()

    def run() -> dict[str, Any]:
        collection = Collection.create(tables / f"run{next(numbers)}.lance", model)
        began: list[float] = []  # seconds of the run when work begins, and when it is reported

        summary = collection.index(
            paths, on_progress=lambda progress: began.append(progress.elapsed_seconds), **engine
        )
        start_seconds = began[0] if engine else 0.0
        return {
            "rows": summary.rows,
            "start_seconds": start_seconds,
            "seconds": summary.elapsed_seconds - start_seconds,
        }

    return run
