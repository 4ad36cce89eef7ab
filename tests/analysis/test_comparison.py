"""Comparison by depth and time: equal to plain NumPy, and sure of what it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import distance

import qwen_audio as qa
from qwen_audio.analysis.alignment import ALIGNMENTS
from qwen_audio.analysis.plots.figure_spec import figure_spec
from qwen_audio.analysis.row_metrics import METRICS, check_metric, row_metric
from qwen_audio.cli import compare as compare_command
from recordings import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.slow
def test_it_is_the_cosine_of_what_encode_gives(checkpoint: Path, tmp_path: Path) -> None:
    model = qa.load(checkpoint)
    clips = [sound(2.0, 16_000, seed=1)[0], sound(3.0, 16_000, seed=2)[0]]
    one, two = model.activations(clips, taps=model.taps, **RATE)
    compared = qa.Comparison.of(((one[tap], two[tap]) for tap in one), columns=10)
    assert compared.taps == tuple(map(str, model.taps))
    assert compared.by_time.shape == (len(model.taps), 10)
    assert compared.column_seconds == pytest.approx(0.2)
    for tap, cosine in zip(compared.taps, compared.overall, strict=True):
        a, b = model.encode(clips, tap=tap, **RATE)
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-4)
    a, b = (frames["encoder.1"].data[:10] for frames in (one, two))
    by_hand = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    assert compared.by_time[2][0] == pytest.approx(np.mean(by_hand), abs=1e-5)
    compared.save(tmp_path / "compared.csv")
    lines = (tmp_path / "compared.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 10 * len(model.taps)
    same = qa.Comparison.of((frames, frames) for frames in one.values())
    assert same.by_time == pytest.approx(1.0, abs=1e-5)


def test_what_makes_no_pair_is_an_error(checkpoint: Path) -> None:
    frames = qa.load(checkpoint).activations(sound(1.0, 16_000)[0], taps=["mel", "lm.0"], **RATE)
    with pytest.raises(qa.OptionError, match=r"mel can't be compared with lm\.0"):
        qa.Comparison.of([(frames["mel"], frames["lm.0"])])
    with pytest.raises(qa.OptionError, match="nothing to compare"):
        qa.Comparison.of([])
    with pytest.raises(qa.OptionError, match="columns=0"):
        qa.Comparison.of([(frames["mel"], frames["mel"])], columns=0)


def test_recordings_are_compared_window_by_window(checkpoint: Path) -> None:
    """As their whole hidden states are; the longer one goes on in the means only."""
    model = qa.load(checkpoint)
    one, two = sound(2.0, 16_000, seed=1)[0], sound(3.3, 16_000, seed=2)[0]
    options: dict[str, Any] = {"window_seconds": 1.0, **RATE}
    taps = ["mel", "encoder.1", "lm.1"]
    found = model.compare(one, two, taps=taps, columns=10, **options)
    states = model.activations([one, two], taps=taps, **options)
    expected = qa.Comparison.of(((states[0][tap], states[1][tap]) for tap in taps), columns=10)
    np.testing.assert_allclose(found.overall, expected.overall, atol=1e-5)
    np.testing.assert_allclose(found.by_time, expected.by_time, atol=1e-5)
    assert found.names == ("array (32000,)", "array (52800,)")
    assert found.column_seconds == pytest.approx(0.2)
    scaled = found.by_time_scaled
    np.testing.assert_array_equal(scaled.argmax(1), found.by_time.argmax(1))
    np.testing.assert_allclose([scaled.min(1), scaled.max(1)], [[0] * 3, [1] * 3])
    with pytest.raises(qa.OptionError, match="two recordings, not lists"):
        model.compare([one], two, **RATE)  # type: ignore[arg-type]
    with pytest.raises(qa.OptionError, match="only the language model"):
        model.compare(one, two, taps=["mel"], prompt="What?", **RATE)
    with pytest.raises(qa.AudioError, match="no such file"):
        model.compare(Path("none.wav"), two)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_what_their_names_say(metric: Any) -> None:
    random = np.random.default_rng(3)
    one, other = random.standard_normal((2, 6, 5)).astype(np.float32) + 1.0
    centres = random.standard_normal(5), random.standard_normal(5)
    expected = {
        "cosine": lambda a, b: 1 - distance.cosine(a, b),
        "correlation": lambda a, b: 1 - distance.correlation(a, b),
        "centred_cosine": lambda a, b: 1 - distance.cosine(a - centres[0], b - centres[1]),
        "relative_distance": lambda a, b: (
            distance.euclidean(a, b) / (0.5 * (np.linalg.norm(a) + np.linalg.norm(b)))
        ),
    }[metric]
    found = row_metric(one, other, metric, centres)
    by_hand = [expected(*map(np.float64, pair)) for pair in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, by_hand, atol=1e-6)
    same = row_metric(one, one, metric, (centres[0], centres[0]))
    np.testing.assert_allclose(same, float(metric != "relative_distance"), atol=1e-6)
    zeros = np.zeros((1, 5), np.float32)
    assert row_metric(zeros, zeros, metric, (zeros[0], zeros[0])).tolist() == [0.0]


def test_centred_cosines_of_windows(checkpoint: Path) -> None:
    """The means are those over all windows of each recording."""
    model = qa.load(checkpoint)
    one, two = sound(1.0, 16_000, seed=1)[0], sound(2.4, 16_000, seed=2)[0]
    options: dict[str, Any] = {"window_seconds": 0.6, **RATE}
    found = model.compare(one, two, taps=["lm.1"], metric="centred_cosine", columns=6, **options)
    first, second = (
        states["lm.1"].data[states["lm.1"].indices("audio")]
        for states in model.activations([one, two], taps=["lm.1"], **options)
    )
    a, b = first - first.mean(0), (second - second.mean(0))[: len(first)]
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert found.overall[0] == pytest.approx(cosines.mean(), abs=1e-5)
    weights = np.diff(np.linspace(0, len(first), found.by_time.shape[1] + 1).astype(int))
    assert found.by_time[0] @ weights / len(first) == pytest.approx(cosines.mean(), abs=1e-5)
    with pytest.raises(qa.OptionError, match="metric='l2': use cosine, correlation"):
        check_metric("l2")


def test_files_say_what_was_compared(tmp_path: Path) -> None:
    path = np.array([[0.0, 0.0], [0.0, 0.5], [0.5, 1.0]])
    made = qa.Comparison(
        ("mel",),
        np.array([0.5], np.float32),
        np.array([[0.25, -0.75]], np.float32),
        0.5,
        ("a.wav", "b.wav"),
        "correlation",
        path,
        0.25,
    )
    made.save(tmp_path / "made.json")
    facts = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    said = facts["metric"], facts["alignment"], facts["path_distance"]
    assert said == ("correlation", "dtw", 0.25)
    assert [row["correlation"] for row in facts["rows"]] == [0.25, -0.75]
    assert [row["other_start_seconds"] for row in facts["rows"]] == [0.0, 1.0]
    assert made.other_seconds(np.array([0.1, 0.6, 9.0])) == pytest.approx([0.1, 1.1, 9.5])
    made.save(tmp_path / "made.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "made.npz")["path_seconds"], path)
    title = figure_spec(made).rows[0][0].title
    assert (
        title
        == "Correlation at each moment of the first, between the lowest and highest of its tap"
    )
    assert "correlation -0.750, aligned with 1.00 s" in str(figure_spec(made).rows[0][0].marks)
    assert repr(made) == "Comparison(correlation; 1 tap × 2 columns of 0.5 s, aligned by dtw)"
    assert (METRICS, ALIGNMENTS) == (compare_command.METRICS, compare_command.ALIGNMENTS)
