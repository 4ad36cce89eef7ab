"""Cross-validated scores of every probe on every feature, with baseline and control."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch

from qwen_audio.errors import OptionError
from qwen_audio.models.tap import Stage, Tap

from .features import FeatureSpec
from .probes import (
    PROBES_OF_TASK,
    FeatureMatrix,
    ProbeName,
    Regularization,
    TargetArray,
    TrainTestRows,
    predict,
    select_regularization,
)
from .statistics import confidence_interval, is_at_chance, labels_at_chance
from .tasks import METRICS, ProbeScore, Task
from .weighted_layer_sum import WeightedLayerSum

__all__ = ["score_all"]

_Selected = dict[tuple[FeatureSpec, str, int], Regularization]
"""Regularization of the linear probe by feature, target name and fold number."""


def score_all(
    tasks: Sequence[Task],
    features: Sequence[FeatureSpec],
    load: Callable[[FeatureSpec], FeatureMatrix],
    width: Callable[[Tap], int],
    on_done: Callable[[int, int], None] | None = None,
) -> list[ProbeScore]:
    """Scores of every task's probes on every feature, and on weighted sums of layers.

    Args:
        load: the vectors of all recordings; called a second time for the weighted sums.
        width: of the model's rows at a tap.
        on_done: called with the number of finished features and sums, and of all.
    """
    from threadpoolctl import threadpool_limits

    layer_sums = list(_layer_sums(features, width))
    total, done = len(features) + len(layer_sums), 0
    scores: list[ProbeScore] = []
    selected: _Selected = {}

    # Each call returns its own dictionary: threads share none that is still being written.
    def score_feature(feature: FeatureSpec) -> tuple[list[ProbeScore], _Selected]:
        vectors = load(feature)
        if not np.isfinite(vectors).all():
            raise OptionError(
                f"{feature}: vectors that are not finite: load the model with dtype='float32'"
            )
        new: _Selected = {}
        by_task = [_score_probes(task, feature, vectors[task.indices], new) for task in tasks]
        return list(chain.from_iterable(by_task)), new

    def score_sum(
        layer_sum: tuple[str, list[FeatureSpec]],
    ) -> tuple[list[ProbeScore], _Selected]:
        name, layers = layer_sum
        vectors = [load(feature) for feature in layers]
        return [
            _score_weighted_sum(task, name, layers, [x[task.indices] for x in vectors], selected)
            for task in tasks
            if set(task.probes) - {"knn"}
        ], {}

    def limit_to_one_thread() -> None:  # OpenMP's number of threads is set in each thread
        threadpool_limits(1)

    workers = torch.get_num_threads()  # read before the limit changes it
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(workers, "probe", limit_to_one_thread) as executor,
    ):
        # The sums need the regularization that was selected for their layers.
        for function, items in ((score_feature, features), (score_sum, layer_sums)):
            for new_scores, new_selected in executor.map(function, items):
                scores += new_scores
                selected |= new_selected
                done += 1
                if on_done:
                    on_done(done, total)
    order = {task.target.name: number for number, task in enumerate(tasks)}
    return sorted(scores, key=lambda score: order[score.target])


def _score_probes(
    task: Task, feature: FeatureSpec, vectors: FeatureMatrix, selected: _Selected
) -> list[ProbeScore]:
    """Every probe on one feature; adds the linear probe's regularization to `selected`."""
    predictions: dict[ProbeName, list[list[TargetArray]]] = {probe: [] for probe in task.probes}
    for number, fold in enumerate(task.folds):
        rows = TrainTestRows.standardized(vectors[fold.train], vectors[fold.test])
        y, groups = task.y[fold.train], task.groups[fold.train]
        for probe, by_fold in predictions.items():
            strength = None
            if probe != "knn":
                best = select_regularization(
                    probe, rows, y, groups, task.metric, task.seed + number
                )
                selected[feature, task.target.name, number] = best
                strength = best.strength
            by_fold.append(predict(probe, rows, [y, task.y_shuffled[fold.train]], strength))
    source = (str(feature.tap), feature.span, feature.pooling)
    return [
        _summarize(task, source, probe, [true for true, _ in by_fold], [c for _, c in by_fold])
        for probe, by_fold in predictions.items()
    ]


def _layer_sums(
    features: Iterable[FeatureSpec], width: Callable[[Tap], int]
) -> Iterator[tuple[str, list[FeatureSpec]]]:
    """Features of equal width to sum: those of the audio encoder, and from the projector on.

    Where the tower has several rows of the encoder side by side, it is in no sum.
    """
    groups: dict[tuple[str, int, str, str], list[FeatureSpec]] = {}
    for feature in features:
        stage = feature.tap.stage
        if stage is not Stage.MEL:
            part = "encoder" if stage < Stage.PROJECTOR else "lm"
            key = (part, width(feature.tap), feature.span, feature.pooling)
            groups.setdefault(key, []).append(feature)
    for (part, *_), layers in groups.items():
        if len(layers) > 1:
            yield f"weighted {part}", layers


def _score_weighted_sum(
    task: Task,
    name: str,
    layers: Sequence[FeatureSpec],
    vectors: Sequence[FeatureMatrix],
    selected: _Selected,
) -> ProbeScore:
    """A weighted sum of layers, with the regularization of the layer that validated best alone."""
    predictions, controls, weights = [], [], []
    for number, fold in enumerate(task.folds):
        rows = [TrainTestRows.standardized(x[fold.train], x[fold.test]) for x in vectors]
        train, test = [layer.train for layer in rows], [layer.test for layer in rows]
        by_layer = [selected[layer, task.target.name, number] for layer in layers]
        strength = max(by_layer, key=lambda choice: choice.validation_score).strength
        model = WeightedLayerSum(strength).fit(train, task.y[fold.train])
        control = WeightedLayerSum(strength).fit(train, task.y_shuffled[fold.train])
        weights.append(model.weights)
        predictions.append(model.predict(test))
        controls.append(control.predict(test))
    probe = PROBES_OF_TASK[task.target.task][0]
    source = (name, layers[0].span, layers[0].pooling)
    mean = np.mean(weights, axis=0)
    by_tap = {str(layer.tap): float(weight) for layer, weight in zip(layers, mean, strict=True)}
    return _summarize(task, source, probe, predictions, controls, by_tap)


def _summarize(
    task: Task,
    source: tuple[str, str, str],
    probe: ProbeName,
    predictions: Sequence[TargetArray],
    controls: Sequence[TargetArray],
    weights: Mapping[str, float] | None = None,
) -> ProbeScore:
    """The score of one probe on a (tap, span, pooling), from its predictions in each fold."""
    folds, kind = task.folds, task.target.task
    true = [task.y[fold.test] for fold in folds]
    shuffled = [task.y_shuffled[fold.test] for fold in folds]
    scores = [task.metric(y, p) for y, p in zip(true, predictions, strict=True)]
    control_scores = [task.metric(y, p) for y, p in zip(shuffled, controls, strict=True)]
    baselines = [
        task.metric(y, task.baseline_predictions(fold)) for y, fold in zip(true, folds, strict=True)
    ]
    baseline, control = float(np.mean(baselines)), float(np.mean(control_scores))
    single = len(folds) == 1 and kind == "classes"
    minimum = -math.inf if kind == "quantity" else 0.0
    low, high = confidence_interval(
        scores, folds, (true[0] == predictions[0]) * 1.0 if single else None, minimum
    )
    control_low, control_high = confidence_interval(
        control_scores, folds, (shuffled[0] == controls[0]) * 1.0 if single else None, minimum
    )
    sizes = [len(fold.test) for fold in folds]
    tested = min(sizes) if kind == "quantity" else sum(sizes)
    return ProbeScore(
        target=task.target.name,
        task=kind,
        tap=source[0],
        span=source[1],
        pooling=source[2],
        probe=probe,
        metric=METRICS[kind],
        score=float(np.mean(scores)),
        low=low,
        high=high,
        baseline=baseline,
        control=control,
        control_low=control_low,
        control_high=control_high,
        control_at_chance=labels_at_chance(shuffled, controls, task.seed)
        if kind == "labels"
        else is_at_chance(control, baseline, tested, kind),
        recordings=len(task.indices),
        groups=len(set(task.groups.tolist())),
        classes=len(task.classes),
        folds=len(folds),
        weights=weights,
    )
