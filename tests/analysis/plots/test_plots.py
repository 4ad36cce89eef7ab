"""Pictures: nothing cut off, axes named with units, both themes; pages that work offline."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import qwen_audio as qa
from qwen_audio.analysis.logit_lens import TrackedToken
from qwen_audio.analysis.plots.figure_spec import chosen_panels
from qwen_audio.analysis.plots.lens_panels import short_word
from qwen_audio.analysis.plots.matplotlib_renderer import drawable
from qwen_audio.audio.timecode import format_time
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
THEMES: tuple[Any, ...] = ("light", "dark")


@pytest.fixture(scope="module")
def things() -> dict[str, qa.View | qa.LogitLens | qa.LayerSimilarity | qa.Comparison]:
    """One of each, short and long."""
    model = qa.load()
    long = np.concatenate([sound(31.0, seed) for seed in range(2)])
    lens = model.lens(sound(4.0), tokens=["piano", "xylophone"], nearest=True, **RATE)
    return {
        "view": model.view(sound(6.0), depth=True, **RATE),
        "long view": model.view(long, tap="encoder.1", **RATE),
        "shortest view": model.view(sound(0.04), tap="lm.1", **RATE),
        "lens": lens,
        "long lens": model.lens(long, tokens=["piano"], **RATE),
        "shortest lens": model.lens(sound(0.04), taps=["lm.-1"], **RATE),
        "last position": model.lens(sound(1.0), span="last", **RATE),
        "layers": model.layer_similarity([sound(3.0)], **RATE),
        "two layers": model.layer_similarity([sound(3.0)], taps=["mel", "lm.norm"], **RATE),
        "comparison": compared(model, model.taps, 6.0),
        "shortest comparison": compared(model, model.taps[-1:], 0.04),
    }


def compared(model: qa.AudioModel, taps: Any, seconds: float) -> qa.Comparison:
    one, two = model.activations([sound(seconds), sound(seconds, 1)], taps=taps, **RATE)
    return qa.Comparison.of((one[tap], two[tap]) for tap in one)


NAMES = [
    "view",
    "long view",
    "shortest view",
    "lens",
    "long lens",
    "shortest lens",
    "last position",
    "layers",
    "two layers",
    "comparison",
    "shortest comparison",
]


def texts(figure: Figure) -> list[Text]:
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    hidden = set()
    for axes in figure.axes:  # ticks beyond the limits are made, and not drawn
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden |= {tick.label1, tick.label2}
    return [text for text in shown if text not in hidden]


PICTURES = [
    *((name, "light") for name in NAMES),
    *((name, "dark") for name in ("view", "lens", "layers", "comparison")),
]
"""Names and themes: each in light, and one of each kind in dark."""

Draw = Callable[[str, Any], tuple[Figure, list[Text]]]


@pytest.fixture(scope="module")
def drawn(things: dict[str, Any]) -> Draw:
    """Draws one of the things in a theme, once: its figure and texts."""

    @functools.cache
    def draw(name: str, theme: Any) -> tuple[Figure, list[Text]]:
        figure = qa.plot(things[name], theme=theme)
        return figure, texts(figure)

    return draw


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theme"), PICTURES)
def test_no_text_is_cut_off(drawn: Draw, name: str, theme: Any) -> None:
    figure, shown = drawn(name, theme)
    assert figure.get_figwidth() * figure.dpi <= 1200
    box = figure.bbox
    for text in shown:
        extent = text.get_window_extent()
        inside = extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1
        inside &= extent.y0 >= box.y0 - 1 and extent.y1 <= box.y1 + 1
        assert inside, (text.get_text(), extent.bounds, box.bounds)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_axes_are_named_with_their_units(drawn: Draw, name: str) -> None:
    figure, shown = drawn(name, "light")
    for axes in figure.axes:
        if axes.get_title(loc="left"):
            labels = f"{axes.get_xlabel()} {axes.get_ylabel()}"
            if any(tick.get_visible() for tick in axes.get_yticklabels()):
                assert axes.get_ylabel(), axes.get_title(loc="left")
            if "Time" in labels:
                assert re.search(r"Time \((s|min:s|h:min:s)\)", labels), labels
        elif axes.get_label() == "<colorbar>":
            assert axes.get_ylabel()
    words = " ".join(text.get_text() for text in shown)
    if "view" in name:
        for unit in ("(Hz)", "(dB)", "Time ("):
            assert unit in words
    if name in ("lens", "long lens"):
        assert "Bits" in words
        assert "Time of the audio (" in words


@pytest.mark.slow
@pytest.mark.parametrize("theme", THEMES)
def test_text_can_be_read_against_the_paper(drawn: Draw, theme: Any) -> None:
    figure, shown = drawn("view", theme)
    paper = np.array(mpl.colors.to_rgb(figure.get_facecolor()))
    for text in shown:
        ink = np.array(mpl.colors.to_rgb(text.get_color()))
        assert contrast(ink, paper) > 3, text.get_text()


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """WCAG's ratio of luminances."""

    def luminance(colour: np.ndarray) -> float:
        linear = np.where(colour <= 0.03928, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
def test_words_that_are_followed_fill_the_scale_and_say_how_far(things: dict[str, Any]) -> None:
    lens = things["lens"]
    shares = lens.followed_probabilities[:, lens.indices("audio")]
    figure = qa.plot(lens, ["followed"])
    tops = [image.get_clim()[1] for axes in figure.axes for image in axes.get_images()]
    assert tops
    assert tops == pytest.approx([float(shares.max())] * len(tops))
    piano = f"Probability of “piano”, at most {shares[..., 0].max():.1%}"
    assert piano in [axes.get_title(loc="left") for axes in figure.axes]
    assert piano in [
        note.text for note in qa.plot_interactive(lens, ["followed"]).layout.annotations
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lens", "long lens", "tenths"])
def test_times_under_the_words_are_apart(things: dict[str, Any], name: str) -> None:
    lens = things["long lens"] if name == "tenths" else things[name]
    if name == "tenths":  # 70 s: three figures and a point
        lens = dataclasses.replace(lens, start_seconds=lens.start_seconds * 70 / 155)
    figure = qa.plot(lens, ["words"])
    figure.canvas.draw()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    for (one, box), (other, after) in itertools.pairwise(zip(labels, boxes, strict=True)):
        assert box.x1 + 3 < after.x0, (one.get_text(), other.get_text())


@pytest.mark.slow
def test_the_bar_stands_beside_the_square(things: dict[str, Any]) -> None:
    for panels in (["similarity"], ["similarity", "depth"]):
        figure = qa.plot(things["view"], panels)
        figure.canvas.draw()
        square = figure.axes[0]
        (beside,) = square.child_axes
        gap = beside.get_window_extent().x0 - square.get_window_extent().x1
        assert 0 < gap < 0.1 * square.get_window_extent().width


def test_times_have_the_digits_that_tell_them_apart() -> None:
    assert [format_time(0.04, 0.05), format_time(0.6, 0.6), format_time(66.4, 66.4)] == [
        "0.04",
        "0.6",
        "66",
    ]
    assert format_time(150, 15, as_timecode=True) == "2:30"
    assert short_word("<|endoftext|>") == "endoftext"
    assert short_word(" harpsichords") == "harpsichor…"


@pytest.mark.slow
def test_panels_are_chosen_by_name(things: dict[str, Any]) -> None:
    figure = qa.plot(things["view"], ["novelty", "waveform"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "Waveform"
    assert titles[1].startswith("Novelty")
    assert len(titles) == 2
    with_all = chosen_panels(things["view"], None)
    assert with_all == (
        "waveform",
        "mel",
        "heat",
        "colours",
        "norms",
        "novelty",
        "similarity",
        "depth",
    )
    assert "depth" not in chosen_panels(things["long view"], None)
    assert chosen_panels(things["last position"], None) == ("words",)


@pytest.mark.parametrize(
    ("name", "panels", "message"),
    [
        ("view", ["spectrum"], "a View has waveform, mel"),
        ("lens", ["mel"], "a LogitLens has words"),
        ("layers", ["mel"], "a LayerSimilarity has layers"),
        ("long view", ["depth"], "ask for it"),
        ("long lens", ["nearest"], "ask for it"),
        ("shortest lens", ["followed"], "name words to track"),
        ("last position", ["entropy"], "holds no audio"),
        ("view", [], "panels is empty"),
        ("view", "mel", "is one text"),
    ],
)
def test_panels_that_are_not_there(
    things: dict[str, Any], name: str, panels: Any, message: str
) -> None:
    for how in (qa.plot, qa.plot_interactive):
        with pytest.raises(qa.OptionError, match=message):
            how(things[name], panels)


@pytest.mark.slow
def test_letters_that_the_font_lacks_are_boxes(things: dict[str, Any]) -> None:
    assert drawable("a$b_琴\n") == "a$b_□⏎"
    lens = things["lens"]
    strange = dict.fromkeys(lens.vocabulary, "$\\frac{琴}{\x00}$")
    followed = (TrackedToken("$x$", (1,), "$x_琴"), lens.followed[1])
    made = dataclasses.replace(lens, vocabulary=strange, followed=followed, name="$a/b$<b>.wav")
    figure = qa.plot(made)
    figure.canvas.draw()
    assert "<b>.wav" in " ".join(text.get_text() for text in texts(figure))
    title = qa.plot_interactive(made).layout.title.text
    assert "&lt;b&gt;.wav" in title


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theme"), PICTURES)
def test_charts_show_the_same_numbers(things: dict[str, Any], name: str, theme: Any) -> None:
    thing = things[name]
    figure = qa.plot_interactive(thing, theme=theme)
    wanted = len(chosen_panels(thing, None))
    wanted += len(thing.followed) - 1 if isinstance(thing, qa.LogitLens) and thing.followed else 0
    drawn = {(trace.xaxis or "x") for trace in figure.data}
    assert len(drawn) == wanted
    assert figure.layout.paper_bgcolor == ("#ffffff" if theme == "light" else "#14171c")
    if name == "view":
        novelty = figure.data[chosen_panels(thing, None).index("novelty")]
        np.testing.assert_array_equal(novelty.y, thing.novelty)


@pytest.mark.slow
def test_pages_need_nothing_beside_them(things: dict[str, Any], tmp_path: Path) -> None:
    for name in ("view", "lens", "layers", "comparison"):
        page = qa.save_plot(things[name], tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>")
        assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page)
        assert len(page) < 8e6


@pytest.mark.slow
def test_images_are_written_whole(things: dict[str, Any], tmp_path: Path) -> None:
    for suffix, start in {
        ".png": b"\x89PNG",
        ".svg": b"<?xml",
        ".pdf": b"%PDF",
        ".PNG": b"\x89PNG",
    }.items():
        path = qa.save_plot(things["two layers"], tmp_path / f"x{suffix}")
        assert path.read_bytes().startswith(start)
    with pytest.raises(qa.OptionError, match="the suffix decides the format"):
        qa.save_plot(things["two layers"], tmp_path / "x.gif")
    with pytest.raises(qa.OptionError, match="no folder"):
        qa.save_plot(things["two layers"], tmp_path / "none" / "x.png")
    with pytest.raises(qa.OptionError, match="a View has"):
        qa.save_plot(things["view"], tmp_path / "none.png", ["nothing"])
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".html"])
def test_the_same_plot_is_the_same_file(
    suffix: str, things: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for seconds in ("1", "1000000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)  # instead of the time of day
        path = qa.save_plot(things["two layers"], tmp_path / f"{seconds}{suffix}")
        files.append(path.read_bytes())
    assert files[0] == files[1]
    assert mpl.rcParams["svg.hashsalt"] is None


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_texts_in_any_script_are_drawn_without_a_warning(suffix: str, weight: str) -> None:
    """Bold letters of mathematics are in one of the font's weights only."""
    figure = Figure(figsize=(1, 1))
    text = "你好 🎵 مرحبا עברית กขค नमस्ते 𝄞 𝖠𝖡 \uf000 \ufeff \ufffe \u200d a\u0301 \ud800"
    figure.text(0, 0.5, drawable(text), weight=weight)
    figure.savefig(io.BytesIO(), format=suffix)
    assert drawable("\ufeff𝖠") == "□□"


@pytest.mark.slow
def test_threads_may_draw_in_different_themes(things: dict[str, Any]) -> None:
    drawn: dict[int, Figure] = {}

    def draw(number: int) -> None:
        drawn[number] = qa.plot(things["two layers"], theme=THEMES[number % 2])

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, figure in drawn.items():
        assert mpl.colors.to_hex(figure.get_facecolor()) == ("#ffffff", "#14171c")[number % 2]
    assert mpl.rcParams["text.parse_math"] is True
