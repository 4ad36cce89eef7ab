"""Collections: what they cost beside the encoding itself, and what they promise."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark import Missing, Result, Settings, Target, say
from .machine import need
from .rounds import ROOT, environment, fresh, in_turns, median
from .synthetic_audio import RATE, sound
from .worker import Turn

__all__ = ["ann_search", "index_cost", "index_memory", "kills", "rerun"]

DTYPE = "float32"
WIDTH = 1280
MANY, FEW = 10_000, 100


def index_cost(settings: Settings) -> Result:
    """Both decode, resample, compute and pool in windows; one also hashes, writes and commits."""
    need("lancedb", "soundfile")
    paths = _short_files(settings, 8 if settings.quick else 300, 5.0)
    options = {"files": _given(paths), "threads": settings.threads}
    rounds = in_turns(
        settings, {"alone": ("indexing:alone", options), "indexed": ("indexing:indexed", options)}
    )
    pairs = zip(rounds.every("indexed"), rounds.every("alone"), strict=True)
    return Result(
        what=f"indexing {len(paths)} new files of 5 s with the embedded checkpoint, against "
        "`encode_each` of the same files",
        dtype=DTYPE,
        figures={
            "indexed_seconds": rounds.seconds("indexed"),
            "alone_seconds": rounds.seconds("alone"),
        },
        ratio=median(a / b for a, b in pairs),
        target=Target(1.10, at_most=True),
        packages=("lancedb",),
    )


def index_memory(settings: Settings) -> Result:
    need("lancedb", "soundfile")
    _need_linux()
    few, many = (4, 8) if settings.quick else (FEW, MANY)
    paths = _short_files(settings, many, 1.0)
    options: dict[str, Any] = {"threads": settings.threads}
    peaks = [
        fresh(settings, ("indexing:filled", {**options, "files": _given(paths[:count])}))
        for count in (few, many)
    ]
    return Result(
        what=f"peak memory of a process that indexes {many} files of 1 s, less that of one that "
        f"indexes {few}",
        dtype=DTYPE,
        figures={
            "few_gb": peaks[0]["peak"] / 1e9,
            "many_gb": peaks[1]["peak"] / 1e9,
            "many_seconds": peaks[1]["seconds"],
        },
        ratio=(peaks[1]["peak"] - peaks[0]["peak"]) / 1e6,
        target=Target(100, at_most=True, unit=" MB"),
        packages=("lancedb",),
    )


def rerun(settings: Settings) -> Result:
    need("lancedb", "soundfile")
    paths = _short_files(settings, 8 if settings.quick else MANY, 1.0)
    facts = fresh(
        settings, ("indexing:twice", {"files": _given(paths), "threads": settings.threads})
    )
    return Result(
        what=f"a second run over {len(paths)} unchanged files, a file",
        dtype=DTYPE,
        figures={"seconds": facts["again"], "unchanged": facts["unchanged"]},
        ratio=1000 * facts["again"] / len(paths),
        target=Target(1, at_most=True, unit=" ms"),
        conditions={"all unchanged": facts["unchanged"] == len(paths)},
        packages=("lancedb",),
    )


def ann_search(settings: Settings) -> Result:
    need("lancedb")
    rows = 2_000 if settings.quick else 100_000
    facts = {
        kind: fresh(settings, ("indexing:searched", {"rows": rows, "kind": kind}))
        for kind in ("clustered", "unstructured")
    }
    clustered = facts["clustered"]
    return Result(
        what=f"search in {rows} rows of {WIDTH} float16 numbers, ten hits, the median of 100 "
        "queries that are none of the rows; recall against comparing all. Clustered: 2,000 centres "
        "in 64 dimensions and noise in all, as embeddings of recordings lie. Unstructured: normal "
        "numbers, where no neighbour is near",
        dtype="float16",
        figures={f"{kind}_{name}": of[name] for kind, of in facts.items() for name in of},
        ratio=1000 * clustered["median_seconds"],
        target=Target(20, at_most=True, unit=" ms"),
        conditions={"recall@10 at least .95": clustered["recall"] >= 0.95},
        packages=("lancedb",),
    )


def kills(settings: Settings) -> Result:
    """kill -9 at a random moment, over and over; then a last run."""
    need("lancedb", "soundfile")
    times = 2 if settings.quick else 20
    paths = _short_files(settings, 40 if settings.quick else 1500, 5.0)
    from qwen_audio.collection.table import WindowTable

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        unbroken, broken = Path(scratch) / "unbroken.lance", Path(scratch) / "broken.lance"
        since = time.monotonic()
        _run_indexer(settings, unbroken, paths)
        # A fifth of a whole run: some kills fall while it starts, most amid its work, whatever
        # the machine's speed.
        longest, kept = (time.monotonic() - since) / 5, []
        for number in range(times):
            _run_indexer(settings, broken, paths, kill_after=float(random.uniform(0, longest)))
            kept.append(_content(broken)[0] if WindowTable.exists(broken) else 0)
            say(f"  {number + 1}/{times} killed, {kept[-1]} rows")
        _run_indexer(settings, broken, paths)
        (rows, whole), (expected, reference) = _content(broken), _content(unbroken)
    return Result(
        what=f"rows after {times} kills at random moments and a last run, against those of an "
        f"unbroken run over the same {len(paths)} files",
        dtype=DTYPE,
        figures={"rows_after_each_kill": kept, "rows": rows, "expected": expected},
        ratio=rows / expected,
        target=Target(1),
        conditions={
            "the same rows, each once": rows == len(whole) and whole == reference,
            "some kills fell amid the work": settings.quick  # whose runs are nearly all start
            or any(0 < number < expected for number in kept),
        },
        packages=("lancedb",),
    )


# Turns.


def alone(files: str, threads: int) -> Turn:
    paths = _taken(files)
    model = _model(threads)

    def turn() -> dict[str, Any]:
        return {"vectors": sum(1 for _ in model.encode_each(paths))}

    turn()
    return turn


def indexed(files: str, threads: int) -> Turn:
    paths = _taken(files)
    model = _model(threads)
    numbers = itertools.count()
    scratch = Path(tempfile.mkdtemp())

    def turn() -> dict[str, Any]:
        done = _fill(model, scratch / f"turn{next(numbers)}.lance", paths)
        return {"rows": done.rows}

    turn()
    return turn


def filled(files: str, threads: int) -> Turn:
    paths = _taken(files)
    from .resources import peak_bytes

    model = _model(threads)

    def turn() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            _fill(model, Path(scratch) / "music.lance", paths)
            return {"peak": peak_bytes()}

    return turn


def twice(files: str, threads: int) -> Turn:
    paths = _taken(files)
    model = _model(threads)

    def turn() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch) / "music.lance"
            _fill(model, place, paths)
            begun = time.perf_counter()
            done = _fill(model, place, paths)
            return {"again": time.perf_counter() - begun, "unchanged": done.unchanged}

    return turn


def searched(rows: int, kind: str) -> Turn:
    """Through `Rows` and what `search` does once it has a vector: queries take no model's time."""
    import pyarrow as pa

    from qwen_audio.api.spec import EmbeddingSpec
    from qwen_audio.collection.search import update_indices, vector_search
    from qwen_audio.collection.table import WindowTable

    queries = 100
    vectors = _vectors(rows + queries, kind)
    scratch = Path(tempfile.mkdtemp())

    def turn() -> dict[str, Any]:
        collection = WindowTable.create(
            scratch / "rows.lance", EmbeddingSpec.from_settings(**_SPEC), WIDTH, has_captions=False
        )
        schema = collection.table.schema
        for start in range(0, rows, 10_000):
            some = vectors[start : min(start + 10_000, rows)]
            given: dict[str, list[Any]] = {
                "source": [f"{start + k}" for k in range(len(some))],
                "window": [0] * len(some),
                "start_seconds": [0.0] * len(some),
                "end_seconds": [10.0] * len(some),
            }
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(some.ravel()), WIDTH)
                if field.name == "vector"
                else pa.array(given.get(field.name, [None] * len(some)), field.type)
                for field in schema
            ]
            collection.table.add(pa.Table.from_arrays(columns, schema=schema))
        begun = time.perf_counter()
        update_indices(collection)
        built = time.perf_counter() - begun
        took, shares = [], []
        for query in vectors[rows:].astype(np.float32):
            begun = time.perf_counter()
            found = vector_search(collection, query, None, 10, exact=False)
            took.append(time.perf_counter() - begun)
            all_of_them = vector_search(collection, query, None, 10, exact=True)
            shares.append(len({h.source for h in found} & {h.source for h in all_of_them}) / 10)
        return {
            "median_seconds": median(took[5:]),
            "recall": float(np.mean(shares)),
            "build_seconds": built,
        }

    return turn


_SPEC: dict[str, Any] = {
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


def _vectors(count: int, kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    if kind == "clustered":
        centres = random.standard_normal((2000, 64)) @ random.standard_normal((64, WIDTH)) / 8
        vectors = centres[random.integers(0, len(centres), count)].astype(np.float32)
        vectors += 0.5 * random.standard_normal((count, WIDTH), dtype=np.float32)
    else:
        vectors = random.standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16)


def _model(threads: int) -> Any:
    import torch

    import qwen_audio as qa

    torch.set_num_threads(threads)
    return qa.load(device="cpu", dtype=DTYPE)


def _fill(model: Any, path: Path, paths: list[str]) -> Any:
    from qwen_audio.collection.collection import Collection
    from qwen_audio.collection.table import WindowTable

    make = Collection.open if WindowTable.exists(path) else Collection.create
    collection = make(path, model)
    return collection.index(paths)


_INDEXER = """
import sys
from pathlib import Path
from benchmarks.indexing import _fill, _model
model = _model(int(sys.argv[2]))
print("ready", flush=True)
_fill(model, Path(sys.argv[1]), sys.stdin.read().splitlines())
"""


def _run_indexer(
    settings: Settings, path: Path, paths: list[str], kill_after: float | None = None
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _INDEXER, str(path), str(settings.threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(settings.threads),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(paths))
    process.stdin.close()
    process.stdout.readline()
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def _content(path: Path) -> tuple[int, set[tuple[str, int, str, bytes]]]:
    """How many rows, and what is in them."""
    import lancedb

    names = ["source", "window", "content_hash", "vector"]
    rows = lancedb.connect(path.parent).open_table(path.stem).to_arrow().select(names).to_pylist()
    return len(rows), {
        (row["source"], row["window"], row["content_hash"], np.float16(row["vector"]).tobytes())
        for row in rows
    }


def _short_files(settings: Settings, count: int, seconds: float) -> list[str]:
    import soundfile

    folder = settings.work / f"short_{seconds:g}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.flac" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.is_file():
            new = path.with_suffix(".new")
            soundfile.write(new, sound(seconds, number), RATE, format="FLAC")
            new.replace(path)
    return [str(path) for path in paths]


def _given(paths: list[str]) -> str:
    """The first and how many: all would be too much for a command line."""
    return f"{Path(paths[0]).parent}:{len(paths)}"


def _taken(files: str) -> list[str]:
    folder, _, count = files.rpartition(":")
    return [str(path) for path in sorted(Path(folder).glob("*.flac"))[: int(count)]]


def _need_linux() -> None:
    if not Path("/proc/self/status").exists():
        raise Missing("peak memory is read from Linux's /proc")
