"""Classes of recordings: priors, temperatures and reliability, of numbers made up here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score

import qwen_audio as qa
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.intervals import wilson_interval
from qwen_audio.analysis.reliability import reliability
from qwen_audio.analysis.scores import Scores, log_softmax

CLASSES = ["a", "b", "c"]


def scores(name: str, values: np.ndarray) -> Scores:
    """Of windows, (windows, choices)."""
    return Scores(
        name=name,
        choices=tuple(CLASSES),
        windows=tuple(qa.Window(float(n), n + 1.0) for n in range(len(values))),
        token_log_probabilities=tuple(tuple((float(v),) for v in row) for row in values),
        tokens=tuple((text,) for text in CLASSES),
        prompt="",
        leading_space=False,
        include_end=False,
        length_normalized=False,
        over_windows="mean",
        dtype="float32",
    )


def random_scores(count: int, sharpness: float = 3.0) -> tuple[list[Scores], list[str]]:
    """Recordings, and labels that are likely by their scores, up to a temperature."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(count, 3))
    shares = np.exp(log_softmax(logits))
    labels = [CLASSES[random.choice(3, p=row)] for row in shares]
    sharp = log_softmax(sharpness * logits)
    return [scores(f"{n}.wav", row[None]) for n, row in enumerate(sharp)], labels


def test_temperature_is_the_one_at_which_labels_are_likeliest() -> None:
    of_clips, labels = random_scores(400)
    result = Classification.of(of_clips, CLASSES)
    right = [CLASSES.index(label) for label in labels]

    def loss(log_temperature: float) -> float:
        values = log_softmax(result.log_probability / np.exp(log_temperature))
        return -float(values[np.arange(400), right].mean())

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)
    fitted = result.fit_temperature(labels)
    assert fitted.temperature == pytest.approx(expected, rel=1e-3)
    assert fitted.temperature == pytest.approx(3, rel=0.2)  # what the scores were sharpened by
    assert fitted.labels == result.labels
    by_name = result.fit_temperature(dict(zip(result.names[::-1], labels[::-1], strict=True)))
    assert by_name.temperature == fitted.temperature
    assert fitted.fit_temperature(labels).temperature == pytest.approx(fitted.temperature)
    before, after = (c.reliability(labels) for c in (result, fitted))
    assert after.expected_calibration_error < 0.6 * before.expected_calibration_error


def test_labels_that_fit_no_temperature() -> None:
    of_clips, _ = random_scores(30)
    result = Classification.of(of_clips, CLASSES)
    with pytest.raises(qa.OptionError, match="all 30 recordings have their label as the likeliest"):
        result.fit_temperature(result.labels)
    worst = [CLASSES[k] for k in result.log_probability.argmin(axis=1)]
    with pytest.raises(qa.OptionError, match="no likelier by these scores than by chance"):
        result.fit_temperature(worst)
    with pytest.raises(qa.OptionError, match="29 labels for 30 recordings: give one for each"):
        result.fit_temperature(worst[1:])
    with pytest.raises(qa.OptionError, match="label 'd': use one of a, b, c"):
        result.fit_temperature(["d", *worst[1:]])
    with pytest.raises(qa.OptionError, match=r"labels has none of '0\.wav'"):
        result.fit_temperature({"1.wav": "a"})


def test_a_prior_is_divided_out() -> None:
    of_clips, _ = random_scores(50)
    plain = Classification.of(of_clips, CLASSES)
    given = Classification.of(of_clips, CLASSES, {"c": 6.0, "a": 1.0, "b": 3.0})
    expected = plain.probability / [1, 3, 6]
    np.testing.assert_allclose(
        given.probability, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9
    )
    assert given.prior == pytest.approx((0.1, 0.3, 0.6))
    batch = Classification.of(of_clips, CLASSES, "batch")
    np.testing.assert_allclose(batch.prior or (), plain.probability.mean(axis=0))
    uniform = Classification.of(of_clips, CLASSES, [2, 2, 2])
    np.testing.assert_allclose(uniform.probability, plain.probability)
    with pytest.raises(qa.OptionError, match="prior='batch' of 1 recording"):
        Classification.of(of_clips[:1], CLASSES, "batch")


def test_recordings_of_several_windows(tmp_path: Path) -> None:
    """Each counts once in the prior of a batch; temperatures are of windows, too."""
    windows = log_softmax(np.random.default_rng(0).normal(size=(3, 3))) - [[0.1], [2.0], [0.3]]
    of_clips = [scores("a", windows[:1]), scores("b", windows[1:])]
    result = Classification.of(of_clips, CLASSES, "batch", 2.0)
    shares = np.exp(log_softmax(windows))
    prior = (shares[0] + shares[1:].mean(axis=0)) / 2
    np.testing.assert_allclose(result.prior or (), prior)
    expected = np.sqrt(shares / prior)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.window_probability(1), expected[1:])
    np.testing.assert_allclose([[row[c] for c in CLASSES] for row in result.rows()], expected)
    np.testing.assert_allclose(result.mass, np.exp([-0.1, -2.0]))
    with np.load(result.save(tmp_path / "a.npz")) as saved:
        assert set(saved) == {"facts", "sources", "probability", "log_probability", "mass"}
        np.testing.assert_array_equal(saved["probability"], result.probability)


def test_intervals_end_between_none_and_all() -> None:
    counts = np.arange(1.0, 200.0)
    low, _ = wilson_interval(np.zeros_like(counts), counts)
    _, high = wilson_interval(counts, counts)
    assert low.min() == 0
    assert high.max() == 1
    np.testing.assert_allclose(low + 1, high)


def test_reliability_is_scikit_learns_curve() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.2, 1, 300)
    is_right = random.uniform(size=300) < confidence
    found = reliability(confidence, is_right, 8)
    accuracy, mean = calibration_curve(is_right, confidence, n_bins=8)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, mean)
    assert found.recordings == 300
    assert found.mean_accuracy == accuracy_score(np.ones(300), is_right)
    assert found.right == is_right.sum()
    assert ((found.low <= accuracy) & (accuracy <= found.high)).all()
    whole = reliability(np.array([1.0, 1.0]), np.array([True, False]), 4)
    assert (whole.accuracy.tolist(), whole.expected_calibration_error) == ([0.5], 0.5)
    uneven = reliability(np.array([0.6, 0.8, 0.9, 1.0]), np.array([True, True, True, False]), 4)
    assert uneven.counts.tolist() == [1, 3]  # the last bin ends with 1
    assert uneven.expected_calibration_error == pytest.approx((0.4 + 3 * (0.9 - 2 / 3)) / 4)
    assert list(uneven.rows()[0]) == ["confidence", "accuracy", "low", "high", "recordings"]
    assert whole.low[0] == pytest.approx(0.0945, abs=1e-3)  # Wilson's, of one of two
    with pytest.raises(qa.OptionError, match="bins=0"):
        reliability(confidence, is_right, 0)
