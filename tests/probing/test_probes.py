from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from qwen_audio.probing.layer_mix import WeightedLayerSum
from qwen_audio.probing.probes import TrainTestRows, choose_strength, predict


def clouds(count: int = 120, width: int = 6, apart: float = 2.0, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    y = np.arange(count) % 3
    centres = apart * random.standard_normal((3, width))
    return (centres[y] + random.standard_normal((count, width))).astype(np.float32), y


def test_standardised_by_the_training_rows_alone() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(5, 3, (50, 4)).astype(np.float32)
    rows[:, 2] = 1e4  # says nothing
    new = rows[:10] + np.float32(1)
    sides = TrainTestRows.of(rows, new)
    np.testing.assert_allclose(sides.train.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(sides.train.std(0), [1, 1, 0, 1], atol=1e-12)
    expected = (new - rows.mean(0, dtype=float)) / np.where(rows.std(0) > 1e-2, rows.std(0), np.inf)
    np.testing.assert_allclose(sides.test, expected, rtol=1e-3, atol=1e-5)


def test_turned_rows_keep_their_products() -> None:
    for count in (120, 20):  # more rows than numbers, and fewer
        rows = np.random.default_rng(0).standard_normal((count, 40)).astype(np.float32)
        sides = TrainTestRows.of(rows[:-5], rows[-5:])
        train, test = sides.turned
        assert train.shape[1] == min(40, count - 5)
        np.testing.assert_allclose(test @ train.T, sides.test @ sides.train.T, atol=1e-4)
        products = train.T @ train
        off = products - np.diag(np.diag(products))
        assert np.abs(off).max() < 1e-4 * np.abs(products).max()


def test_probes_are_scikit_learns() -> None:
    x, y = clouds(apart=0.5)
    sides = TrainTestRows.of(x[:90], x[90:])
    other = np.roll(y, 7)
    for strength in (1e-3, 1.0):
        for labels, answers in zip(
            (y, other), predict("logistic", sides, [y[:90], other[:90]], strength), strict=True
        ):
            model = LogisticRegression(C=strength, tol=1e-8).fit(sides.train, labels[:90])
            np.testing.assert_array_equal(answers, model.predict(sides.test))
    level = x @ np.arange(6.0)
    (answers,) = predict("ridge", sides, [level[:90]], 0.1)
    expected = Ridge(alpha=10).fit(sides.train, level[:90]).predict(sides.test)
    np.testing.assert_allclose(answers, expected, rtol=1e-10)
    near = KNeighborsClassifier(10, weights="distance", metric="cosine").fit(sides.train, y[:90])
    both = predict("knn", sides, [y[:90], other[:90]])
    np.testing.assert_array_equal(both[0], near.predict(sides.test))
    assert (both[0] != both[1]).any()


def test_neighbours_answer_for_numbers() -> None:
    x, _ = clouds(apart=6)
    (near,) = predict("knn", TrainTestRows.of(x[:90], x[:5]), [x[:90, 0].astype(float)])
    np.testing.assert_allclose(near, x[:5, 0], atol=0.02)  # itself, at no distance


def test_strength_is_chosen_by_what_was_held_back() -> None:
    def right(true: Any, answered: Any) -> float:
        return float(np.mean(true == answered))

    random = np.random.default_rng(1)
    x, y = clouds(apart=0.5)
    noise = random.standard_normal((120, 400)).astype(np.float32)
    rows = np.hstack([x, noise])
    wide, few = TrainTestRows.of(rows, rows), TrainTestRows.of(x, x)
    chosen = choose_strength("logistic", wide, y, np.arange(120), right, 0)
    assert chosen.score > 1 / 3
    tried: list[float] = []

    def note(true: Any, answered: Any) -> float:
        assert len(true) == 30  # a quarter
        tried.append(right(true, answered))
        return tried[-1]

    best = choose_strength("logistic", few, y, np.arange(120), note, 0)
    assert len(tried) == 4  # with every strength
    assert best.score == max(tried)
    one = choose_strength("logistic", few, np.zeros(120, int), np.arange(120), right, 0)
    assert one.score == -np.inf  # nothing to choose with


def test_strength_of_ridge_is_that_of_least_error() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((100, 200)).astype(np.float32)
    level = x[:, :3] @ np.ones(3) + 3 * random.standard_normal(100)
    sides = TrainTestRows.of(x, x)

    def nearness(true: Any, answered: Any) -> float:
        return -float(np.square(true - answered).sum())

    best = choose_strength("ridge", sides, level, np.arange(100), nearness, 0)
    held = np.isin(np.arange(100), np.random.default_rng(0).permutation(100)[:25])
    errors = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1):
        model = Ridge(alpha=1 / strength).fit(sides.train[~held], level[~held])
        errors[strength] = nearness(level[held], model.predict(sides.train[held]))
    assert best.value == max(errors, key=lambda strength: errors[strength])
    assert best.score == pytest.approx(max(errors.values()))


@pytest.mark.parametrize("numeric", [False, True])
def test_one_layer_combined_is_that_layer(numeric: bool) -> None:
    x, y = clouds()
    x = TrainTestRows.of(x, x).train
    answers = (x @ np.arange(6.0)) if numeric else y
    mix = WeightedLayerSum(0.01).fit([x], answers)
    assert mix.weights.tolist() == [1.0]
    model = Ridge(alpha=100) if numeric else LogisticRegression(C=0.01, tol=1e-8)
    expected = model.fit(x, answers).predict(x)
    if numeric:
        np.testing.assert_allclose(mix.predict([x]), expected, rtol=1e-9)
    else:
        np.testing.assert_array_equal(mix.predict([x]), expected)


def test_the_layer_that_knows_gets_the_weight() -> None:
    x, y = clouds(apart=3)
    noise = np.random.default_rng(0).standard_normal((2, *x.shape)).astype(np.float32)
    mix = WeightedLayerSum(1.0).fit([noise[0], x, noise[1]], y)
    assert mix.weights.argmax() == 1
    assert mix.weights.sum() == pytest.approx(1)
    assert np.mean(mix.predict([noise[0], x, noise[1]]) == y) > 0.95


def test_weights_of_layers_are_the_best_there_are() -> None:
    """No small step from them fits better, the linear model being fitted anew each time."""
    random = np.random.default_rng(0)
    heard = random.standard_normal((80, 5))
    layers = [heard + noise * random.standard_normal((80, 5)) for noise in (0.8, 1.0, 1.2)]
    y = heard[:, 0] + 0.3 * random.standard_normal(80)

    def loss(weights: Any) -> float:
        mixed = np.tensordot(weights, np.stack(layers), 1)
        model = Ridge(alpha=100).fit(mixed, y)
        wrong = np.square(y - model.predict(mixed)).sum()
        return float(wrong + 100 * np.square(model.coef_).sum())

    best = WeightedLayerSum(0.01).fit(layers, y).weights
    assert best.min() > 0.01  # none is left out, so steps go every way
    for k in range(3):
        for way in (-1e-3, 1e-3):
            other = best + way * (np.eye(3)[k] - best)
            assert loss(other) > loss(best)


def test_layers_wider_than_there_are_rows_can_be_combined() -> None:
    random = np.random.default_rng(0)
    y = np.arange(30) % 2
    layers = [random.standard_normal((30, 60)).astype(np.float32) for _ in range(2)]
    layers[1][:, 0] += 6 * y
    mix = WeightedLayerSum(0.1).fit(layers, y)
    assert mix.weights.argmax() == 1
    assert np.mean(mix.predict(layers) == y) > 0.95
