"""probe: which tap holds what? Labels and recordings → a table of scores."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qwen_audio.api.model import AudioModel, load
from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.audio.source import Source
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, MissingExtraError, OptionError
from qwen_audio.models.tap import Tap

from .folds import joined_groups
from .labels import LabelRows, Labels, read_labels
from .probes import PROBES
from .readouts import Readout, plan_readouts, read_out
from .scoring import score_all
from .tasks import Task, make_task
from .vector_cache import VectorCache

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Progress", "probe"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done ("hearing", "probing"), how much is done, and of how much."""


def probe(
    labels: LabelRows,
    model: AudioModel | None = None,
    *,
    targets: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    taps: Sequence[str | Tap] | None = None,
    poolings: Sequence[str] = ("mean",),
    spans: Sequence[str] = ("audio",),
    probes: Sequence[str] | None = None,
    prompt: str | None = None,
    group: str | None = None,
    split: str | None = None,
    folds: int | None = None,
    seed: int = 0,
    window_seconds: float = WindowConfig.window_seconds,
    hop_seconds: float | None = None,
    cache: str | Path | None = None,
    errors: Literal["raise", "leave_out"] = "raise",
    on_progress: Progress | None = None,
) -> pd.DataFrame:
    """How well labels can be read off each tap, with controls.

    Every recording is heard once, in one pass for all taps; probes are trained and tested on
    different recordings.

    Args:
        labels: a manifest with a column `source` and columns of labels; a folder of one folder a
            class; or rows, such as [{"source": "a.wav", "genre": "jazz"}, …].
        model: by default the embedded checkpoint.
        targets: columns to probe; all by default.
        classes: columns whose numbers are names. Others with more than two different numbers are
            quantities.
        taps: all by default.
        poolings: "mean", "max", "mean+std", "last".
        spans: "audio"; at taps in the language model also "prompt", "last", "all".
        probes: "logistic" (classes), "ridge" (quantities), "knn"; by default all that apply.
        prompt: for taps in the language model.
        group: a column: recordings that share its value (and those of the same content) are never
            both trained on and tested. By default "group", if there is one.
        split: a column of train and test, or names of folds. By default "split", if there is one.
        folds: of cross-validation, where there are no splits; 5 by default.
        seed: of folds and shuffles.
        cache: a folder in which vectors are kept, so that other labels of the same recordings
            take seconds.
        errors: "leave_out" leaves out recordings that can't be decoded; their reasons are in the
            result's attrs["failures"].

    Returns:
        One row a target, tap, span, pooling and probe; the columns are those of
        `qwen_audio.probing.tasks.Score`. Its attrs hold "failures", "notes", and "about".

    Raises:
        AudioError: for a recording that can't be decoded.
        TapError: for a tap that the model does not have.
        OptionError: for labels that can't be fitted, and invalid options.
        MissingExtraError: without the extra [probe].
    """
    try:
        import pandas as pd
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("probing", "probe") from error
    if errors not in ("raise", "leave_out"):
        raise OptionError(f"errors={errors!r}: use 'raise' or 'leave_out'")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise OptionError(f"seed={seed!r}: use a whole number from 0 to 2**32 - 1")
    given = read_labels(labels, targets=targets, classes=classes, group=group, split=split)
    if isinstance(probes, str) or not set(probes or PROBES) <= set(PROBES):
        raise OptionError(f"probes={probes!r}: use a list of {', '.join(PROBES)}")
    model = load() if model is None else model
    readouts = plan_readouts(
        model,
        taps,
        poolings,
        spans,
        prompt=prompt,
        window_seconds=window_seconds,
        hop_seconds=hop_seconds,
    )

    failures: dict[str, str] = {}
    contents: list[str] = []
    for source in given.sources:
        try:
            contents.append(_content_of(source))
        except AudioError as error:
            if errors == "raise":
                raise
            failures[source.uri] = str(error)
            contents.append("")
    heard = [k for k, content in enumerate(contents) if content]

    def tasks_of(kept: Sequence[int]) -> tuple[list[Task], list[str]]:
        return _tasks(given.only(kept), [contents[k] for k in kept], probes, folds, seed)

    tasks, notes = tasks_of(heard)  # what can't be learnt from is said before anything is heard
    with ExitStack() as stack:
        if cache is None:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="qwen-audio-probe-"))
        store = VectorCache(cache)
        for k, reason in _hear(model, given, contents, heard, readouts, store, on_progress):
            if errors == "raise":
                raise reason
            failures[given.sources[k].uri] = str(reason)
        if not failures.keys().isdisjoint(given.sources[k].uri for k in heard):
            heard = [k for k in heard if given.sources[k].uri not in failures]
            tasks, notes = tasks_of(heard)
        scores = score_all(
            tasks,
            list(readouts),
            lambda readout: store.vectors(readouts[readout], [contents[k] for k in heard]),
            on_progress and (lambda done, total: on_progress("probing", done, total)),
        )
    frame = pd.DataFrame([dataclasses.asdict(score) for score in scores])
    notes += [
        f"control not at chance: {row.target} at {row.tap} ({row.pooling} over {row.span}, "
        f"{row.probe}): {row.control:.3f} from shuffled labels, with a baseline of "
        f"{row.baseline:.3f}: don't trust that score; look for recordings that repeat"
        for row in scores
        if not row.at_chance
    ]
    first = next(iter(readouts.values()))
    frame.attrs = {
        "failures": failures,
        "notes": notes,
        "about": {
            "model": first.model,
            "revision": first.revision,
            "dtype": first.dtype,
            "prompt": next((spec.prompt for spec in readouts.values() if spec.prompt), None),
            "window_seconds": first.window_seconds,
            "hop_seconds": first.hop_seconds,
            "recordings": len(heard),
            "skipped": list(given.skipped),
            "seed": seed,
        },
    }
    return frame


def _content_of(source: Source) -> str:
    """What tells a recording's content from others without decoding it."""
    if not source.is_local:  # not fetched for this
        size, changed = source.stat()
        if changed:
            return f"{source.uri} {size} {changed}"
    return source.audio_input_and_hash()[1]


def _tasks(
    labels: Labels,
    contents: Sequence[str],
    probes: Sequence[str] | None,
    folds: int | None,
    seed: int,
) -> tuple[list[Task], list[str]]:
    """Every target as a task, and what there is to know of it."""
    if not labels.sources:
        raise OptionError("none of the recordings can be heard: check their paths")
    groups = joined_groups(labels.groups, contents)
    tasks, notes = [], []
    for target in labels.targets:
        task = make_task(target, groups, labels.splits, probes, folds, seed)
        if not task.probes:
            kind = "a quantity" if target.numeric else "classes"
            raise OptionError(
                f"probes={list(probes or ())} don't apply to {target.name}, which is {kind}: "
                f"{'ridge and knn' if target.numeric else 'logistic and knn'} do"
            )
        tasks.append(task)
        if target.labelled < len(labels.sources):
            notes.append(f"{target.name}: {target.labelled} of {len(labels.sources)} have a label")
    if repeated := len(contents) - len(set(contents)):
        notes.append(
            f"{repeated} recordings repeat others, and were kept in the same fold"
            if labels.splits is None
            else f"{repeated} recordings repeat others: check that no split trains on what it tests"
        )
    return tasks, notes


def _hear(
    model: AudioModel,
    labels: Labels,
    contents: Sequence[str],
    wanted: Sequence[int],
    readouts: dict[Readout, EmbeddingSpec],
    store: VectorCache,
    on_progress: Progress | None,
) -> Iterator[tuple[int, AudioError]]:
    """Encode what the cache lacks; yields the recordings that can't be decoded."""
    new: dict[str, int] = {}
    lacking: dict[Readout, EmbeddingSpec] = {}
    for k in wanted:
        lacks = {r: spec for r, spec in readouts.items() if not store.has(spec, contents[k])}
        lacking |= lacks
        if lacks:
            new.setdefault(contents[k], k)

    def opened(k: int) -> Callable[[], Any]:
        return lambda: labels.sources[k].audio_input()

    if not new:
        return
    ordered = {r: spec for r, spec in readouts.items() if r in lacking}
    try:
        results = read_out(model, [opened(k) for k in new.values()], ordered)
        for done, (content, vectors) in enumerate(zip(new, results, strict=True), 1):
            if isinstance(vectors, AudioError):
                for same in wanted:
                    if contents[same] == content:
                        yield same, vectors
            else:
                store.add(content, {ordered[r]: vector for r, vector in vectors.items()})
            if on_progress:
                on_progress("hearing", done, len(new))
    finally:
        store.commit()
