"""Pictures and pages show every text of a panel as it is written."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.text import Text

from nasty_texts import NASTY_TEXTS
from qwen_audio.analysis.html_text import plotly_text
from qwen_audio.analysis.plots import matplotlib_renderer, plotly_renderer
from qwen_audio.analysis.plots.matplotlib_renderer import drawable
from qwen_audio.analysis.plots.panels import Axis, FigureSpec, Image, Line, Panel, named_axis
from qwen_audio.analysis.plots.save import save_figure
from qwen_audio.analysis.plots.theme import theme_of
from qwen_audio.paths import printable

ALL = " ".join([*NASTY_TEXTS, "\ud800"])
"""All of them in one text: what one of them would do, it does there."""


@pytest.fixture(scope="module")
def spec() -> FigureSpec:
    """Figure in which every text is that one."""
    x, y = Axis(ALL, (0.0, 2.0)), named_axis([ALL, "other"], ALL, 2)
    texts = [[ALL, ALL], [ALL, ALL]]
    image = Image(np.eye(2), ALL, x_edges=np.arange(3.0), texts=texts, hover=texts)
    line = Line(
        np.arange(2), np.arange(2.0), name=ALL, in_legend=True, hover=[ALL, ALL], marker="o"
    )
    notes: dict[str, Any] = {"labels": [(1.0, ALL)], "right_ticks": ([(0.0, ALL)], ALL)}
    panels = (
        Panel(ALL, 1.0, x, y, (image,), captions=[(1.0, ALL), (2.0, ALL)], **notes),
        Panel(ALL, 1.0, named_axis([ALL, "other"], ALL, 2), Axis(ALL), (line,), **notes),
    )
    return FigureSpec(ALL, ALL, tuple((panel,) for panel in panels))


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_plotly_text_is_read_as_written(text: str) -> None:
    escaped = plotly_text(text)
    assert html.unescape(escaped) == printable(text)
    assert not re.search(r"[<>$]|%\{", escaped)


def test_no_text_of_an_interactive_figure_is_markup(spec: FigureSpec) -> None:
    figure = plotly_renderer.render(spec, theme_of("light"))
    shown = [text for text in strings(figure.to_dict()) if "onerror" in text]
    assert len(shown) > 25
    for text in shown:
        assert plotly_text(ALL) in text
        rest = text.replace(plotly_text(ALL), "")
        assert not re.search(r"onerror|\$a|<b>|%\{meta", rest), rest


def test_a_page_titled_by_it_is_written(spec: FigureSpec, tmp_path: Path) -> None:
    page = save_figure(spec, tmp_path / "x.html", theme="light").read_text(encoding="utf-8")
    title = page.split("<title>")[1].split("</title>")[0]
    assert html.unescape(title) == printable(ALL)
    assert page.count("onerror=alert") == page.count("&lt;img src=x onerror=alert") > 25


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:constrained_layout not applied")
def test_no_text_of_a_picture_is_a_formula(spec: FigureSpec) -> None:
    figure = matplotlib_renderer.render(spec, theme_of("light"))
    texts = [text for text in figure.findobj(Text) if "onerror" in text.get_text()]
    assert len(texts) > 15
    for text in texts:
        assert drawable(ALL) in text.get_text()
        assert not text.get_parse_math()
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    ET.fromstring(file.getvalue())


def strings(value: Any) -> Iterator[str]:
    """All strings in nested dicts and lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | np.ndarray):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value
