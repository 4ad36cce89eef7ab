"""Pictures of scores: bars by window and by recording, and reliability, by both renderers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.plots.figure_spec import chosen_panels
from qwen_audio.analysis.reliability import reliability
from qwen_audio.analysis.scores import Scores, log_softmax


def scores(name: str, windows: int, choices: int) -> Scores:
    random = np.random.default_rng(windows)
    values = log_softmax(2 * random.normal(size=(windows, choices)))
    return Scores(
        name=name,
        choices=tuple(f"<b>choice {number}</b>" for number in range(choices)),
        windows=tuple(qa.Window(2.0 * n, 2.0 * n + 3) for n in range(windows)),  # overlapping
        token_log_probabilities=tuple(tuple((float(v),) for v in row) for row in values),
        tokens=(("a",),) * choices,
        prompt="",
        leading_space=False,
        include_end=False,
        length_normalized=False,
        over_windows="mean",
        dtype="float32",
    )


@pytest.fixture(scope="module")
def things() -> dict[str, Any]:
    many = [scores(f"{number}.wav", 1 + number % 3, 4) for number in range(40)]
    classes = list(many[0].choices)
    random = np.random.default_rng(0)
    confidence = random.uniform(size=200)
    return {
        "scores": scores("song.wav", 4, 3),
        "many choices": scores("song.wav", 2, 30),
        "one recording": Classification.of(many[2:3], classes),
        "three recordings": Classification.of(many[:3], classes),
        "forty recordings": Classification.of(many, classes),
        "reliability": reliability(confidence, random.uniform(size=200) < confidence, 10),
    }


NAMES = ("scores", "many choices", "one recording", "three recordings", "forty recordings")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bars_are_stacked_to_one(things: dict[str, Any], name: str) -> None:
    figure = qa.plot(things[name])
    axes: Any = figure.axes[0]
    groups = [container.patches for container in axes.containers]
    assert len(groups) <= 10
    columns = list(zip(*groups, strict=True))
    for column in columns:
        heights = [bar.get_height() for bar in column]
        assert sum(heights) == pytest.approx(1)
        bottoms = [bar.get_y() for bar in column]
        np.testing.assert_allclose(bottoms, np.cumsum([0.0, *heights[:-1]]), atol=1e-12)
    ends = [column[0].get_x() + column[0].get_width() for column in columns]
    starts = [column[0].get_x() for column in columns]
    assert all(end <= start + 1e-9 for end, start in zip(ends, starts[1:], strict=False))
    page = qa.plot_interactive(things[name])
    for trace, bars in zip(page.data, groups, strict=True):
        np.testing.assert_allclose(np.asarray(trace.y, float), [bar.get_height() for bar in bars])
        np.testing.assert_allclose(np.asarray(trace.base, float), [bar.get_y() for bar in bars])
        np.testing.assert_allclose(np.asarray(trace.x, float), [bar.get_x() for bar in bars])
    assert "<b>" not in page.to_json().replace("\\u003cb\\u003e", "")
    box = figure.bbox
    figure.canvas.draw()
    for text in [*axes.get_legend().get_texts(), *axes.get_xticklabels(), axes.title]:
        extent = text.get_window_extent()
        assert extent.x1 <= box.x1 + 1, text.get_text()


@pytest.mark.slow
def test_reliability_has_its_intervals(things: dict[str, Any]) -> None:
    result = things["reliability"]
    axes: Any = qa.plot(result, theme="dark").axes[0]
    diagonal, points = axes.lines
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_allclose(points.get_ydata(), result.accuracy)
    (_, markers) = qa.plot_interactive(result).data
    np.testing.assert_allclose(markers.error_y.array, result.high - result.accuracy)


def test_panels_are_named(things: dict[str, Any]) -> None:
    panels = [chosen_panels(things[name], None) for name in (*NAMES, "reliability")]
    assert panels == [
        *[("windows",)] * 3,
        *[("recordings",)] * 2,
        ("reliability",),
    ]
    with pytest.raises(qa.OptionError, match="a Scores has windows"):
        qa.plot(things["scores"], ["mel"])
