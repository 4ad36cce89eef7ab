"""Looking after a collection: what it holds, whether it is true, and taking it elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError, OptionError

from .table import WindowTable, sql_text

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["Info", "VerifyReport", "info", "listing", "prune", "verify"]

_SAME_COSINE = 0.999
"""Between a vector and the same made anew: float16 keeps 1 − 1e-7 of it, other threads and
processors the rest."""

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Info:
    """What a collection holds. `dataclasses.asdict` gives plain data."""

    path: str
    rows: int
    sources: int
    failures: int
    audio_seconds: float
    bytes: int
    vectors: str
    captions: bool
    columns: tuple[str, ...]
    indices: dict[str, int]
    """Of each index the rows that it doesn't know yet (a search looks through them as well)."""
    version: int
    fingerprint: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        checked: sources of the sample.
        lowest_cosine: between a stored vector and the same made anew.
        problems: one line each; none: all is well.
    """

    checked: int
    lowest_cosine: float
    problems: tuple[str, ...]


def info(collection: WindowTable) -> Info:
    """Count it."""
    table = collection.table
    table.checkout_latest()
    first = collection.columns(["duration_seconds"], '"window" = 0')["duration_seconds"]
    stats = {index.name: table.index_stats(index.name) for index in table.list_indices()}
    return Info(
        path=str(collection.path),
        rows=table.count_rows(),
        sources=len(first),
        failures=collection.failures.count_rows(),
        audio_seconds=float(np.sum(first.to_numpy())) if len(first) else 0.0,
        bytes=sum(file.stat().st_size for file in collection.path.rglob("*") if file.is_file()),
        vectors=str(table.schema.field("vector").type),
        captions=collection.describes,
        columns=tuple(table.schema.names),
        indices={name: stat.num_unindexed_rows if stat else 0 for name, stat in stats.items()},
        version=table.version,
        fingerprint=collection.spec.fingerprint,
        spec=dataclasses.asdict(collection.spec),
    )


def listing(collection: WindowTable, where: str | None = None) -> list[dict[str, Any]]:
    """Every source with its seconds, how many windows it has, and their captions; by name."""
    names = ["source", "window", "start_seconds", "end_seconds", "duration_seconds", "caption"]
    found: dict[str, dict[str, Any]] = {}
    rows = collection.columns(names, where).to_pylist()
    for row in sorted(rows, key=lambda row: int(row["window"])):
        about = {"source": row["source"], "duration_seconds": row["duration_seconds"]}
        entry = found.setdefault(row["source"], {**about, "windows": 0, "captions": []})
        entry["windows"] += 1
        if row["caption"] is not None:
            said = {name: row[name] for name in ("start_seconds", "end_seconds", "caption")}
            entry["captions"].append(said)
    return [found[source] for source in sorted(found)]


def prune(collection: WindowTable) -> list[str]:
    """Delete the rows of sources that are gone. Returns these sources.

    A source that only can't be asked just now (a disk that isn't there, a network that is down)
    is not told from one that is gone: mount it first.
    """
    gone = [source for source in _sources(collection) if not _is_there(source)]
    with collection.writing() as table:
        for start in range(0, len(gone), _ROWS_AT_ONCE):
            listed = ", ".join(map(sql_text, gone[start : start + _ROWS_AT_ONCE]))
            table.delete(f"source IN ({listed})")
        failures = collection.failures
        for source in failures.to_arrow()["source"].to_pylist():
            if not _is_there(source):
                failures.delete(f"source = {sql_text(source)}")
    return gone


def verify(
    collection: WindowTable, model: AudioModel, *, sample: int = 20, seed: int = 0
) -> VerifyReport:
    """Encode some sources again and compare; check counts, hashes and indices.

    Args:
        sample: how many, at most.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for a sample of none.
    """
    if not isinstance(sample, int) or sample < 1:
        raise OptionError(f"sample={sample!r}: use a whole number from 1 on")
    from qwen_audio.audio.window import WindowConfig

    from .indexing import pooled_windows

    spec = collection.spec
    collection.check(model.spec(**spec.options))
    state = info(collection)
    problems = [f"index {n} lacks {k} of {state.rows} rows" for n, k in state.indices.items() if k]
    keys = collection.columns(["source", "window"])
    pairs = list(zip(keys["source"].to_pylist(), keys["window"].to_pylist(), strict=True))
    if len(set(pairs)) != len(pairs):
        problems.append(f"{len(pairs) - len(set(pairs))} windows are there twice")
    windows: dict[str, set[int]] = {}
    for source, window in pairs:
        windows.setdefault(source, set()).add(window)
    for source, numbers in windows.items():
        if numbers != set(range(len(numbers))):
            problems.append(f"{source} lacks windows among its {max(numbers) + 1}")
    chosen = np.random.default_rng(seed).permutation(sorted(windows))[:sample].tolist()
    lowest = 1.0
    for source in chosen:
        where = f"source = {sql_text(source)}"
        rows = collection.columns(["window", "content_hash", "vector"], where).to_pylist()
        rows.sort(key=lambda row: row["window"])
        try:
            audio, digest = Source(source).audio_input_and_hash()
            anew = pooled_windows(
                model, audio, spec, WindowConfig(spec.window_seconds, spec.hop_seconds)
            )
        except AudioError as error:
            problems.append(str(error))
            continue
        if digest != rows[0]["content_hash"]:
            problems.append(f"{source} has changed since it was indexed")
            continue
        if len(anew) != len(rows):
            problems.append(f"{source} has {len(rows)} windows here and {len(anew)} made anew")
            continue
        for row, vector in zip(rows, anew, strict=True):
            kept = np.asarray(row["vector"], np.float64)
            cosine = float(kept @ vector / np.linalg.norm(kept) / np.linalg.norm(vector))
            lowest = min(lowest, cosine)
            if cosine < _SAME_COSINE:
                problems.append(f"{source}#{row['window']}: cosine {cosine:.5f} with itself anew")
    return VerifyReport(len(chosen), lowest, tuple(problems))


def _sources(collection: WindowTable) -> Sequence[str]:
    return sorted(set(collection.columns(["source"])["source"].to_pylist()))


def _is_there(source: str) -> bool:
    try:
        Source(source).stat()
    except AudioError:
        return False
    return True
