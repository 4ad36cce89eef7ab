"""Vectors and labels → scores: every probe of every readout, beside its baseline and control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from .errors import OptionError
from .folds import Fold, at_chance, interval, make_folds
from .labels import Target
from .probes import (
    CLASSES,
    QUANTITIES,
    Answers,
    Mix,
    ProbeName,
    Rows,
    Strength,
    choose_strength,
    predict,
    standardised,
)
from .readouts import Readout
from .tap import Stage

__all__ = ["Score", "Task", "make_task", "score_all"]

Shuffle = Callable[[Answers, int], Answers]
_Chosen = dict[tuple[Readout, str, int], Strength]
"""How freely a linear probe may fit: of each readout, target and fold."""


@dataclass(frozen=True)
class Score:
    """One probe of one target, at one readout.

    Attributes:
        tap: where; "weighted ear" and "weighted lm" are layers combined.
        metric: "accuracy" of classes, "r2" of quantities, on recordings not trained on, the mean
            over folds; `low` to `high` are its 95 % interval.
        baseline: the same metric of always answering with the most frequent class, or the mean.
        control: the same of the same probe where labels had been shuffled among recordings, and
            `at_chance` whether that is no better than chance.
        recordings, groups, classes: with this label; classes are 0 for a quantity.
        weights: of the layers combined, by tap.
    """

    target: str
    tap: str
    span: str
    pooling: str
    probe: str
    metric: str
    score: float
    low: float
    high: float
    baseline: float
    control: float
    control_low: float
    control_high: float
    at_chance: bool
    recordings: int
    groups: int
    classes: int
    folds: int
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One target, ready to be probed: answers as numbers, and folds of those that have one.

    Attributes:
        where: which of all recordings have the label.
        answers, shuffled: theirs: classes as whole numbers from 0, quantities as they are.
        groups: theirs, as numbers.
    """

    target: Target
    where: np.ndarray
    answers: Answers
    shuffled: Answers
    groups: np.ndarray
    folds: tuple[Fold, ...]
    probes: tuple[ProbeName, ...]
    seed: int

    def score(self, true: Answers, answered: Answers) -> float:
        """The metric: share of right answers, or R²."""
        if not self.target.numeric:
            return float(np.mean(true == answered))
        wrong, spread = np.sum((true - answered) ** 2), np.sum((true - true.mean()) ** 2)
        return float(1 - wrong / spread) if spread else 0.0

    def constant(self, fold: Fold) -> Answers:
        """What the baseline answers in a fold."""
        train = self.answers[fold.train]
        one = train.mean() if self.target.numeric else np.bincount(train).argmax()
        return np.full(len(fold.test), one)


def permuted(answers: Answers, seed: int) -> Answers:
    """In another order."""
    return np.random.default_rng(seed).permutation(answers)


def make_task(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    probes: Sequence[str] | None,
    folds: int | None,
    seed: int,
    shuffle: Shuffle = permuted,
) -> Task:
    """A target as a task, for the probes that apply to it.

    Raises:
        OptionError: as `make_folds` does.
    """
    where = np.array([k for k, value in enumerate(target.values) if value is not None])
    known = Target(target.name, tuple(target.values[k] for k in where), target.numeric)
    theirs = [groups[k] for k in where]
    made = make_folds(known, theirs, splits and [splits[k] for k in where], folds, seed)
    answers: Answers = (
        np.array(known.values, np.float64) if target.numeric else _coded(known.values)
    )
    applying = QUANTITIES if target.numeric else CLASSES
    return Task(
        known,
        where,
        answers,
        shuffle(answers, seed),
        _coded(theirs),
        tuple(made),
        tuple(p for p in applying if probes is None or p in probes),
        seed,
    )


def score_all(
    tasks: Sequence[Task],
    readouts: Sequence[Readout],
    load: Callable[[Readout], Rows],
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

    def of_readout(readout: Readout) -> list[Score]:
        vectors = load(readout)
        if not np.isfinite(vectors).all():
            raise OptionError(
                f"{readout}: vectors that are not finite: load the model with dtype='float32'"
            )
        return [
            _probed(task, readout, probe, vectors[task.where], chosen)
            for task in tasks
            for probe in task.probes
        ]

    def of_mix(mix: tuple[str, list[Readout]]) -> list[Score]:
        name, layers = mix
        vectors = [load(readout) for readout in layers]
        return [
            _mixed(task, name, layers, [rows[task.where] for rows in vectors], chosen)
            for task in tasks
            if set(task.probes) - {"knn"}
        ]

    def alone() -> None:  # the number of OpenMP's threads is each thread's own affair
        threadpool_limits(1)

    with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads(), "probe", alone) as run:
        for work, items in ((of_readout, readouts), (of_mix, mixes)):
            # Layers are combined once all of them have been probed alone.
            for found in run.map(work, items):
                scores += found
                done += 1
                if on_done:
                    on_done(done, total)
    order = {task.target.name: place for place, task in enumerate(tasks)}
    return sorted(scores, key=lambda score: order[score.target])


def _probed(
    task: Task, readout: Readout, probe: ProbeName, vectors: Rows, chosen: _Chosen
) -> Score:
    """One probe at one readout; notes in `chosen` how freely it fitted."""
    answered, controls = [], []
    for number, fold in enumerate(task.folds):
        x, new = standardised(vectors[fold.train], vectors[fold.test])
        y, groups = task.answers[fold.train], task.groups[fold.train]
        strength = None
        if probe != "knn":
            seed = task.seed + number
            strength = choose_strength(probe, x, y, groups, task.score, seed)
            chosen[readout, task.target.name, number] = strength
        answered.append(predict(probe, x, y, new, strength))
        controls.append(predict(probe, x, task.shuffled[fold.train], new, strength))
    where = (str(readout.tap), readout.span, readout.pooling)
    return _score(task, where, probe, answered, controls)


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
    vectors: Sequence[Rows],
    chosen: _Chosen,
) -> Score:
    """Layers combined, as strongly held back as was best for the best of them alone."""
    answered, controls, weights = [], [], []
    for number, fold in enumerate(task.folds):
        pairs = [standardised(rows[fold.train], rows[fold.test]) for rows in vectors]
        xs, new = [x for x, _ in pairs], [x for _, x in pairs]
        alone = [chosen[layer, task.target.name, number] for layer in layers]
        strength = max(alone, key=lambda one: one.score).value
        mix = Mix(strength).fit(xs, task.answers[fold.train])
        weights.append(mix.weights)
        answered.append(mix.predict(new))
        controls.append(Mix(strength).fit(xs, task.shuffled[fold.train]).predict(new))
    probe: ProbeName = "ridge" if task.target.numeric else "logistic"
    where = (name, layers[0].span, layers[0].pooling)
    mean = np.mean(weights, axis=0)
    named = {str(layer.tap): float(of) for layer, of in zip(layers, mean, strict=True)}
    return _score(task, where, probe, answered, controls, named)


def _score(
    task: Task,
    where: tuple[str, str, str],
    probe: ProbeName,
    answered: Sequence[Answers],
    controls: Sequence[Answers],
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
    low, high = interval(scores, folds, (true[0] == answered[0]) * 1.0 if one else None)
    control_low, control_high = interval(
        of_control, folds, (shuffled[0] == controls[0]) * 1.0 if one else None
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


def _coded(values: Sequence[object]) -> np.ndarray:
    """Names as whole numbers from 0, in order of the alphabet."""
    return np.unique(np.array([str(value) for value in values]), return_inverse=True)[1]
