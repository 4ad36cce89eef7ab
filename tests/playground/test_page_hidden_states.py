"""The Hidden states tab in a browser: readouts, the logit lens, edits."""

from __future__ import annotations

import re
import statistics
from typing import Any

import numpy as np
import pytest
from benchmarks.playground_latency import CHANGE_TAP_SCRIPT

import qwen_audio as qa
from browser import (
    ROOT,
    PlaygroundProcess,
    axe_violations,
    choose_file,
    open_page,
    select_tab,
)
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

GUITAR = ROOT / "examples" / "guitar.flac"
PANEL = "[data-panel=hidden_states]"


def open_tap(page: Any, tap: str) -> None:
    """Show a tap of the open recording."""
    page.evaluate("(tap) => playground.state.set({ tab: 'hidden_states', tap })", tap)
    page.wait_for_selector(f"{PANEL}[data-shown='{tap}']")


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_every_tap_shows_the_numbers_of_inspect(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Hidden states")
    slider = page.locator("[data-depth]")
    for trace in model.inspect(GUITAR).taps:
        page.wait_for_selector(f"[data-shown='{trace.tap}']")
        assert slider.get_attribute("aria-valuetext") == trace.tap
        assert page.input_value("[data-tap-select]") == trace.tap
        facts = page.locator("[data-tap-card] .pg-facts").inner_text().splitlines()
        shown = dict(zip(facts[::2], facts[1::2], strict=True))
        assert shown["shape"] == f"{trace.rows} × {trace.width}"
        assert shown["width"] == str(trace.width)
        in_text = trace.tap.startswith("lm")
        rate = "one row per position" if in_text else f"{trace.rate_hz:g} rows per second"
        assert shown["rate"] == rate
        if trace.read_bytes:
            assert shown["weights needed"] == f"{trace.read_bytes / 1e6:.1f} MB"
        slider.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('[data-facts]') !== null")
    page.locator("[data-tap-card] .pg-facts", has_text=" ms").wait_for()


def test_a_tap_is_chosen_in_many_ways_and_held_by_the_link(page: Any) -> None:
    select_tab(page, "Hidden states")
    page.wait_for_selector("[data-shown='mel']")
    page.click("[data-tap-after]")
    page.wait_for_selector("[data-shown='encoder.0']")
    page.select_option("[data-tap-select]", "lm.1")
    page.wait_for_selector("[data-shown='lm.1']")
    assert "tap=lm.1" in page.url
    page.click("[data-pipeline] [data-stage=projector]")
    page.wait_for_selector("[data-shown='projector']")
    assert page.inner_text("[data-tap]") == "projector"
    page.reload()
    page.wait_for_selector("[data-shown='projector']")


def test_changing_the_tap_is_fast(page: Any) -> None:
    samples = sound(10.0, 16_000)[0]
    data = write_wav(np.asarray(samples, np.float32).reshape(1, -1), 16_000)
    choose_file(page, {"name": "ten.wav", "mimeType": "audio/wav", "buffer": data})
    select_tab(page, "Hidden states")
    page.wait_for_selector("[data-shown='mel']")
    page.wait_for_selector(".pg-lens-cell")
    steps = int(page.get_attribute("[data-depth]", "max"))
    spent = [page.evaluate(CHANGE_TAP_SCRIPT) for _ in range(steps)]
    print(f"milliseconds from one tap to the next: {[round(one) for one in spent]}")
    # 200 ms on a machine that does nothing else; this one may run other tests beside it.
    assert statistics.median(spent) < 600


@pytest.mark.parametrize("tap", ["encoder.2", "lm.2"])
def test_the_value_under_the_pointer_is_that_of_the_tap(
    page: Any, model: qa.AudioModel, tap: str
) -> None:
    open_tap(page, tap)
    states = model.activations(GUITAR, taps=[tap])[tap]
    rows = states.data[states.indices("audio")].astype(float)
    heat = page.locator("[data-heat]")
    box = heat.bounding_box()
    heat.hover(position={"x": 0.4 * box["width"], "y": 0.3 * box["height"]})
    text = page.locator(f"{PANEL} [data-strip] .pg-hint").inner_text()
    shown = re.fullmatch(r"0:(\d\d\.\d\d) · row (\d+) · dimension (\d+) · (\S+) \((\S+) SD\)", text)
    assert shown, text
    seconds, row, dimension = float(shown[1]), int(shown[2]), int(shown[3])
    assert seconds == pytest.approx(0.4 * model.inspect(GUITAR).duration_seconds, abs=0.03)
    assert row == pytest.approx(0.4 * len(rows), abs=1)
    assert dimension == pytest.approx(0.7 * rows.shape[1], abs=2)
    value = rows[row, dimension]
    scale = rows[:, dimension].std()
    assert number(shown[4]) == pytest.approx(value, rel=6e-3, abs=2e-3 * scale)
    deviations = (value - rows[:, dimension].mean()) / scale
    assert number(shown[5]) == pytest.approx(deviations, abs=0.011)

    heat.click(position={"x": 0.4 * box["width"], "y": 0.3 * box["height"]})
    page.wait_for_function(f"() => playground.player.audio.currentTime >= {seconds - 0.02}")
    page.evaluate("() => playground.player.audio.pause()")
    page.focus(f"{PANEL} [data-strip]")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    said = page.get_attribute(f"{PANEL} [data-strip]", "aria-valuetext")
    middle = rows.shape[1] // 2 + 1
    assert said.startswith(f"0:00.00 · row 0 · dimension {middle} · ")
    assert number(said.split(" · ")[3].split()[0]) == pytest.approx(
        rows[0, middle], rel=6e-3, abs=2e-3 * rows[:, middle].std()
    )


def test_the_mel_tap_is_read_in_hertz_and_decibels(page: Any, model: qa.AudioModel) -> None:
    open_tap(page, "mel")
    mel = model.activations(GUITAR, taps=["mel"])["mel"].data
    heat = page.locator("[data-heat]")
    box = heat.bounding_box()
    heat.hover(position={"x": 0.25 * box["width"], "y": 0.75 * box["height"]})
    text = page.locator(f"{PANEL} [data-strip] .pg-hint").inner_text()
    shown = re.fullmatch(r"0:\d\d\.\d\d · row (\d+) · (\d+) Hz · (\S+) dB", text)
    assert shown, text
    band = int(np.abs(model.mel_hz - int(shown[2])).argmin())
    assert band == pytest.approx(0.25 * len(model.mel_hz), abs=1)
    assert number(shown[3]) == pytest.approx(40 * mel[int(shown[1]), band] - 40, abs=0.1)
    assert page.inner_text(f"{PANEL} [data-heat-y]").splitlines()[0] == "Hz"


def test_positions_of_the_prompt_are_read_beside_the_audio(page: Any, model: qa.AudioModel) -> None:
    open_tap(page, "encoder.1")
    assert page.locator("[data-prompt]").is_hidden()
    open_tap(page, "lm.norm")
    states = model.activations(GUITAR, taps=["lm.norm"])["lm.norm"]
    page.focus("[data-prompt]")
    for _ in states.indices("prompt"):
        page.keyboard.press("ArrowRight")
    text = page.inner_text("[data-prompt-hint]")
    shown = re.fullmatch(r"“:” · row (\d+) · dimension (\d+) · (\S+) \(\S+ SD\)", text)
    assert shown, text
    assert int(shown[1]) == len(states) - 1
    assert number(shown[3]) == pytest.approx(states.data[-1, int(shown[2])], rel=6e-3)


def test_the_cosine_of_two_moments(page: Any, model: qa.AudioModel) -> None:
    open_tap(page, "audio_tower")
    view = model.view(GUITAR, tap="audio_tower", columns=240)
    square = page.locator("[data-similarity]")
    box = square.bounding_box()
    square.hover(position={"x": 0.3 * box["width"], "y": 0.2 * box["height"]})
    text = page.locator("[data-square] .pg-hint").inner_text()
    shown = re.fullmatch(r"0:(\d\d\.\d\d) with 0:(\d\d\.\d\d) · cosine (\S+)", text)
    assert shown, text
    cells = len(view.similarity)
    seconds = model.inspect(GUITAR).duration_seconds
    one, other = (int(cells * float(each) / seconds) for each in (shown[1], shown[2]))
    near = view.similarity[max(0, one - 1) : one + 2, max(0, other - 1) : other + 2]
    assert near.min() - 0.006 <= number(shown[3]) <= near.max() + 0.006
    assert one == pytest.approx(0.3 * cells, abs=1)
    assert other == pytest.approx(0.8 * cells, abs=1)


def test_another_part_is_another_view(page: Any) -> None:
    open_tap(page, "projector")
    page.wait_for_selector(".pg-lens-cell")
    page.evaluate("() => playground.open({ part: [1, 3] })")
    page.locator(".pg-facts", has_text="50 × 256").wait_for()
    page.wait_for_function("""() => document.querySelector('.pg-lens-cell')?.column.start === 1""")


def lens_rows(page: Any) -> dict[str, list[str]]:
    """The words of each layer in the first grid."""
    return {
        row.locator("[role=rowheader]").inner_text(): row.locator(
            "[role=gridcell]"
        ).all_inner_texts()
        for row in page.locator(".pg-lens-grid").first.locator("[role=row]").all()[1:]
    }


def visible(token: str) -> str:
    return re.sub(r"^<\|(.*)\|>$", r"\1", token.strip()) or "␣"


def test_the_lens_is_placed_by_time(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Hidden states")
    page.wait_for_selector(".pg-lens-cell")
    lens = model.lens(GUITAR)
    prompt = lens.indices("prompt")
    rows = lens_rows(page)
    assert list(rows) == [str(tap) for tap in reversed(lens.taps)]
    steps = lens.steps(len(rows["lm.0"]) - len(prompt))
    for level, tap in enumerate(lens.taps):
        audio = [visible(step.words[level]) for step in steps]
        text = [visible(lens.words(level, int(position))[0][0]) for position in prompt]
        assert rows[str(tap)] == audio + text
    wave = page.locator(".pg-lens-wave").bounding_box()
    cells = page.locator(".pg-lens-grid [role=gridcell]")
    first, last = cells.first.bounding_box(), cells.nth(len(steps) - 1).bounding_box()
    assert first["x"] == pytest.approx(wave["x"], abs=1)
    assert last["x"] + last["width"] == pytest.approx(wave["x"] + wave["width"], abs=1)

    cell = cells.nth(2)
    cell.hover()
    top = steps[2].likeliest[-1]
    detail = page.locator("[data-lens-detail]")
    assert detail.locator("h3").inner_text().startswith(f"lm.4, 0:0{steps[2].start_seconds:.2f}–")
    shown = [item.strip("␣") for item in detail.locator("li b").all_inner_texts()]
    assert shown == [visible(text) for text, _ in top]
    assert f"Entropy {steps[2].entropy_bits[-1]:.2f} bits" in detail.inner_text()
    cell.click()
    page.wait_for_function(
        f"() => playground.player.audio.currentTime >= {steps[2].start_seconds - 0.02}"
    )


def test_the_lens_by_keyboard(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Hidden states")
    page.wait_for_selector(".pg-lens-cell")
    grid = page.locator(".pg-lens-grid").first
    assert grid.locator("[role=gridcell][tabindex='0']").count() == 1  # one tab stop
    grid.locator("[role=gridcell][tabindex='0']").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    detail = page.locator("[data-lens-detail]")
    assert detail.locator("h3").inner_text() == "lm.3, the last position, before the answer"
    lens = model.lens(GUITAR, span="last")
    shares = [f"{100 * probability:.0f} %" for _, probability in lens.words(3, 0)[:1]]
    assert detail.locator("li span").all_inner_texts()[:1] == shares
    name = page.evaluate("() => document.activeElement.getAttribute('aria-label')")
    assert re.fullmatch(r"A, \d+ %, entropy \S+ bits, lm.3, the last position, .*", name)


def test_words_are_followed_and_entropy_is_a_colour(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Hidden states")
    page.wait_for_selector(".pg-lens-cell")
    assert page.inner_text("[data-lens-key]").split("\n")[0] == "Probability of the token:"
    before = page.locator(".pg-lens-cell").first.get_attribute("style")
    page.click("[data-colour=entropy]")
    assert "bits" in page.inner_text("[data-lens-key]")
    assert page.locator(".pg-lens-cell").first.get_attribute("style") != before

    page.fill("#pg-follow-words", "guitar, piano")
    page.press("#pg-follow-words", "Enter")
    page.wait_for_selector("[data-lens='guitar, piano']")
    assert page.locator("[data-followed] h3").all_inner_texts() == ["“guitar”", "“piano”"]
    lens = model.lens(GUITAR, tokens=["guitar", "piano"])
    row = page.locator("[data-followed] .pg-lens-grid").first.locator("[role=row]").nth(1)
    shown = row.locator("[role=gridcell]").all_inner_texts()
    steps = lens.steps(len(shown) - len(lens.indices("prompt")))
    for text, step in zip(shown, steps, strict=False):
        share = 100 * step.followed_probabilities[-1][0]
        assert text == ("< 0.1" if share < 0.1 else f"{share:.{0 if share >= 10 else 1}f}")

    page.fill("#pg-follow-words", "a, b, c, d, e, f, g")
    page.press("#pg-follow-words", "Enter")
    page.locator("[data-lens-status]", has_text="7 words to follow: give at most 6").wait_for()


def test_what_if_the_rows_were_another(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Hidden states")
    page.select_option("[data-edit-name]", "mean_over_time")
    page.select_option("[data-edit-tap]", "encoder.2")
    assert page.locator("[data-edit-span-label]").is_hidden()
    page.click("[data-edit-run]")
    page.wait_for_selector("[data-edit-result]:not([hidden])")
    with model.edit("encoder.2", qa.edits.mean_over_time()):
        edited = model.describe(GUITAR)
    assert page.inner_text("[data-unedited]") == model.describe(GUITAR)
    assert page.inner_text("[data-edited]") == edited
    assert page.inner_text("[data-edit-said]") == edited.edits
    verdict = page.inner_text("[data-edit-verdict]")
    assert re.match(
        r"The answers differ. The log-probability of the unedited answer drops by \d+\.\d\d nats",
        verdict,
    )
    token = page.locator("[data-edit-tokens] [role=gridcell]", has_text="acoustic")
    token.hover()
    readout = page.inner_text("[data-edit-readout]")
    assert re.fullmatch(
        r"“acoustic”: \d+ % without the edit, .{1,6} % with it \(−\d\.\d\d nats\)", readout
    )


def test_edits_that_change_nothing_and_that_cannot_be_used(page: Any) -> None:
    select_tab(page, "Hidden states")
    page.select_option("[data-edit-name]", "scale_heads")
    assert page.locator("[data-edit-tap] option").first.inner_text() == "lm.1.heads"
    page.fill("[data-edit-heads]", "0, 9")
    page.click("[data-edit-run]")
    page.locator("[data-edit-status]", has_text="heads 0 to 3").wait_for()
    page.select_option("[data-edit-name]", "scale")
    page.fill("[data-edit-number]", "1")
    page.click("[data-edit-run]")
    page.locator("[data-edit-verdict]", has_text="Both answers are the same.").wait_for()
    assert "stays" in page.inner_text("[data-edit-verdict]")
    page.select_option("[data-edit-name]", "keep_every")
    options = page.locator("[data-edit-tap] option").all_inner_texts()
    assert options == ["audio_tower", "projector"]


@pytest.mark.parametrize(("scheme", "phone"), [("light", False), ("dark", True)])
def test_all_of_it_is_accessible_and_within_reach(
    chromium: Any, playground: PlaygroundProcess, *, phone: bool, scheme: str
) -> None:
    with open_page(chromium, playground.url, scheme=scheme, phone=phone) as page:
        open_tap(page, "lm.2")
        page.wait_for_selector(".pg-lens-cell")
        page.fill("#pg-follow-words", "guitar")
        page.press("#pg-follow-words", "Enter")
        page.click("[data-edit-run]")
        page.wait_for_selector("[data-edit-result]:not([hidden])")
        page.wait_for_selector("[data-lens='guitar']")
        page.mouse.move(0, 0)  # no word is explained
        assert axe_violations(page) == []
        last = page.locator(".pg-lens-grid").first.locator("[role=row]").nth(1)
        last.locator("[role=gridcell]").last.scroll_into_view_if_needed()
        cell = last.locator("[role=gridcell]").last.bounding_box()
        assert cell["x"] + cell["width"] <= page.viewport_size["width"]
        name = last.locator("[role=rowheader]").bounding_box()
        assert 0 <= name["x"] < cell["x"]  # the layer's name stays in sight
        width = page.evaluate("() => document.querySelector('.pg-scroll').scrollWidth")
        assert width <= page.viewport_size["width"]
