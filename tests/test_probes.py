from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from qwen_audio.probes import Mix, Strength, choose_strength, predict, standardised


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
    train, test = standardised(rows, new)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0), [1, 1, 0, 1], atol=1e-5)
    expected = (new - rows.mean(0, dtype=float)) / np.where(rows.std(0) > 1e-2, rows.std(0), np.inf)
    np.testing.assert_allclose(test, expected, rtol=1e-3, atol=1e-5)
    assert train.dtype == test.dtype == np.float32


def test_linear_probes_are_scikit_learns() -> None:
    x, y = clouds()
    np.testing.assert_array_equal(
        predict("logistic", x[:90], y[:90], x[90:], Strength(0.01)),
        LogisticRegression(C=0.01).fit(x[:90], y[:90]).predict(x[90:]),
    )
    level = x @ np.arange(6.0)
    np.testing.assert_allclose(
        predict("ridge", x[:90], level[:90], x[90:], Strength(0.1)),
        Ridge(alpha=10).fit(x[:90], level[:90]).predict(x[90:]),
    )


def test_neighbours_answer_for_names_and_numbers() -> None:
    x, y = clouds(apart=6)
    assert np.mean(predict("knn", x[:90], y[:90], x[90:]) == y[90:]) > 0.95
    near = predict("knn", x[:90], x[:90, 0].astype(float), x[:5])
    np.testing.assert_allclose(near, x[:5, 0], atol=0.02)  # itself, at no distance


def test_strength_is_chosen_by_what_was_held_back() -> None:
    def right(true: Any, answered: Any) -> float:
        return float(np.mean(true == answered))

    random = np.random.default_rng(1)
    x, y = clouds(apart=0.5)
    noise = random.standard_normal((120, 400)).astype(np.float32)
    chosen = choose_strength("logistic", np.hstack([x, noise]), y, np.arange(120), right, 0)
    assert chosen.score > 1 / 3
    tried: list[int] = []

    def note(true: Any, answered: Any) -> float:
        tried.append(len(true))
        return right(true, answered)

    choose_strength("logistic", x, y, np.arange(120), note, 0)
    assert tried == [30] * 4  # a quarter, with every strength
    one = choose_strength("logistic", x, np.zeros(120, int), np.arange(120), right, 0)
    assert one.score == -np.inf  # nothing to choose with


@pytest.mark.parametrize("numeric", [False, True])
def test_one_layer_combined_is_that_layer(numeric: bool) -> None:
    x, y = clouds()
    x = standardised(x, x)[0]
    answers = (x @ np.arange(6.0)) if numeric else y
    mix = Mix(0.01).fit([x], answers)
    assert mix.weights.tolist() == [1.0]
    model = Ridge(alpha=100) if numeric else LogisticRegression(C=0.01, tol=1e-6)
    expected = model.fit(x, answers).predict(x)
    if numeric:
        np.testing.assert_allclose(mix.predict([x]), expected, rtol=1e-2, atol=1e-2)
    else:
        np.testing.assert_array_equal(mix.predict([x]), expected)


def test_the_layer_that_knows_gets_the_weight() -> None:
    x, y = clouds(apart=3)
    noise = np.random.default_rng(0).standard_normal((2, *x.shape)).astype(np.float32)
    mix = Mix(1.0).fit([noise[0], x, noise[1]], y)
    assert mix.weights.argmax() == 1
    assert mix.weights.sum() == pytest.approx(1)
    assert np.mean(mix.predict([noise[0], x, noise[1]]) == y) > 0.95
