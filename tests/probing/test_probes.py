from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from qwen_audio.probing.average_precision import macro_average_precision
from qwen_audio.probing.probes import TrainTestRows, predict, select_regularization
from qwen_audio.probing.weighted_layer_sum import WeightedLayerSum


def clusters(
    count: int = 120, width: int = 6, separation: float = 2.0, seed: int = 0
) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    y = np.arange(count) % 3
    centres = separation * random.standard_normal((3, width))
    return (centres[y] + random.standard_normal((count, width))).astype(np.float32), y


def test_standardised_by_training_rows_only() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(5, 3, (50, 4)).astype(np.float32)
    rows[:, 2] = 1e4  # constant up to rounding
    new = rows[:10] + np.float32(1)
    fold_rows = TrainTestRows.standardized(rows, new)
    np.testing.assert_allclose(fold_rows.train.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(fold_rows.train.std(0), [1, 1, 0, 1], atol=1e-12)
    expected = (new - rows.mean(0, dtype=float)) / np.where(rows.std(0) > 1e-2, rows.std(0), np.inf)
    np.testing.assert_allclose(fold_rows.test, expected, rtol=1e-3, atol=1e-5)


def test_principal_components_are_a_rotation() -> None:
    for count in (120, 20):  # more rows than coordinates, and fewer
        rows = np.random.default_rng(0).standard_normal((count, 40)).astype(np.float32)
        fold_rows = TrainTestRows.standardized(rows[:-5], rows[-5:])
        train, test = fold_rows.principal_components
        assert train.shape[1] == min(40, count - 5)
        np.testing.assert_allclose(test @ train.T, fold_rows.test @ fold_rows.train.T, atol=1e-4)
        products = train.T @ train
        off_diagonal = products - np.diag(np.diag(products))
        assert np.abs(off_diagonal).max() < 1e-4 * np.abs(products).max()


def test_probes_match_scikit_learn() -> None:
    x, y = clusters(separation=0.5)
    fold_rows = TrainTestRows.standardized(x[:90], x[90:])
    other = np.roll(y, 7)
    for strength in (1e-3, 1.0):
        for labels, predicted in zip(
            (y, other), predict("logistic", fold_rows, [y[:90], other[:90]], strength), strict=True
        ):
            model = LogisticRegression(C=strength, tol=1e-8).fit(fold_rows.train, labels[:90])
            np.testing.assert_array_equal(predicted, model.predict(fold_rows.test))
    level = x @ np.arange(6.0)
    (predicted,) = predict("ridge", fold_rows, [level[:90]], 0.1)
    expected = Ridge(alpha=10).fit(fold_rows.train, level[:90]).predict(fold_rows.test)
    np.testing.assert_allclose(predicted, expected, rtol=1e-10)
    reference = KNeighborsClassifier(10, weights="distance", metric="cosine").fit(
        fold_rows.train, y[:90]
    )
    both = predict("knn", fold_rows, [y[:90], other[:90]])
    np.testing.assert_array_equal(both[0], reference.predict(fold_rows.test))
    assert (both[0] != both[1]).any()


def test_nearest_neighbors_of_quantities() -> None:
    x, _ = clusters(separation=6)
    (predicted,) = predict(
        "knn", TrainTestRows.standardized(x[:90], x[:5]), [x[:90, 0].astype(float)]
    )
    np.testing.assert_allclose(
        predicted, x[:5, 0], atol=0.02
    )  # the nearest neighbor is the row itself


def test_probes_score_labels() -> None:
    x, y = clusters(separation=3)
    labels = np.c_[y == 0, y != 1, np.arange(120) % 5 == 0]
    fold_rows = TrainTestRows.standardized(x[:90], x[90:])
    shuffled = np.random.default_rng(0).permutation(labels)
    for probe in ("logistic", "knn"):
        scores, control = predict(probe, fold_rows, [labels[:90], shuffled[:90]], 0.1)
        assert scores.shape == (30, 3)
        assert macro_average_precision(labels[90:, :2], scores[:, :2]) > 0.95
        assert macro_average_precision(labels[90:, :2], control[:, :2]) < 0.8
    best = select_regularization(
        "logistic", fold_rows, labels[:90], np.arange(90), macro_average_precision, 0
    )
    assert best.validation_score > 0.6


@pytest.mark.slow
def test_regularization_is_selected_on_validation_groups() -> None:
    def accuracy(true: Any, predicted: Any) -> float:
        return float(np.mean(true == predicted))

    random = np.random.default_rng(1)
    x, y = clusters(separation=0.5)
    noise = random.standard_normal((120, 400)).astype(np.float32)
    rows = np.hstack([x, noise])
    noisy, clean = TrainTestRows.standardized(rows, rows), TrainTestRows.standardized(x, x)
    selected = select_regularization("logistic", noisy, y, np.arange(120), accuracy, 0)
    assert selected.validation_score > 1 / 3
    scores: list[float] = []

    def recording_metric(true: Any, predicted: Any) -> float:
        assert len(true) == 30  # a quarter of the groups
        scores.append(accuracy(true, predicted))
        return scores[-1]

    best = select_regularization("logistic", clean, y, np.arange(120), recording_metric, 0)
    assert len(scores) == 4  # one for each strength
    assert best.validation_score == max(scores)
    only_class = select_regularization(
        "logistic", clean, np.zeros(120, int), np.arange(120), accuracy, 0
    )
    assert only_class.validation_score == -np.inf  # nothing to select by


def test_ridge_selects_the_strength_of_least_validation_error() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((100, 200)).astype(np.float32)
    level = x[:, :3] @ np.ones(3) + 3 * random.standard_normal(100)
    fold_rows = TrainTestRows.standardized(x, x)

    def negative_error(true: Any, predicted: Any) -> float:
        return -float(np.square(true - predicted).sum())

    best = select_regularization("ridge", fold_rows, level, np.arange(100), negative_error, 0)
    validation = np.isin(np.arange(100), np.random.default_rng(0).permutation(100)[:25])
    errors = {}
    for strength in (1e-4, 1e-3, 1e-2, 1e-1):
        model = Ridge(alpha=1 / strength).fit(fold_rows.train[~validation], level[~validation])
        errors[strength] = negative_error(
            level[validation], model.predict(fold_rows.train[validation])
        )
    assert best.strength == max(errors, key=lambda strength: errors[strength])
    assert best.validation_score == pytest.approx(max(errors.values()))


@pytest.mark.parametrize("numeric", [False, True])
def test_the_sum_of_one_layer_is_that_layer(numeric: bool) -> None:
    x, y = clusters()
    x = TrainTestRows.standardized(x, x).train
    predicted = (x @ np.arange(6.0)) if numeric else y
    layer_sum = WeightedLayerSum(0.01).fit([x], predicted)
    assert layer_sum.weights.tolist() == [1.0]
    model = Ridge(alpha=100) if numeric else LogisticRegression(C=0.01, tol=1e-8)
    expected = model.fit(x, predicted).predict(x)
    if numeric:
        np.testing.assert_allclose(layer_sum.predict([x]), expected, rtol=1e-9)
    else:
        np.testing.assert_array_equal(layer_sum.predict([x]), expected)


@pytest.mark.slow
def test_the_informative_layer_gets_the_weight() -> None:
    x, y = clusters(separation=3)
    noise = np.random.default_rng(0).standard_normal((2, *x.shape)).astype(np.float32)
    layer_sum = WeightedLayerSum(1.0).fit([noise[0], x, noise[1]], y)
    assert layer_sum.weights.argmax() == 1
    assert layer_sum.weights.sum() == pytest.approx(1)
    assert np.mean(layer_sum.predict([noise[0], x, noise[1]]) == y) > 0.95


def test_layer_weights_are_optimal() -> None:
    """Refitting the linear model for nearby weights never lowers the loss."""
    random = np.random.default_rng(0)
    signal = random.standard_normal((80, 5))
    layers = [signal + noise * random.standard_normal((80, 5)) for noise in (0.8, 1.0, 1.2)]
    y = signal[:, 0] + 0.3 * random.standard_normal(80)

    def loss(weights: Any) -> float:
        mixed = np.tensordot(weights, np.stack(layers), 1)
        model = Ridge(alpha=100).fit(mixed, y)
        wrong = np.square(y - model.predict(mixed)).sum()
        return float(wrong + 100 * np.square(model.coef_).sum())

    best = WeightedLayerSum(0.01).fit(layers, y).weights
    assert best.min() > 0.01  # an interior optimum
    for k in range(3):
        for step in (-1e-3, 1e-3):
            other = best + step * (np.eye(3)[k] - best)
            assert loss(other) > loss(best)


@pytest.mark.slow
def test_layers_are_weighted_for_labels() -> None:
    x, y = clusters(60, separation=3)
    noise = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    labels = np.c_[y == 0, y != 1]
    layer_sum = WeightedLayerSum(1.0).fit([noise, x], labels)
    assert layer_sum.weights[1] > 0.8
    assert macro_average_precision(labels, layer_sum.predict([noise, x])) > 0.95


@pytest.mark.slow
def test_layers_wider_than_their_number_of_rows() -> None:
    random = np.random.default_rng(0)
    y = np.arange(30) % 2
    layers = [random.standard_normal((30, 60)).astype(np.float32) for _ in range(2)]
    layers[1][:, 0] += 6 * y
    layer_sum = WeightedLayerSum(0.1).fit(layers, y)
    assert layer_sum.weights.argmax() == 1
    assert np.mean(layer_sum.predict(layers) == y) > 0.95
