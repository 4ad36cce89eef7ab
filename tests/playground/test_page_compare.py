"""The Compare tab in a browser: values by tap and time, alignment, the link, and patching."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import ROOT, PlaygroundProcess, axe_violations, open_example, select_tab
from qwen_audio.analysis.row_metrics import Metric

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
GUITAR, DJEMBE, SPEECH = (EXAMPLES / f"{name}.flac" for name in ("guitar", "djembe", "speech"))
PANEL = "[data-panel=compare]"


def open_tab(page: Any) -> None:
    """The tab, with what it compares by itself."""
    select_tab(page, "Compare")
    shows(page, "guitar.flac", "djembe.flac")


def shows(page: Any, first: str, second: str) -> None:
    """Wait until these recordings are compared."""
    page.wait_for_function(
        """([first, second]) => {
          const find = (name) => document.querySelector(`[data-panel=compare] [data-${name}]`);
          return find('pair')?.hidden === false && find('status').textContent === ''
            && find('first-name').textContent === first
            && find('second-name').textContent === second; }""",
        arg=[first, second],
    )


def values(page: Any) -> list[str]:
    return list(page.locator(f"{PANEL} [data-values] span").all_inner_texts())


def written(numbers: Any) -> list[str]:
    return [f"{value:.3f}".replace("-", "−") for value in numbers]


def readout(page: Any, share: float, tap: int, taps: int) -> str:
    """What is said at a point of the picture: a share of its time, and a tap from the first."""
    canvas = page.locator(f"{PANEL} .pg-compare-map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y = box["height"] * (1 - (tap + 0.5) / taps)
    canvas.hover(position={"x": share * box["width"], "y": y})
    return str(page.inner_text(f"{PANEL} [data-map] .pg-hint"))


def test_values_by_tap_and_time(page: Any, model: qa.AudioModel) -> None:
    open_tab(page)
    compared = model.compare(GUITAR, DJEMBE)
    assert page.locator(f"{PANEL} [data-names] span").all_inner_texts() == list(compared.taps)
    assert values(page) == written(compared.overall)
    metrics: tuple[Metric, ...] = ("relative_distance", "centred_cosine")
    for metric in metrics:
        compared = model.compare(GUITAR, DJEMBE, metric=metric)
        page.select_option(f"{PANEL} [data-metric]", metric)
        page.wait_for_function(
            "(name) => document.querySelector('[data-panel=compare] [data-key]')"
            ".textContent.startsWith(name)",
            arg=metric.replace("_", " ").capitalize(),
        )
        assert values(page) == written(compared.overall)
    taps, columns = compared.by_time.shape
    said = readout(page, (columns // 2 + 0.5) / columns, 3, taps)
    value = written([compared.by_time[3, columns // 2]])[0]
    assert said.endswith(f" · {compared.taps[3]} · centred cosine {value}")
    assert "for each tap from its lowest" in page.inner_text(f"{PANEL} [data-key]")
    page.select_option(f"{PANEL} [data-scale]", "all")
    most = f"{np.abs(compared.by_time).max():.2f}"
    assert page.locator(f"{PANEL} [data-key] b").all_inner_texts() == [f"−{most}", most]
    assert "metric=centred_cosine&scale=all" in page.url


def test_every_value_can_be_read_by_keyboard(page: Any, model: qa.AudioModel) -> None:
    open_tab(page)
    compared = model.compare(GUITAR, DJEMBE)
    page.focus(f"{PANEL} [data-map]")
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    said = f"0:00.00 · {compared.taps[1]} · cosine {written([compared.by_time[1, 0]])[0]}"
    assert page.inner_text(f"{PANEL} [data-map] .pg-hint") == said
    assert page.get_attribute(f"{PANEL} [data-map]", "aria-valuetext") == said
    page.keyboard.press("End")
    last = written([compared.by_time[1, -1]])[0]
    assert page.inner_text(f"{PANEL} [data-map] .pg-hint").endswith(f"cosine {last}")


def test_aligned_moments_follow_each_other(page: Any, model: qa.AudioModel) -> None:
    open_tab(page)
    page.select_option(f"{PANEL} [data-align]", "dtw")
    page.wait_for_function(
        "() => document.querySelector('[data-panel=compare] [data-path]')"
        ".textContent.includes('least distance')"
    )
    compared = model.compare(GUITAR, DJEMBE, alignment="dtw")
    moment = 2.2
    for source, place, seconds in (("other", 1, moment), ("clip", 0, moment)):
        page.evaluate("([source, at]) => playground.player.seek(source, at)", [source, seconds])
        left = page.evaluate(
            "(k) => parseFloat(document.querySelectorAll('.pg-ghost')[k].style.left)", 1 - place
        )
        ends = (model.inspect(GUITAR).duration_seconds, model.inspect(DJEMBE).duration_seconds)
        there = left / 100 * ends[1 - place]
        path = np.asarray(compared.path_seconds)
        step = np.flatnonzero(path[:, place] <= seconds + 1e-6)
        nearest = path[path[:, place] == path[step[-1], place], 1 - place]
        assert np.abs(nearest - there).min() < 0.05
    said = readout(page, 0.5, 0, len(compared.taps))
    where = re.search(r"aligned with 0:(\d\d\.\d\d)$", said)
    assert where is not None, said
    at = np.array([float(said[2:7])])
    assert float(where[1]) == pytest.approx(float(compared.other_seconds(at)[0]), abs=0.06)


def test_the_link_holds_the_comparison(page: Any, playground: PlaygroundProcess) -> None:
    link = "tab=compare&clip=djembe.flac&other=speech.flac&metric=correlation&align=dtw"
    page.goto("about:blank")
    page.goto(f"{playground.url}#{link}")
    shows(page, "djembe.flac", "speech.flac")
    chosen = [page.input_value(f"{PANEL} [data-{name}]") for name in ("metric", "align", "scale")]
    assert chosen == ["correlation", "dtw", "tap"]
    page.evaluate("() => playground.player.play('other', 1)")
    page.click(f"{PANEL} [data-swap]")
    shows(page, "speech.flac", "djembe.flac")
    assert page.inner_text("[data-open-name]") == "speech.flac"
    assert page.evaluate("() => playground.player.sources.other.name") == "djembe.flac"
    assert "other=djembe.flac" in page.url
    assert "clip=speech.flac" in page.url


def test_a_file_and_parts_of_the_open_recording(page: Any, model: qa.AudioModel) -> None:
    open_tab(page)
    page.set_input_files(f"{PANEL} input[type=file]", SPEECH)
    shows(page, "guitar.flac", "speech.flac")
    assert "other=" not in page.url
    page.evaluate("() => playground.open({ part: [1, 3] })")
    shows(page, "guitar.flac", "speech.flac")
    page.wait_for_function(
        "() => document.querySelector('[data-panel=compare] [data-first-span]')"
        ".textContent === '0:01–0:03'"
    )
    part = qa.load_waveform(GUITAR)
    part = qa.Waveform(part.samples[16_000:48_000], part.name)
    assert values(page) == written(model.compare(part, SPEECH).overall)
    select_tab(page, "Audio")
    open_example(page, "djembe.flac")
    assert page.locator(f"{PANEL} [data-pair]").is_hidden()
    select_tab(page, "Compare")
    shows(page, "djembe.flac", "speech.flac")


def test_the_last_choice_is_compared(page: Any) -> None:
    """Also of those made while another one is computed."""
    select_tab(page, "Compare")  # which begins by itself
    page.click(f"{PANEL} [data-example='djembe.flac']")
    page.click(f"{PANEL} [data-example='guitar.flac']")
    page.click(f"{PANEL} [data-example='speech.flac']")
    shows(page, "guitar.flac", "speech.flac")
    assert page.evaluate("() => playground.state.get('other')") == "speech.flac"


def test_what_cannot_be_opened_leaves_the_comparison(page: Any) -> None:
    open_tab(page)
    nothing = {"name": f"{'x' * 120}.wav", "mimeType": "audio/wav", "buffer": b"nothing"}
    page.set_input_files(f"{PANEL} input[type=file]", nothing)
    page.wait_for_selector(f"{PANEL} [data-status][data-kind=problem]")
    assert "can't be decoded" in page.inner_text(f"{PANEL} [data-status]")
    assert page.locator(f"{PANEL} [data-pair]").is_visible()
    page.click(f"{PANEL} [data-example='guitar.flac']")
    shows(page, "guitar.flac", "guitar.flac")
    assert set(values(page)) == {"1.000"}


def test_patching_by_tap_and_span(page: Any, model: qa.AudioModel) -> None:
    open_tab(page)
    form = page.locator(f"{PANEL} [data-trace-form]")
    form.locator("input").first.fill("Only one.")
    form.locator("button").click()
    page.wait_for_selector(f"{PANEL} [data-trace-status][data-kind=problem]")
    assert "Type an answer for each recording" in page.inner_text(f"{PANEL} [data-trace-status]")
    form.locator("input").first.fill("")
    form.locator("button").click()
    page.wait_for_selector(f"{PANEL} .pg-trace-map")
    seconds = model.inspect(GUITAR).duration_seconds
    trace = model.trace(GUITAR, DJEMBE, seconds=seconds)
    header = page.locator(f"{PANEL} .pg-trace-scores thead th").all_inner_texts()
    assert header[1:3] == [f"“{answer}”" for answer in trace.answers]
    shown = page.locator(f"{PANEL} .pg-trace-scores tbody td").all_inner_texts()
    one, two = trace.log_probabilities
    expected = [*one, trace.difference_a, *two, trace.difference_b]
    found = [float(text.replace("−", "-")) for text in shown]
    np.testing.assert_allclose(found, expected, atol=0.011)
    cells = page.locator(f"{PANEL} .pg-trace-map td").all_inner_texts()
    shares = np.array([float(text.replace("−", "-")) for text in cells])
    np.testing.assert_allclose(shares.reshape(trace.share.shape), trace.share[::-1], atol=0.011)
    page.focus(f"{PANEL} .pg-trace-map td[tabindex='0']")
    page.keyboard.press("ArrowDown")
    said = page.inner_text(f"{PANEL} .pg-trace-readout")
    assert said.startswith(f"{trace.taps[-2]}, audio (the audio tokens; {trace.positions[0]}): ")
    assert f"djembe.flac was cut to the length of the other, {seconds:.2f} s" in page.inner_text(
        f"{PANEL} [data-trace-result]"
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_is_accessible_and_fits_a_phone(page: Any, scheme: str, width: int) -> None:
    size = page.viewport_size
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    try:
        open_tab(page)
        page.click(f"{PANEL} [data-trace-form] button")
        page.wait_for_selector(f"{PANEL} .pg-trace-map")
        assert axe_violations(page) == []
        wide = page.evaluate(
            """() => [...document.querySelectorAll('[data-panel=compare] *')].filter((each) =>
               each.getBoundingClientRect().right > innerWidth).length"""
        )
        assert wide == 0
    finally:
        page.set_viewport_size(size)
        page.emulate_media(color_scheme="light")
