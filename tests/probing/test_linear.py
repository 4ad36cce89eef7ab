"""Our fits are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from qwen_audio.probing.descent import descend
from qwen_audio.probing.linear import Logistic, principal_axes, ridge


def rows_of(count: int, width: int, seed: int = 0) -> Any:
    """Numbers that depend on each other, as those of hidden states do."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((width, width)) * np.logspace(0, -2, width)
    rows = random.standard_normal((count, width)) @ mixing
    return ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 12])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 1.0])
@pytest.mark.parametrize("count", [150, 24])
def test_logistic_is_scikit_learns(classes: int, strength: float, count: int) -> None:
    x = rows_of(count, 30)
    y = np.random.default_rng(1).permutation(np.arange(count) % classes)
    axes = principal_axes(x)
    theirs = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(x.astype(float), y)
    ours = Logistic.fit(x @ axes, y, strength)
    coefficients = axes @ ours.weights.T
    scale = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(coefficients, theirs.coef_.T, atol=3e-3 * scale)
    np.testing.assert_allclose(ours.constants, theirs.intercept_, atol=1e-3)
    again = Logistic.fit(x @ axes, y, strength, ours)
    np.testing.assert_allclose(again.weights, ours.weights, atol=3e-3 * scale)
    close = np.sort(theirs.predict_proba(x), 1)[:, -2:] @ [-1, 1] < 1e-3  # a tie can fall each way
    assert (ours.predict(x @ axes) == theirs.predict(x))[~close].all()


def test_classes_keep_their_names() -> None:
    x = rows_of(60, 5)
    y = np.where(x[:, 0] > 0, 7, 3)
    assert set(Logistic.fit(x, y, 1.0).predict(x).tolist()) == {3, 7}
    y = np.digitize(x[:, 0], [-0.5, 0.5]) * 5
    assert np.mean(Logistic.fit(x, y, 100.0).predict(x) == y) > 0.8


@pytest.mark.parametrize("count", [100, 20])
def test_ridge_is_scikit_learns(count: int) -> None:
    x = rows_of(count, 40).astype(float) + 3
    y = np.random.default_rng(0).standard_normal((count, 2)) + 5
    for strength, model in zip((1e-3, 0.1), ridge(x, y, (1e-3, 0.1)), strict=True):
        theirs = Ridge(alpha=1 / strength).fit(x, y)
        np.testing.assert_allclose(model.weights, theirs.coef_, atol=1e-10)
        np.testing.assert_allclose(model.scores(x).T, theirs.predict(x), rtol=1e-10)
        np.testing.assert_array_equal(model.predict(x), model.scores(x)[0])


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 12), seed=st.integers(0, 1000), stretch=st.floats(1, 100))
def test_descent_ends_where_the_slope_is_none(width: int, seed: int, stretch: float) -> None:
    random = np.random.default_rng(seed)
    turned = np.linalg.qr(random.standard_normal((width, width)))[0]
    stretched = turned * np.geomspace(1, stretch, width)
    middle = random.standard_normal(width)

    def gradient(point: Any) -> Any:  # of a bowl whose walls grow steeper
        away = (point - middle) @ stretched
        return stretched @ (away + 0.1 * away**3)

    found = descend(gradient, np.zeros(width), 1e-6)
    assert np.abs(gradient(found)).max() <= 1e-6


def test_descent_takes_few_steps_and_no_more_than_allowed() -> None:
    taken: list[int] = []

    def gradient(point: Any) -> Any:
        taken.append(1)
        return np.arange(1, 6) * point

    descend(gradient, np.ones(5), 1e-6)
    assert len(taken) < 30
    taken.clear()
    descend(gradient, np.ones(5), 0.0, steps=7)
    assert len(taken) == 7
    assert descend(gradient, np.zeros(5), 0.0).tolist() == [0.0] * 5
