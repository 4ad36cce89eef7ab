"""Indexing a collection: time against `encode_each` and `describe`, memory, unchanged files."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from .benchmark import Result, Settings, Target
from .machine import require_linux, require_packages
from .rounds import run_in_new_process, run_interleaved
from .synthetic_audio import SAMPLING_RATE, synthetic_clip
from .this_package import load_model
from .worker import Workload

__all__ = [
    "DTYPE",
    "index_cost",
    "index_describe",
    "index_files",
    "index_memory",
    "load_embedded",
    "rerun",
    "short_files",
]

DTYPE = "float32"
MANY, FEW = 10_000, 100
WINDOW_SECONDS = 10.0
"""A collection's default: clips of 5 s are one window each."""


def index_cost(settings: Settings) -> Result:
    """Both decode, resample, encode and pool windows; indexing also hashes, writes and commits."""
    require_packages("lancedb", "soundfile")
    paths = short_files(settings, 8 if settings.quick else 300, 5.0)
    options = {"files": _files_option(paths), "threads": settings.threads}
    rounds = run_interleaved(
        settings,
        {"alone": ("indexing:encode_only", options), "indexed": ("indexing:index_new", options)},
    )
    return Result(
        what=f"indexing {len(paths)} new files of 5 s with the embedded checkpoint, against "
        "`encode_each` of the same files",
        dtype=DTYPE,
        figures={
            "indexed_seconds": rounds.median_seconds("indexed"),
            "alone_seconds": rounds.median_seconds("alone"),
        },
        ratio=rounds.median_ratio("indexed", "alone"),
        target=Target(1.10, at_most=True),
        packages=("lancedb",),
    )


def index_describe(settings: Settings) -> Result:
    """Both generate a caption for every window; indexing also encodes, hashes and writes it."""
    require_packages("lancedb", "soundfile")
    paths = short_files(settings, 8 if settings.quick else 64, 5.0)
    options = {"files": _files_option(paths), "threads": settings.threads}
    rounds = run_interleaved(
        settings,
        {
            "described": ("indexing:describe_only", options),
            "indexed": ("indexing:index_with_captions", options),
        },
    )
    captions = {name: rounds.outputs(name)[0]["captions"] for name in rounds.names}
    return Result(
        what=f"indexing {len(paths)} new files of 5 s with captions (`index --describe`) and the "
        "embedded checkpoint, against `describe` of the same files",
        dtype=DTYPE,
        figures={
            "indexed_seconds": rounds.median_seconds("indexed"),
            "described_seconds": rounds.median_seconds("described"),
            "captions": len(captions["indexed"]),
        },
        ratio=rounds.median_ratio("indexed", "described"),
        target=Target(1.10, at_most=True),
        conditions={
            "a caption for every file": len(captions["described"]) == len(paths),
            "the same captions": captions["indexed"] == captions["described"],
        },
        packages=("lancedb",),
    )


def index_memory(settings: Settings) -> Result:
    require_packages("lancedb", "soundfile")
    require_linux()
    few, many = (4, 8) if settings.quick else (FEW, MANY)
    paths = short_files(settings, many, 1.0)
    outputs = []
    for count in (few, many):
        options = {"files": _files_option(paths[:count]), "threads": settings.threads}
        outputs.append(run_in_new_process(settings, ("indexing:peak_memory", options)))
    return Result(
        what=f"peak memory of a process that indexes {many} files of 1 s, less that of one that "
        f"indexes {few}",
        dtype=DTYPE,
        figures={
            "few_gb": outputs[0]["peak"] / 1e9,
            "many_gb": outputs[1]["peak"] / 1e9,
            "many_seconds": outputs[1]["seconds"],
        },
        ratio=(outputs[1]["peak"] - outputs[0]["peak"]) / 1e6,
        target=Target(100, at_most=True, unit=" MB"),
        packages=("lancedb",),
    )


def rerun(settings: Settings) -> Result:
    require_packages("lancedb", "soundfile")
    paths = short_files(settings, 8 if settings.quick else MANY, 1.0)
    options = {"files": _files_option(paths), "threads": settings.threads}
    output = run_in_new_process(settings, ("indexing:index_twice", options))
    return Result(
        what=f"time per file of indexing {len(paths)} unchanged files again",
        dtype=DTYPE,
        figures={"seconds": output["again"], "unchanged": output["unchanged"]},
        ratio=1000 * output["again"] / len(paths),
        target=Target(1, at_most=True, unit=" ms"),
        conditions={"all unchanged": output["unchanged"] == len(paths)},
        packages=("lancedb",),
    )


# Workloads.


def encode_only(files: str, threads: int) -> Workload:
    """`encode_each` of the files, without a collection."""
    paths = _paths(files)
    model = load_embedded(threads)

    def run() -> dict[str, Any]:
        return {"vectors": sum(1 for _ in model.encode_each(paths))}

    run()
    return run


def index_new(files: str, threads: int) -> Workload:
    """Index the files in a new collection."""
    paths = _paths(files)
    model = load_embedded(threads)
    folder, numbers = Path(tempfile.mkdtemp()), itertools.count()

    def run() -> dict[str, Any]:
        collection = folder / f"run{next(numbers)}.lance"
        return {"rows": index_files(model, collection, paths).rows}

    run()
    return run


def describe_only(files: str, threads: int) -> Workload:
    """`describe` of the files, in a collection's windows."""
    paths = _paths(files)
    model = load_embedded(threads)

    def run() -> dict[str, Any]:
        descriptions = model.describe(paths, window_seconds=WINDOW_SECONDS)
        return {"captions": [answer.text for text in descriptions for answer in text.answers]}

    run()
    return run


def index_with_captions(files: str, threads: int) -> Workload:
    """Index the files with captions in a new collection; returns the captions after the timing."""
    from qwen_audio.collection.collection import Collection

    paths = _paths(files)
    model = load_embedded(threads)
    folder, numbers = Path(tempfile.mkdtemp()), itertools.count()

    def run() -> dict[str, Any]:
        path = folder / f"run{next(numbers)}.lance"
        start = time.perf_counter()
        collection = Collection.create(path, model, describe=True, window_seconds=WINDOW_SECONDS)
        collection.index(paths)
        seconds = time.perf_counter() - start
        table = collection.table.to_arrow().select(["source", "window", "caption"])
        rows = table.sort_by([("source", "ascending"), ("window", "ascending")]).to_pylist()
        return {"seconds": seconds, "captions": [row["caption"] for row in rows]}

    run()
    return run


def peak_memory(files: str, threads: int) -> Workload:
    """Peak memory of indexing the files in a new collection."""
    from .resources import peak_bytes

    paths = _paths(files)
    model = load_embedded(threads)

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            index_files(model, Path(folder) / "music.lance", paths)
            return {"peak": peak_bytes()}

    return run


def index_twice(files: str, threads: int) -> Workload:
    """Index the files, then time indexing them again."""
    paths = _paths(files)
    model = load_embedded(threads)

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "music.lance"
            index_files(model, path, paths)
            start = time.perf_counter()
            summary = index_files(model, path, paths)
            return {"again": time.perf_counter() - start, "unchanged": summary.unchanged}

    return run


def load_embedded(threads: int) -> Any:
    """The embedded checkpoint on the CPU."""
    return load_model("embedded", DTYPE, threads)


def index_files(model: Any, path: Path, paths: list[str]) -> Any:
    """Index files in the collection at `path`, created if there is none. Returns the summary."""
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    open_or_create = Collection.open if WindowTable.exists(path) else Collection.create
    return open_or_create(path, model).index(paths)


def short_files(settings: Settings, count: int, seconds: float) -> list[str]:
    """FLAC files of one length under `settings.work`, written unless they exist."""
    import soundfile

    folder = settings.work / f"short_{seconds:g}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.flac" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.is_file():
            partial = path.with_suffix(".new")  # renamed when complete: a run may be interrupted
            soundfile.write(partial, synthetic_clip(seconds, number), SAMPLING_RATE, format="FLAC")
            partial.replace(path)
    return [str(path) for path in paths]


def _files_option(paths: list[str]) -> str:
    """Folder and number of files: a command line has no room for thousands of paths."""
    return f"{Path(paths[0]).parent}:{len(paths)}"


def _paths(files: str) -> list[str]:
    """The paths that `_files_option` was given."""
    folder, _, count = files.rpartition(":")
    return [str(path) for path in sorted(Path(folder).glob("*.flac"))[: int(count)]]
