"""Maintenance of a collection: statistics, list of recordings, prune, verify."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.source import Source
from qwen_audio.errors import AudioError, OptionError

from .conditions import Condition, source_condition
from .table import WindowTable

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["CollectionInfo", "VerifyReport", "info", "list_recordings", "prune", "verify"]

_MIN_COSINE = 0.999
"""Between a stored vector and the same encoded again: float16 costs 1e-7, other thread counts and
processors the rest."""

_SOURCES_PER_DELETE = 8192


@dataclass(frozen=True)
class CollectionInfo:
    """Statistics of a collection. `dataclasses.asdict` gives plain data.

    Attributes:
        rows: windows.
        sources: recordings.
        failures: recordings that could not be decoded.
        bytes: size of the table's folder.
        vectors: Arrow type of the `vector` column.
        captions: whether windows have captions.
        indices: index → rows that are not in it yet (searches scan them as well).
        version: of the Lance table.
        fingerprint, spec: how the vectors are made.
    """

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
    version: int
    fingerprint: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`.

    Attributes:
        checked: recordings encoded again.
        lowest_cosine: the lowest cosine similarity between a stored vector and the new one.
        problems: one message each; empty if there are none.
    """

    checked: int
    lowest_cosine: float
    problems: tuple[str, ...]


def info(collection: WindowTable) -> CollectionInfo:
    """Count rows, recordings, failures, seconds and bytes of the newest version."""
    table = collection.table
    table.checkout_latest()
    durations = collection.columns(["duration_seconds"], Condition('"window" = 0'))[
        "duration_seconds"
    ]
    stats = {index.name: table.index_stats(index.name) for index in table.list_indices()}
    return CollectionInfo(
        path=str(collection.path),
        rows=table.count_rows(),
        sources=len(durations),
        failures=collection.failures.count_rows(),
        audio_seconds=float(np.sum(durations.to_numpy())) if len(durations) else 0.0,
        bytes=sum(file.stat().st_size for file in collection.path.rglob("*") if file.is_file()),
        vectors=str(table.schema.field("vector").type),
        captions=collection.has_captions,
        columns=tuple(table.schema.names),
        indices={name: stat.num_unindexed_rows if stat else 0 for name, stat in stats.items()},
        version=table.version,
        fingerprint=collection.spec.fingerprint,
        spec=collection.spec.settings,
    )


def list_recordings(collection: WindowTable, where: str | None = None) -> list[dict[str, Any]]:
    """Source, `duration_seconds`, number of `windows` and `captions` of every recording, by source.

    Raises OptionError for a condition that can't be used.
    """
    names = ["source", "window", "start_seconds", "end_seconds", "duration_seconds", "caption"]
    recordings: dict[str, dict[str, Any]] = {}
    rows = collection.columns(names, collection.condition(where)).to_pylist()
    for row in sorted(rows, key=lambda row: int(row["window"])):
        new = {"source": row["source"], "duration_seconds": row["duration_seconds"]}
        recording = recordings.setdefault(row["source"], {**new, "windows": 0, "captions": []})
        recording["windows"] += 1
        if row["caption"] is not None:
            caption = {name: row[name] for name in ("start_seconds", "end_seconds", "caption")}
            recording["captions"].append(caption)
    return [recordings[source] for source in sorted(recordings)]


def prune(collection: WindowTable) -> list[str]:
    """Delete the rows of sources that no longer exist. Returns these sources.

    A source that is only unreachable just now (a disk that isn't mounted, a network that is down)
    counts as gone: mount it first.
    """
    sources = sorted(set(collection.columns(["source"])["source"].to_pylist()))
    gone = [source for source in sources if not _exists(source)]
    with collection.locked() as table:
        for start in range(0, len(gone), _SOURCES_PER_DELETE):
            table.delete(source_condition(gone[start : start + _SOURCES_PER_DELETE]))
        failures = collection.failures
        for source in failures.to_arrow()["source"].to_pylist():
            if not _exists(source):
                failures.delete(source_condition([source]))
    return gone


def check_sample(sample: int) -> None:
    """Raises OptionError for anything but a positive whole number."""
    if not isinstance(sample, int) or sample < 1:
        raise OptionError(f"sample={sample!r}: use a whole number from 1 on")


def verify(
    collection: WindowTable, model: AudioModel, *, sample: int = 20, seed: int = 0
) -> VerifyReport:
    """Encode some recordings again and compare; check counts, hashes and indices.

    Args:
        sample: at most so many recordings.
        seed: of their random choice.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for a sample below 1.
    """
    check_sample(sample)
    collection.check(model.spec(**collection.spec.options))
    stats = info(collection)
    problems = [f"index {n} lacks {k} of {stats.rows} rows" for n, k in stats.indices.items() if k]
    keys = collection.columns(["source", "window"])
    pairs = list(zip(keys["source"].to_pylist(), keys["window"].to_pylist(), strict=True))
    problems += _window_problems(pairs)
    sources = sorted({source for source, _ in pairs})
    chosen = np.random.default_rng(seed).permutation(sources)[:sample].tolist()
    lowest_cosine = 1.0
    for source in chosen:
        try:
            for number, cosine in enumerate(_cosines(collection, model, source)):
                lowest_cosine = min(lowest_cosine, cosine)
                if cosine < _MIN_COSINE:
                    problems.append(
                        f"{source}#{number}: cosine {cosine:.5f} with its vector encoded again"
                    )
        except (AudioError, _MismatchError) as error:
            problems.append(str(error))
    return VerifyReport(len(chosen), lowest_cosine, tuple(problems))


class _MismatchError(Exception):
    """A recording no longer has the windows that were stored."""


def _window_problems(pairs: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Messages on duplicate and missing windows, from (source, window) of all rows."""
    unique = set(pairs)
    if len(unique) != len(pairs):
        yield f"{len(pairs) - len(unique)} windows are there twice"
    windows: dict[str, set[int]] = defaultdict(set)
    for source, window in pairs:
        windows[source].add(window)
    for source, numbers in windows.items():
        if numbers != set(range(len(numbers))):
            yield f"{source} lacks windows among its {max(numbers) + 1}"


def _cosines(collection: WindowTable, model: AudioModel, source: str) -> Iterator[float]:
    """Cosine similarity of every stored window's vector with the same encoded again.

    Raises:
        AudioError: if the recording can't be decoded.
        _MismatchError: if it has changed, or has another number of windows.
    """
    from .indexing import encode_windows

    rows = collection.columns(
        ["window", "content_hash", "vector"], source_condition([source])
    ).to_pylist()
    rows.sort(key=lambda row: row["window"])
    audio, content_hash = Source(source).audio_input_and_hash()
    vectors = encode_windows(model, audio, collection.spec)
    if content_hash != rows[0]["content_hash"]:
        raise _MismatchError(f"{source} has changed since it was indexed")
    if len(vectors) != len(rows):
        raise _MismatchError(
            f"{source} has {len(rows)} windows here and {len(vectors)} encoded again"
        )
    for row, vector in zip(rows, vectors, strict=True):
        stored = np.asarray(row["vector"], np.float64)
        yield float(stored @ vector / np.linalg.norm(stored) / np.linalg.norm(vector))


def _exists(source: str) -> bool:
    try:
        Source(source).stat()
    except AudioError:
        return False
    return True
