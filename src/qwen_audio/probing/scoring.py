"""Vectors and labels → scores: every probe of every readout, beside its baseline and control."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch

from qwen_audio.errors import OptionError
from qwen_audio.models.tap import Stage

from .layer_mix import WeightedLayerSum
from .probes import (
    Features,
    ProbeName,
    Regularization,
    Targets,
    TrainTestRows,
    choose_strength,
    predict,
)
from .readouts import Readout
from .statistics import at_chance, interval
from .tasks import Score, Task

__all__ = ["score_all"]

_Chosen = dict[tuple[Readout, str, int], Regularization]
"""How freely a linear probe may fit: of each readout, target and fold."""


def score_all(
    tasks: Sequence[Task],
    readouts: Sequence[Readout],
    load: Callable[[Readout], Features],
    on_done: Callable[[int, int], None] | None = None,
) -> list[Score]:
    """Every task's probes at every readout, and at layers combined.

    Args:
        load: the vectors of all recordings at a readout; called again for layers combined.
        on_done: called with how much is done, and of how much.
    """
    from threadpoolctl import threadpool_limits

    mixes = list(_mixes(readouts))
    total, done = len(readouts) + len(mixes), 0
    scores: list[Score] = []
    chosen: _Chosen = {}

    # What a thread finds is its own until it is handed over: nothing is shared while it may change.
    def of_readout(readout: Readout) -> tuple[list[Score], _Chosen]:
        vectors = load(readout)
        if not np.isfinite(vectors).all():
            raise OptionError(
                f"{readout}: vectors that are not finite: load the model with dtype='float32'"
            )
        strengths: _Chosen = {}
        found = [_probed(task, readout, vectors[task.where], strengths) for task in tasks]
        return list(chain.from_iterable(found)), strengths

    def of_mix(mix: tuple[str, list[Readout]]) -> tuple[list[Score], _Chosen]:
        name, layers = mix
        vectors = [load(readout) for readout in layers]
        return [
            _mixed(task, name, layers, [rows[task.where] for rows in vectors], chosen)
            for task in tasks
            if set(task.probes) - {"knn"}
        ], {}

    def alone() -> None:  # the number of OpenMP's threads is each thread's own affair
        threadpool_limits(1)

    threads = torch.get_num_threads()  # which the limit changes
    with threadpool_limits(1), ThreadPoolExecutor(threads, "probe", alone) as run:
        for work, items in ((of_readout, readouts), (of_mix, mixes)):
            # Layers are combined once all of them have been probed alone.
            for found, strengths in run.map(work, items):
                scores += found
                chosen |= strengths
                done += 1
                if on_done:
                    on_done(done, total)
    order = {task.target.name: place for place, task in enumerate(tasks)}
    return sorted(scores, key=lambda score: order[score.target])


def _probed(task: Task, readout: Readout, vectors: Features, chosen: _Chosen) -> list[Score]:
    """Every probe at one readout; notes in `chosen` how freely the linear one fitted."""
    answered: dict[ProbeName, list[list[Targets]]] = {probe: [] for probe in task.probes}
    for number, fold in enumerate(task.folds):
        sides = TrainTestRows.of(vectors[fold.train], vectors[fold.test])
        y, groups = task.answers[fold.train], task.groups[fold.train]
        for probe, answers in answered.items():
            strength = None
            if probe != "knn":
                best = choose_strength(probe, sides, y, groups, task.score, task.seed + number)
                chosen[readout, task.target.name, number] = best
                strength = best.value
            answers.append(predict(probe, sides, [y, task.shuffled[fold.train]], strength))
    where = (str(readout.tap), readout.span, readout.pooling)
    return [
        _score(task, where, probe, [a for a, _ in answers], [c for _, c in answers])
        for probe, answers in answered.items()
    ]


def _mixes(readouts: Iterable[Readout]) -> Iterator[tuple[str, list[Readout]]]:
    """Layers of one width that can be combined: of the ear, of the language model."""
    groups: dict[tuple[str, str, str], list[Readout]] = {}
    for readout in readouts:
        stage = readout.tap.stage
        if stage is not Stage.MEL:
            side = "ear" if stage < Stage.PROJECTOR else "lm"
            groups.setdefault((side, readout.span, readout.pooling), []).append(readout)
    for (side, _, _), layers in groups.items():
        if len(layers) > 1:
            yield f"weighted {side}", layers


def _mixed(
    task: Task,
    name: str,
    layers: Sequence[Readout],
    vectors: Sequence[Features],
    chosen: _Chosen,
) -> Score:
    """Layers combined, as strongly held back as was best for the best of them alone."""
    answered, controls, weights = [], [], []
    for number, fold in enumerate(task.folds):
        sides = [TrainTestRows.of(rows[fold.train], rows[fold.test]) for rows in vectors]
        xs, new = [side.train for side in sides], [side.test for side in sides]
        alone = [chosen[layer, task.target.name, number] for layer in layers]
        strength = max(alone, key=lambda one: one.score).value
        mix = WeightedLayerSum(strength).fit(xs, task.answers[fold.train])
        weights.append(mix.weights)
        answered.append(mix.predict(new))
        controls.append(WeightedLayerSum(strength).fit(xs, task.shuffled[fold.train]).predict(new))
    probe: ProbeName = "ridge" if task.target.numeric else "logistic"
    where = (name, layers[0].span, layers[0].pooling)
    mean = np.mean(weights, axis=0)
    named = {str(layer.tap): float(of) for layer, of in zip(layers, mean, strict=True)}
    return _score(task, where, probe, answered, controls, named)


def _score(
    task: Task,
    where: tuple[str, str, str],
    probe: ProbeName,
    answered: Sequence[Targets],
    controls: Sequence[Targets],
    weights: Mapping[str, float] | None = None,
) -> Score:
    folds, numeric = task.folds, task.target.numeric
    true = [task.answers[fold.test] for fold in folds]
    shuffled = [task.shuffled[fold.test] for fold in folds]
    scores = [task.score(a, b) for a, b in zip(true, answered, strict=True)]
    of_control = [task.score(a, b) for a, b in zip(shuffled, controls, strict=True)]
    baseline = float(
        np.mean([task.score(a, task.constant(f)) for a, f in zip(true, folds, strict=True)])
    )
    one = len(folds) == 1 and not numeric
    least = -math.inf if numeric else 0.0
    low, high = interval(scores, folds, (true[0] == answered[0]) * 1.0 if one else None, least)
    control_low, control_high = interval(
        of_control, folds, (shuffled[0] == controls[0]) * 1.0 if one else None, least
    )
    sizes = [len(fold.test) for fold in folds]
    control = float(np.mean(of_control))
    return Score(
        target=task.target.name,
        tap=where[0],
        span=where[1],
        pooling=where[2],
        probe=probe,
        metric="r2" if numeric else "accuracy",
        score=float(np.mean(scores)),
        low=low,
        high=high,
        baseline=baseline,
        control=control,
        control_low=control_low,
        control_high=control_high,
        at_chance=at_chance(
            control, baseline, min(sizes) if numeric else sum(sizes), numeric=numeric
        ),
        recordings=len(task.where),
        groups=len(set(task.groups.tolist())),
        classes=0 if numeric else len(set(task.answers.tolist())),
        folds=len(folds),
        weights=weights,
    )
