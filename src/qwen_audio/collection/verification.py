"""Verification of a collection: every stored vector is sound, and a sample is encoded again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import load_source
from qwen_audio.errors import AudioError, counted, whole_number_option
from qwen_audio.inference.progress_bars import OnProgress

from .conditions import source_condition
from .indices import is_outdated
from .maintenance import info
from .table import WindowTable
from .vectors import is_unit, stored_vectors

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["VerifyReport", "check_sample", "verify"]

_MIN_COSINE = 0.999
"""Between a stored vector and the same encoded again: float16 costs 1e-7, other thread counts and
processors the rest."""
_NORM_TOLERANCE = 0.02
"""Of a stored norm, relative to the same encoded again."""
_MAX_DAMAGED = 100
"""So many damaged rows are named, the rest is counted."""


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`.

    Attributes:
        checked: recordings encoded again.
        lowest_cosine: the lowest cosine similarity between a stored vector and the new one; 0 with
            one that is damaged.
        problems: one message each; empty if there are none.
    """

    checked: int
    lowest_cosine: float
    problems: tuple[str, ...]


def check_sample(sample: int) -> int:
    """The number of recordings. Raises OptionError for anything but a positive whole number."""
    return whole_number_option("sample", sample, 1)


def verify(
    collection: WindowTable,
    model: AudioModel,
    *,
    sample: int = 20,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> VerifyReport:
    """Check all vectors, counts and indices; encode some recordings again and compare.

    Args:
        sample: at most so many recordings.
        seed: of their random choice.
        on_progress: called as rows are checked, before each recording is encoded, and after the
            last; see `OnProgress`.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for a sample below 1, or a seed below 0.
    """
    from qwen_audio.inference.pooling import pooled_width

    sample, seed = check_sample(sample), whole_number_option("seed", seed, 0, 2**63 - 1)
    spec = collection.spec
    collection.check(model.spec(**spec.options))
    stats = info(collection)
    problems = [
        f"index {n} lacks {k} of {counted(stats.rows, 'row')}"
        for n, k in stats.indices.items()
        if is_outdated(k, stats.rows)
    ]
    width = pooled_width(spec.pooling, model.dimensions.width(model.dimensions.tap(spec.tap)))
    if collection.width != width:
        problems.append(f"vectors are {collection.width} wide, but {width} by the embedding spec")
        return VerifyReport(0, 0.0, tuple(problems))
    keys = collection.columns(["source", "window"])
    pairs = list(zip(keys["source"].to_pylist(), keys["window"].to_pylist(), strict=True))
    problems += _window_problems(pairs)
    damaged = list(_damaged_rows(collection, stats.rows, on_progress))
    problems += damaged[:_MAX_DAMAGED]
    if len(damaged) > _MAX_DAMAGED:
        problems.append(f"more rows that are damaged: {len(damaged) - _MAX_DAMAGED}")
    sources = sorted({source for source, _ in pairs})
    chosen = np.random.default_rng(seed).permutation(sources)[:sample].tolist()
    lowest_cosine, seconds = 1.0, 0.0
    for done, source in enumerate(chosen):
        if on_progress is not None:
            on_progress("encoding again", done, len(chosen), "recordings", seconds)
        try:
            for number, (cosine, norm_ratio) in enumerate(_encode_again(collection, model, source)):
                lowest_cosine = min(lowest_cosine, cosine)
                if cosine < _MIN_COSINE:
                    problems.append(
                        f"{source}#{number}: cosine {cosine:.5f} with its vector encoded again"
                    )
                if not abs(norm_ratio - 1) < _NORM_TOLERANCE:
                    problems.append(
                        f"{source}#{number}: its norm is {norm_ratio:.5g} × that of its vector "
                        "encoded again"
                    )
        except (AudioError, _MismatchError) as error:
            problems.append(str(error))
    if on_progress is not None:
        on_progress("encoding again", len(chosen), len(chosen), "recordings", seconds)
    return VerifyReport(len(chosen), lowest_cosine, tuple(problems))


class _MismatchError(Exception):
    """A recording no longer has the windows that were stored."""


def _window_problems(pairs: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Messages on duplicate and missing windows, from (source, window) of all rows."""
    unique = set(pairs)
    if len(unique) != len(pairs):
        yield f"there twice: {counted(len(pairs) - len(unique), 'window')}"
    windows: dict[str, set[int]] = defaultdict(set)
    for source, window in pairs:
        windows[source].add(window)
    for source, numbers in windows.items():
        if numbers != set(range(len(numbers))):
            yield f"{source} lacks windows among its {max(numbers) + 1}"


def _damaged_rows(
    collection: WindowTable, total: int, on_progress: OnProgress | None
) -> Iterator[str]:
    """Messages on rows whose vector is not of length 1, or whose norm is no length."""
    done = 0
    for rows in collection.batches(["source", "window", "norm", "vector"]):
        if on_progress is not None:
            on_progress("checking", done, total, "rows")
        done += len(rows)
        vectors = stored_vectors(rows["vector"])
        norms = rows["norm"].to_numpy()  # null becomes NaN
        sound_vectors, sound_norms = is_unit(vectors), np.isfinite(norms) & (norms > 0)
        for k in np.flatnonzero(~(sound_vectors & sound_norms)):
            faults = []
            if not sound_vectors[k]:
                faults.append(f"its vector {_fault(vectors[k])}")
            if not sound_norms[k]:
                faults.append(f"its norm is {norms[k]}")
            name = f"{rows['source'][k].as_py()}#{rows['window'][k].as_py()}"
            yield f"{name}: {' and '.join(faults)}"


def _fault(vector: Float[np.ndarray, "width"]) -> str:
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length):
        return "is not finite"
    return f"has length {length:.5g} instead of 1" if length else "is zero"


def _encode_again(
    collection: WindowTable, model: AudioModel, source: str
) -> Iterator[tuple[float, float]]:
    """For every stored window the cosine similarity of its vector with the same encoded again, and
    the stored norm divided by the new one.

    Raises:
        AudioError: if the recording can't be decoded.
        _MismatchError: if it has changed, or has another number of windows.
    """
    from .encoding import encode_windows

    table = collection.columns(
        ["window", "content_hash", "norm", "vector"], source_condition([source])
    ).sort_by("window")
    waveform, version = load_source(Source(source), track=collection.spec.track)
    if set(table["content_hash"].to_pylist()) != {version.content_hash}:
        raise _MismatchError(f"{source} has changed since it was indexed")
    vectors = encode_windows(model, waveform, collection.spec)
    if len(vectors) != len(table):
        raise _MismatchError(
            f"{source} has {counted(len(table), 'window')} here and {len(vectors)} encoded again"
        )
    stored, norms = stored_vectors(table["vector"]).astype(np.float64), table["norm"].to_numpy()
    for old, old_norm, vector in zip(stored, norms, vectors, strict=True):
        new = vector.astype(np.float64)
        new_norm = float(np.linalg.norm(new))
        if not 0 < new_norm < np.inf:
            raise _MismatchError(f"{source} gives a vector of length {new_norm} encoded again")
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = float(old @ new / np.linalg.norm(old) / new_norm)
        yield (cosine if np.isfinite(cosine) else 0.0), float(old_norm) / new_norm
