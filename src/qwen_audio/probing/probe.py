"""probe: cross-validated scores of linear probes from every tap to labels."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qwen_audio.api.model import AudioModel, load
from qwen_audio.audio.damage import without_partial_advice
from qwen_audio.audio.source_content import SourceVersion
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.progress_bars import OnProgress, progress_bars
from qwen_audio.models.tap import Tap

from .content import content_id, identify, load_identified
from .embedding_cache import EmbeddingCache
from .features import FeatureSpec, extract_features, plan_features
from .labels import LabelledDataset, LabelsInput, read_labels
from .options import check_folds, check_installed, check_probes, check_seed
from .scoring import score_all
from .tasks import Task, make_tasks

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["probe"]

"""Called with the stage ("encoding", "probing"), the number of items done, and the total."""


def probe(
    labels: LabelsInput | LabelledDataset,
    model: AudioModel | None = None,
    *,
    targets: Sequence[str] | None = None,
    tasks: Mapping[str, str] | None = None,
    taps: Sequence[str | Tap] | None = None,
    poolings: Sequence[str] = ("mean",),
    spans: Sequence[str] = ("audio",),
    probes: Sequence[str] | None = None,
    prompt: str | None = None,
    group: str | None = None,
    split: str | None = None,
    folds: int | None = None,
    min_count: int | None = None,
    seed: int = 0,
    window_seconds: float = WindowConfig.window_seconds,
    hop_seconds: float | None = None,
    track: int | None = None,
    cache: str | Path | None = None,
    errors: Literal["raise", "leave_out"] = "raise",
    on_progress: OnProgress | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Score how well labels can be predicted from each tap, with baselines and controls.

    Every recording is encoded once, in one pass for all taps. Probes are trained and tested on
    different recordings.

    Args:
        labels: a manifest with a column `source` and columns of labels; a folder with one folder
            per class; rows, such as [{"source": "a.wav", "genre": "jazz"}, …], a data frame or a
            Hugging Face dataset; or what `qwen_audio.probing.labels.read_labels` returns.
        model: by default the embedded checkpoint.
        targets: columns to predict; all by default.
        tasks: "classes", "quantity" or "labels" (several in a cell), by column. By default
            chosen by the column's values, with the reason in the result's attrs["notes"].
        taps: all by default.
        poolings: "mean", "max", "mean+std", "last".
        spans: "audio"; at taps in the language model also "prompt", "last", "all".
        probes: "logistic" (classes, labels), "ridge" (quantities), "knn"; by default all that
            apply.
        prompt: for taps in the language model.
        group: a column: recordings that share its value (or their content) are never both trained
            on and tested. By default "group" if there is one.
        split: a column of "train" and "test", or of names of folds. By default "split" if there is
            one.
        folds: number of cross-validation folds without splits; 5 by default.
        min_count: classes and labels with fewer recordings are left out, and named in
            attrs["notes"], as are those in fewer groups than folds; by default the number of folds,
            with given splits 1.
        seed: of folds and shuffled labels.
        track: which audio track of files with several; by default FFmpeg's choice.
        cache: a folder for embeddings, so that probing other labels of the same recordings takes
            seconds.
        errors: "leave_out" leaves out recordings that can't be decoded; their reasons are in the
            result's attrs["failures"].
        on_progress: see `OnProgress`.
        progress: whether bars show that, where `on_progress` isn't given; by default in notebooks
            only.

    Returns:
        One row per target, tap, span, pooling and probe; the columns are those of
        `qwen_audio.probing.tasks.ProbeScore`. Its attrs are "failures", "notes" and "about".

    Raises:
        AudioError: for a recording that can't be decoded.
        TapError: for a tap that the model does not have.
        OptionError: for labels that can't be probed, of all columns at once, and invalid options.
        MissingExtraError: without the extra [probe].
    """
    check_installed()
    import pandas as pd

    if errors not in ("raise", "leave_out"):
        raise OptionError(f"errors={errors!r}: use 'raise' or 'leave_out'")
    seed, folds = check_seed(seed), check_folds(folds)
    check_probes(probes)
    columns = {"targets": targets, "tasks": tasks, "group": group, "split": split}
    if not isinstance(labels, LabelledDataset):
        dataset = read_labels(labels, targets=targets, tasks=tasks, group=group, split=split)
    elif given := [name for name, value in columns.items() if value is not None]:
        raise OptionError(
            f"{given[0]} has no effect on labels that are read: give it to read_labels"
        )
    else:
        dataset = labels
    model = load() if model is None else model
    features = plan_features(
        model,
        taps,
        poolings,
        spans,
        prompt=prompt,
        window_seconds=window_seconds,
        hop_seconds=hop_seconds,
        track=track,
    )

    failures: dict[str, str] = {}
    contents: list[str] = []
    versions: dict[str, SourceVersion] = {}

    def tasks_of(indices: Sequence[int]) -> tuple[list[Task], list[str]]:
        of_subset = [contents[k] for k in indices]
        return make_tasks(dataset.subset(indices), of_subset, probes, folds, min_count, seed)

    with ExitStack() as stack:
        if on_progress is None:
            on_progress = stack.enter_context(progress_bars(progress))
        for number, source in enumerate(dataset.sources):
            if on_progress is not None:
                on_progress("reading", number, len(dataset.sources), "recordings")
            try:
                versions[source.uri] = identify(source)
                contents.append(content_id(source, versions[source.uri]))
            except AudioError as error:
                if errors == "raise":
                    raise
                failures[source.uri] = without_partial_advice(str(error))
                contents.append("")
        usable = [k for k, content in enumerate(contents) if content]
        task_list, notes = tasks_of(usable)  # label errors are raised before any encoding
        if cache is None:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="qwen-audio-probe-"))
        embedding_cache = EmbeddingCache(cache)
        for k, failure in _encode_missing(
            model, dataset, contents, versions, usable, features, embedding_cache, on_progress
        ):
            if errors == "raise":
                raise failure
            failures[dataset.sources[k].uri] = without_partial_advice(str(failure))
        if not failures.keys().isdisjoint(dataset.sources[k].uri for k in usable):
            usable = [k for k in usable if dataset.sources[k].uri not in failures]
            task_list, notes = tasks_of(usable)
        scores = score_all(
            task_list,
            list(features),
            lambda feature: embedding_cache.vectors(
                features[feature], [contents[k] for k in usable]
            ),
            model.dimensions.width,
            None
            if on_progress is None
            else lambda done, total: on_progress("probing", done, total, "features"),
        )
    frame = pd.DataFrame([dataclasses.asdict(score) for score in scores])
    notes += [
        f"control above chance: {score.target} at {score.tap} ({score.pooling} over {score.span}, "
        f"{score.probe}): {score.control:.3f} on shuffled labels, baseline {score.baseline:.3f}: "
        "don't trust this score; look for duplicate recordings"
        for score in scores
        if not score.control_at_chance
    ]
    spec = next(iter(features.values()))
    frame.attrs = {
        "failures": failures,
        "notes": notes,
        "about": {
            "model": spec.model,
            "revision": spec.revision,
            **({} if spec.adapter is None else {"adapter": spec.adapter}),
            "dtype": spec.dtype,
            **({} if spec.quantization is None else {"quantization": spec.quantization}),
            "prompt": next((spec.prompt for spec in features.values() if spec.prompt), None),
            "window_seconds": spec.window_seconds,
            "hop_seconds": spec.hop_seconds,
            "recordings": len(usable),
            "skipped": list(dataset.skipped),
            "seed": seed,
        },
    }
    return frame


def _encode_missing(
    model: AudioModel,
    dataset: LabelledDataset,
    contents: Sequence[str],
    versions: dict[str, SourceVersion],
    indices: Sequence[int],
    features: dict[FeatureSpec, EmbeddingSpec],
    cache: EmbeddingCache,
    on_progress: OnProgress | None,
) -> Iterator[tuple[int, AudioError]]:
    """Encode what the cache lacks; yields the recordings that can't be decoded."""
    first_with_content: dict[str, int] = {}
    missing: set[FeatureSpec] = set()
    for k in indices:
        lacking = [f for f, spec in features.items() if not cache.has(spec, contents[k])]
        missing.update(lacking)
        if lacking:
            first_with_content.setdefault(contents[k], k)

    if not first_with_content:
        return
    to_extract = {feature: spec for feature, spec in features.items() if feature in missing}
    track = next(iter(features.values())).track
    inputs = [
        partial(load_identified, dataset.sources[k], versions[dataset.sources[k].uri], track)
        for k in first_with_content.values()
    ]
    if on_progress is not None:
        on_progress("encoding", 0, len(first_with_content), "recordings")
    try:
        results = extract_features(model, inputs, to_extract)
        for done, (content, vectors) in enumerate(
            zip(first_with_content, results, strict=True), start=1
        ):
            if isinstance(vectors, AudioError):
                for k in indices:
                    if contents[k] == content:
                        yield k, vectors
            else:
                cache.add(content, {to_extract[f]: vector for f, vector in vectors.items()})
            if on_progress is not None:
                on_progress("encoding", done, len(first_with_content), "recordings")
    finally:
        cache.commit()
