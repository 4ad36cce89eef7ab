"""Plot of scores by depth: distinct lines, and a legend beside each panel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib.figure
import pandas as pd
import plotly.graph_objects as go
import pytest

from qwen_audio.probing.plots import save_depth_plot


def scores(poolings: list[str], probes: list[str]) -> pd.DataFrame:
    """Two targets, one of them a quantity, at two taps and of a weighted sum of layers."""
    numbers = {"low": 0.6, "high": 0.8, "score": 0.7, "baseline": 0.5, "control": 0.5}
    rows = []
    for target, tap, pooling, probe in itertools.product(
        ("genre", "bpm"), ("mel", "audio_tower", "weighted encoder"), poolings, probes
    ):
        kind = {"metric": "r2", "task": "quantity"} if target == "bpm" else {"task": "classes"}
        rows.append(
            {"target": target, "tap": tap, "pooling": pooling, "probe": probe, "span": "audio",
             "recordings": 60, "classes": 3, "metric": "accuracy", **numbers, **kind}
        )  # fmt: skip
    return pd.DataFrame(rows)


MANY = scores(["mean", "max", "mean+std", "last"], ["logistic", "ridge", "knn"])


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_are_distinct_and_the_legend_is_beside_them(
    tmp_path: Path, theme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[matplotlib.figure.Figure] = []
    save = matplotlib.figure.Figure.savefig

    def recorded(figure: matplotlib.figure.Figure, *args: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    save_depth_plot(MANY, tmp_path / "a.png", "title", theme=theme)
    (figure,) = figures
    for axes in figure.axes:
        lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 12
        legend = axes.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        assert box.x0 >= axes.get_window_extent().x1
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= figure.bbox.y0


def test_the_page_has_a_legend_for_each_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[go.Figure] = []
    to_html = go.Figure.to_html

    def recorded(figure: go.Figure, **options: Any) -> Any:
        figures.append(figure)
        return to_html(figure, **options)

    monkeypatch.setattr(go.Figure, "to_html", recorded)
    save_depth_plot(MANY, tmp_path / "a.html", "title", theme="dark")
    (figure,) = figures
    shown = [(trace.legend, trace.name) for trace in figure.data if trace.showlegend]
    assert len(set(shown)) == len(shown) == 24
    assert figure.layout.legend.y == 1
    assert figure.layout.legend2.y == figure.layout.yaxis2.domain[1]
    assert 'background: #14171c"' in (tmp_path / "a.html").read_text(encoding="utf-8")
