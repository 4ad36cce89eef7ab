"""The page in a browser: its frame, the Audio tab, the player, what a link holds."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browser import (
    READY,
    ROOT,
    PlaygroundProcess,
    axe_violations,
    choose_file,
    open_example,
    open_page,
    select_tab,
)
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

GUITAR, SPEECH = ROOT / "examples" / "guitar.flac", ROOT / "examples" / "speech.flac"


def wav(samples: Any, rate: int = 16_000) -> bytes:
    return write_wav(np.asarray(samples, np.float32).reshape(1, -1), rate)


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def status(page: Any) -> str:
    """What the Audio tab says about the file that was chosen last."""
    return str(page.inner_text("[data-panel=audio] [data-status]"))


def opened(page: Any) -> str:
    return str(page.inner_text("[data-open-name]"))


def test_the_first_screen_has_an_example_open(page: Any, model: qa.AudioModel) -> None:
    assert opened(page) == "guitar.flac"
    assert page.inner_text("[data-caption]") == str(model.describe(GUITAR))
    assert "Prepared" in page.inner_text("[data-caption-note]")
    trace = model.inspect(GUITAR)
    shapes = dict.fromkeys(("mel", "encoder", "audio_tower", "projector", "lm"), "")
    for tap in trace.taps:
        shapes[tap.tap.partition(".")[0]] = f"{tap.rows} × {tap.width}"
    shown = {
        stage: page.inner_text(f"[data-pipeline] [data-stage={stage}] span") for stage in shapes
    }
    assert shown == shapes
    assert f"{trace.duration_seconds:.2f} s" in page.inner_text("[data-clip] [data-facts]")
    painted = page.evaluate(
        """() => ['wave', 'mel'].map((name) => {
          const canvas = document.querySelector(`[data-${name}]`);
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size; })"""
    )
    assert painted[0] >= 2
    assert painted[1] > 20


def test_a_stage_of_the_pipeline_opens_its_tab(page: Any) -> None:
    for stage, tab in (("encoder", "Hidden states"), ("text", "Ask"), ("file", "Audio")):
        page.click(f"[data-pipeline] [data-stage={stage}]")
        selected = page.locator("[role=tab][aria-selected=true]")
        assert selected.inner_text() == tab
        assert page.get_attribute("[data-pipeline] [aria-current]", "data-stage") == stage
    assert "tap=encoder.4" in page.url


def test_the_link_holds_what_is_shown(page: Any, playground: PlaygroundProcess) -> None:
    open_example(page, "djembe.flac")
    page.evaluate("() => playground.open({ part: [0.5, 2.25] })")
    page.wait_for_function("() => playground.clip.part")
    page.click("[data-pipeline] [data-stage=projector]")
    link = page.url.partition("#")[2]
    assert link == "clip=djembe.flac&part=0.50-2.25&tab=hidden_states&tap=projector"
    page.goto("about:blank")
    page.goto(f"{playground.url}#{link}")
    page.wait_for_selector(READY)
    page.wait_for_function("() => playground.clip.part")
    assert opened(page) == "djembe.flac"
    assert page.evaluate("() => [playground.clip.start, playground.clip.end]") == [0.5, 2.25]
    assert page.inner_text("[role=tab][aria-selected=true]") == "Hidden states"
    assert page.get_attribute("[data-pipeline] [aria-current]", "data-stage") == "projector"
    select_tab(page, "Audio")
    page.go_back()
    page.wait_for_function("() => playground.isShown('hidden_states')")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("clip=nothing.flac", "'nothing.flac' is not an example"),
        ("clip=guitar.flac&part=3-900", "select seconds of it"),
        ("clip=guitar.flac&window=7", "guitar.flac has 1 window"),
    ],
)
def test_a_wrong_link_says_so(
    page: Any, playground: PlaygroundProcess, link: str, words: str
) -> None:
    page.goto("about:blank")
    page.goto(f"{playground.url}#{link}")
    page.wait_for_selector("[data-open-status][data-kind=problem]")
    assert words in page.inner_text("[data-open-status]")


def test_seconds_are_selected_and_used(page: Any, model: qa.AudioModel) -> None:
    strip = page.locator("[data-clip] [data-strip]")
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30, steps=3)
    page.mouse.up()
    seconds = model.inspect(GUITAR).duration_seconds
    start, end = (float(page.input_value(f"[data-selection-{edge}]")) for edge in ("start", "end"))
    assert (start, end) == pytest.approx((seconds / 4, seconds / 2), abs=0.02)
    page.fill("[data-selection-end]", f"{start + 1:.2f}")
    page.press("[data-selection-end]", "Tab")
    page.click("[data-use]")
    page.wait_for_function("() => playground.clip.part")
    assert page.inner_text("[data-open-part]").startswith("only ")
    assert page.inner_text("[data-pipeline] [data-stage=audio_tower] span") == "25 × 384"
    assert not page.is_visible("[data-selection]")
    assert page.is_visible("[data-overview] .pg-open-part")
    played = page.evaluate(  # to the end of the part
        """() => new Promise((done) => {
            const { player, clip } = playground;
            player.play('clip', clip.end - 0.15);
            player.audio.addEventListener('pause', () => done(player.seconds() - clip.end)); })"""
    )
    assert 0 <= played < 0.15
    page.click("[data-whole]")
    page.wait_for_function("() => !playground.clip.part")
    assert not page.is_visible("[data-overview] .pg-open-part")
    assert page.inner_text("[data-pipeline] [data-stage=audio_tower] span") == "130 × 384"


def test_the_player(page: Any) -> None:
    now = "playground.player.audio.currentTime"
    strip = page.locator("[data-clip] [data-strip]")
    width = strip.bounding_box()["width"]
    strip.hover(position={"x": width / 3, "y": 150})
    shown = re.fullmatch(
        r"0:(\d\d\.\d\d) · frame (\d+) · \d+ Hz · −?\d\.\d\d", strip.locator("output").inner_text()
    )
    assert shown
    assert float(shown[1]) == pytest.approx(5.2 / 3, abs=0.02)
    assert int(shown[2]) == pytest.approx(520 / 3, abs=2)
    strip.click(position={"x": width / 3, "y": 20})
    page.wait_for_function(f"() => {now} > 5.2 / 3 - 0.02")
    page.wait_for_selector("[data-play][aria-label=Pause]")
    scrolled = "document.querySelector('[data-scroll]').scrollTop"
    before = page.evaluate(scrolled)
    page.keyboard.press("Space")  # does not scroll
    page.wait_for_selector("[data-play][aria-label=Play]")
    assert page.evaluate(scrolled) == before
    strip.press("Home")
    page.keyboard.press("]")
    strip.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("[")
    assert float(page.input_value("[data-selection-start]")) == pytest.approx(5.2 * 59 / 60, 0.01)
    page.click("[data-clear]")
    overview = page.locator("[data-overview]").bounding_box()
    page.mouse.move(overview["x"] + 5, overview["y"] + 20)
    page.mouse.down()
    page.mouse.move(overview["x"] + overview["width"] / 2, overview["y"] + 20, steps=3)
    page.mouse.up()
    assert page.evaluate(now) == pytest.approx(2.6, abs=0.05)
    page.evaluate("() => playground.player.select(2.0, 2.2)")
    page.click("[data-loop]")
    page.click("[data-play]")
    times = page.evaluate(
        f"""async () => {{ const seen = []; const start = performance.now();
        while (performance.now() < start + 700) {{ seen.push({now});
          await new Promise((done) => setTimeout(done, 20)); }} return seen; }}"""
    )
    assert max(times) < 2.3
    assert sum(later < earlier for earlier, later in itertools.pairwise(times)) >= 2
    page.keyboard.press("Escape")
    page.fill("[data-volume]", "30")
    assert page.evaluate("() => playground.player.audio.volume") == pytest.approx(0.3)


def test_the_waveform_is_zoomed(page: Any) -> None:
    axis = page.locator("[data-clip] [data-axis]")
    assert axis.inner_text().split() == ["0", "2", "4", "s"]
    page.evaluate("() => playground.player.select(1, 1.5)")
    page.click("[data-zoom-selection]")
    assert axis.inner_text().split() == ["1.0", "1.1", "1.2", "1.3", "1.4", "s"]
    page.click("[data-zoom-out]")
    page.click("[data-zoom-all]")
    assert page.is_disabled("[data-zoom-out]")
    page.click("[data-zoom-in]")
    assert page.evaluate("() => document.querySelector('[data-strip]').ariaValueMax") == "2.6"


def test_nothing_lies_under_the_player(page: Any) -> None:
    bar = page.locator("[data-player]").bounding_box()
    scroll = page.locator("[data-scroll]").bounding_box()
    assert scroll["y"] + scroll["height"] == pytest.approx(bar["y"], abs=1)


def record(page: Any) -> None:
    """Record half a second."""
    page.click("[data-record]")
    page.wait_for_selector("[data-record][data-recording]")
    page.wait_for_timeout(500)
    page.click("[data-record]")
    page.wait_for_function("() => playground.clip.name === 'recording.webm'")


def test_record_from_the_microphone(page: Any, folder_for_files: Path) -> None:
    record(page)
    assert opened(page) == "recording.webm"
    assert "clip=" not in page.url  # nobody else can open it
    assert not page.is_visible("[data-caption]")
    assert not [path for path in folder_for_files.rglob("*") if path.is_file()]


def test_a_long_recording_window_by_window(page: Any, model: qa.AudioModel) -> None:
    long = wav(np.concatenate([sound(30.0, 16_000)[0], sound(4.0, 16_000, seed=2)[0]]))
    choose_file(page, file("long.wav", long))
    assert page.inner_text("[data-open-part]") == "window 1 of 2, 0:00–0:30"
    assert page.inner_text("[data-player] [data-time]").endswith("/ 0:34.0")
    page.click("[data-next]")
    page.wait_for_function("() => playground.clip.window === 1")
    assert page.inner_text("[data-open-part]") == "window 2 of 2, 0:30–0:34"
    assert page.inner_text("[data-pipeline] [data-stage=mel] span") == "400 × 80"
    assert page.is_disabled("[data-next]")


ELEVEN_MINUTES = write_wav(np.zeros((1, 660 * 8000), np.float32), 8000, container="FLAC")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("words.mp3", b"not a sound, but words about one\n" * 30, "words.mp3 can't be decoded"),
        ("cut.flac", GUITAR.read_bytes()[:60_000], "cut.flac is truncated"),
        ("empty.wav", b"", "empty.wav is empty"),
        ("eleven minutes.flac", ELEVEN_MINUTES, "is longer than 10 minutes"),
    ],
)
def test_undecodable_files_show_a_message(page: Any, name: str, data: bytes, words: str) -> None:
    choose_file(page, file(name, data))
    answer_text = status(page)
    assert words in answer_text
    assert answer_text.endswith((".", "again"))
    assert "\n" not in answer_text
    assert "Traceback" not in page.inner_text("body")
    choose_file(page, SPEECH)  # and the next file works
    assert opened(page) == SPEECH.name


def test_a_too_large_file_shows_a_message(page: Any, tmp_path: Path) -> None:
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as opened:
        opened.truncate(65 * 2**20)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    choose_file(page, huge)
    assert status(page) == "huge.wav is larger than 64 MB: choose a shorter one."
    assert not [url for url in sent if "/clip" in url]  # rejected before it is sent


def test_times_and_spans(page: Any) -> None:
    times = page.evaluate(
        "() => [[59.97, 1], [59.6, 0], [0, 2], [61.5, 1]].map((time) => playground.clock(...time))"
    )
    assert times == ["1:00.0", "1:00", "0:00.00", "1:01.5"]
    spans = page.evaluate("() => [playground.span(0, 30), playground.span(2.5, 5.5)]")
    assert spans == ["0:00–0:30", "0:02.5–0:05.5"]


def test_a_long_file_name_is_kept(page: Any) -> None:
    name = "a very long name " * 12 + ".wav"
    choose_file(page, file(name, wav(sound(1.0, 16_000)[0])))
    assert page.evaluate("() => playground.clip.name") == name
    shown = page.locator("[data-open-name]").bounding_box()
    assert shown["width"] < 600


def test_silence_is_reported(page: Any) -> None:
    choose_file(page, file("silence.wav", wav(np.zeros(16_000))))
    assert "silent" in status(page)


def test_another_recording_replaces_the_last(page: Any) -> None:
    open_example(page, "speech.flac")
    assert opened(page) == "speech.flac"
    assert page.inner_text("[data-player] [data-name]") == "speech.flac"
    old = page.evaluate("() => playground.clip.audio")
    open_example(page, "djembe.flac")
    statuses = page.evaluate(
        """async (old) => [(await fetch(`recording/${old}`)).status,
           (await fetch(`recording/${playground.clip.audio}`)).status]""",
        old,
    )
    assert statuses == [404, 200]


def test_a_link_of_an_upload_says_that_it_is_private(page: Any) -> None:
    choose_file(page, SPEECH)
    assert "upload=private" in page.url
    page.reload()
    page.wait_for_selector("[data-open-status][data-kind=note]")
    assert "open the file again" in page.inner_text("[data-open-status]")
    assert opened(page) == "guitar.flac"
    assert "upload" not in page.url


def test_words_are_explained(page: Any) -> None:
    page.focus("[data-term=tap]")
    tip = page.locator("[role=tooltip]")
    assert tip.inner_text().startswith("a named point of the pipeline")
    page.keyboard.press("Escape")
    assert not tip.is_visible()


def test_the_tour_has_five_steps_and_can_be_dismissed(page: Any) -> None:
    page.evaluate("() => localStorage.removeItem('pg-tour')")
    page.reload()
    page.get_by_role("button", name="Start the tour").click()
    titles = []
    for step in range(5):
        dialog = page.get_by_role("dialog", name="Tour")
        assert f"Step {step + 1} of 5" in dialog.inner_text()
        titles.append(dialog.locator("h2").inner_text())
        assert page.locator(".pg-toured:visible").count() == 1
        dialog.get_by_role("button", name="Done" if step == 4 else "Next").click()
    assert len(set(titles)) == 5
    assert not page.get_by_role("dialog").count()
    page.click("[data-start-tour]")
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").count()
    page.reload()
    page.wait_for_selector(READY)
    assert not page.get_by_role("button", name="Start the tour").count()


def test_tabs_by_keyboard(page: Any) -> None:
    names = page.get_by_role("tab").all_inner_texts()
    page.get_by_role("tab").first.focus()
    for name in (*names[1:], names[0]):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("() => document.activeElement.innerText") == name
        assert page.inner_text("[role=tab][aria-selected=true]") == name


PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits until the page has been laid out and painted."""


@pytest.mark.parametrize("phone", [False, True])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_is_accessible(
    chromium: Any, playground: PlaygroundProcess, *, phone: bool, scheme: str
) -> None:
    with open_page(chromium, playground.url, scheme=scheme, phone=phone) as page:
        assert page.evaluate("() => playground.dark()") == (scheme == "dark")
        for name, shown in SHOWN.items():
            select_tab(page, name)
            page.wait_for_selector(shown)
            page.evaluate(PAINTED)
            assert axe_violations(page) == [], name
            width = page.evaluate("() => document.documentElement.scrollWidth")
            assert width <= page.viewport_size["width"], name


SHOWN = {
    "Audio": "[data-clip]:visible",
    "Ask": "[data-panel=ask] button:visible",
    "Hidden states": "[data-shown]:visible",
    "Compare": "[data-panel=compare] [data-example]:visible",
    "Collection": "[data-points]:visible",
}
"""By tab: what it shows once it has its results."""


def test_the_theme_can_be_changed(page: Any) -> None:
    assert not page.evaluate("() => playground.dark()")
    page.click("[data-theme]")
    page.reload()
    page.wait_for_selector("html.dark")
    assert page.inner_text("[data-theme]") == "Light theme"
    page.click("[data-theme]")
