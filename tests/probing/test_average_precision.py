"""Macro average precision against scikit-learn, and by chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from qwen_audio.probing.average_precision import LabelRanking, macro_average_precision


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_as_scikit_learn_with_and_without_ties(
    count: int, labels: int, levels: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    true = random.random((count, labels)) < 0.4
    scores = random.integers(0, levels**3, (count, labels)).astype(float)
    expected = [
        average_precision_score(true[:, k], scores[:, k]) for k in range(labels) if true[:, k].any()
    ]
    assert macro_average_precision(true, scores) == pytest.approx(
        np.mean(expected) if expected else 0.0
    )


def test_chance_is_above_the_share_of_few_positives() -> None:
    true = np.arange(40)[:, None] < [4, 20]
    ranking = LabelRanking.of(np.random.default_rng(0).random((40, 2)))
    chance = ranking.permuted(true, 400, seed=0)
    ranks = np.arange(1, 41)
    expected = [
        np.mean(((m - 1) * (ranks - 1) / 39 + 1) / ranks) for m in (4, 20)
    ]  # of a random ranking
    assert chance.mean() == pytest.approx(np.mean(expected), abs=0.01)
    assert macro_average_precision(true, np.zeros((40, 2))) == pytest.approx(0.3)  # their shares
