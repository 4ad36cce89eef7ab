"""Logistic and ridge regression against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from qwen_audio.probing.linear import LogisticModel, principal_axes, ridge


def correlated_rows(count: int, width: int, seed: int = 0) -> Any:
    """Standardised rows of correlated coordinates, as hidden states have."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((width, width)) * np.logspace(0, -2, width)
    rows = random.standard_normal((count, width)) @ mixing
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 1.0])
@pytest.mark.parametrize("count", [150, 24])
def test_logistic_matches_scikit_learn(classes: int, strength: float, count: int) -> None:
    x = correlated_rows(count, 30)
    y = np.random.default_rng(1).permutation(np.arange(count) % classes)
    axes = principal_axes(x)
    expected = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(x.astype(float), y)
    ours = LogisticModel.fit(x @ axes, y, strength)
    coefficients = axes @ ours.coef.T
    scale = np.abs(expected.coef_).max()
    np.testing.assert_allclose(coefficients, expected.coef_.T, atol=3e-3 * scale)
    np.testing.assert_allclose(ours.intercept, expected.intercept_, atol=1e-3)
    again = LogisticModel.fit(x @ axes, y, strength, ours)
    np.testing.assert_allclose(again.coef, ours.coef, atol=3e-3 * scale)
    tied = (
        np.sort(expected.predict_proba(x), 1)[:, -2:] @ [-1, 1] < 1e-3
    )  # ties may break either way
    assert (ours.predict(x @ axes) == expected.predict(x))[~tied].all()


def test_labels_are_each_against_the_rest() -> None:
    x = correlated_rows(80, 12).astype(float)
    y = x[:, :3] + 0.5 * np.random.default_rng(1).standard_normal((80, 3)) > [0, 1, -0.5]
    expected = OneVsRestClassifier(LogisticRegression(C=0.1, tol=1e-9)).fit(x, y)
    axes = principal_axes(x)
    ours = LogisticModel.fit(x @ axes, y, 0.1)
    for k, model in enumerate(expected.estimators_):
        np.testing.assert_allclose(axes @ ours.coef[k], model.coef_[0], atol=1e-3)
    np.testing.assert_allclose(ours.predict(x @ axes), expected.decision_function(x), atol=5e-3)
    never = LogisticModel.fit(x, np.c_[y, np.zeros(80, bool)], 0.1)
    assert np.isfinite(never.predict(x)).all()


def test_one_class_is_always_predicted() -> None:
    """Shuffled labels may leave no other one in a fold of few recordings."""
    x = correlated_rows(4, 3)
    model = LogisticModel.fit(x, np.ones(4, np.int64), 0.1)
    assert model.predict(x).tolist() == [1] * 4
    assert model.predict(-x).tolist() == [1] * 4


def test_any_integers_are_classes() -> None:
    x = correlated_rows(60, 5)
    y = np.where(x[:, 0] > 0, 7, 3)
    assert set(LogisticModel.fit(x, y, 1.0).predict(x).tolist()) == {3, 7}
    y = np.digitize(x[:, 0], [-0.5, 0.5]) * 5
    assert np.mean(LogisticModel.fit(x, y, 100.0).predict(x) == y) > 0.8


@pytest.mark.parametrize("count", [100, 20])
def test_ridge_matches_scikit_learn(count: int) -> None:
    x = correlated_rows(count, 40).astype(float) + 3
    y = np.random.default_rng(0).standard_normal((count, 2)) + 5
    for strength, model in zip((1e-3, 0.1), ridge(x, y, (1e-3, 0.1)), strict=True):
        expected = Ridge(alpha=1 / strength).fit(x, y)
        np.testing.assert_allclose(model.coef, expected.coef_, atol=1e-10)
        np.testing.assert_allclose(model.decision(x).T, expected.predict(x), rtol=1e-10)
        np.testing.assert_array_equal(model.predict(x), model.decision(x)[0])


def gradient_of_objective(model: LogisticModel, x: Any, y: Any, strength: float) -> Any:
    """Of the mean penalised loss, by every coefficient and intercept."""
    decision = x @ model.coef.T + model.intercept
    assert model.classes is not None
    if len(model.classes) == 2:
        probabilities = 1 / (1 + np.exp(-decision))
        one_hot = (y == model.classes[1])[:, None]
    else:
        exponentials = np.exp(decision - decision.max(1, keepdims=True))
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        one_hot = y[:, None] == model.classes
    error = (probabilities - one_hot) / len(x)
    return np.c_[error.T @ x + model.coef / (strength * len(x)), error.sum(0)]


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    width=st.integers(1, 12),
    classes=st.integers(2, 5),
    seed=st.integers(0, 1000),
    condition=st.floats(1, 100),
    strength=st.sampled_from([1e-3, 1e-1, 1.0]),
)
def test_gradient_vanishes_at_the_fit(
    width: int, classes: int, seed: int, condition: float, strength: float
) -> None:
    random = np.random.default_rng(seed)
    rotation = np.linalg.qr(random.standard_normal((width, width)))[0]
    x = random.standard_normal((40, width)) * np.geomspace(1, condition, width) @ rotation
    y = random.permutation(np.arange(40) % classes)
    axes = principal_axes(x)
    fitted = LogisticModel.fit(x @ axes, y, strength, tolerance=1e-7)
    gradient = gradient_of_objective(fitted, x @ axes, y, strength)
    # The tolerance is on coordinates scaled by the square root of the curvature.
    x_rms = np.append(np.sqrt(np.square(x @ axes).mean(0)), 1)
    assert np.abs(gradient / (x_rms + strength**-0.5)).max() <= 1e-6
    assert np.abs(gradient[:, -1]).max() <= 1e-6


def test_few_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations: list[int] = []
    log_loss = LogisticModel.log_loss

    def counted(self: LogisticModel, x: Any, y: Any) -> Any:
        evaluations.append(1)
        return log_loss(self, x, y)

    monkeypatch.setattr(LogisticModel, "log_loss", counted)
    x = correlated_rows(200, 20)
    x = x @ principal_axes(x)
    y = np.digitize(x[:, 0], [-0.5, 0.5])
    first = LogisticModel.fit(x, y, 0.1)
    assert len(evaluations) < 40
    evaluations.clear()
    LogisticModel.fit(x, y, 0.1, first)
    assert len(evaluations) <= 2  # already at the optimum
    evaluations.clear()
    monkeypatch.setattr("qwen_audio.probing.linear._MAX_EVALUATIONS", 7)
    LogisticModel.fit(x, y, 100.0, tolerance=0.0)
    assert len(evaluations) <= 7 + 20  # one line search may be under way
