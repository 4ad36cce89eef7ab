"""The playground as its visitors meet it: in a browser, with real recordings."""

from __future__ import annotations

import re
import shlex
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from browsing import ROOT, Served, ask, browser, choose, served, tab, visiting
from commands import run
from recordings import sound, write_wav

GUITAR, SPEECH = ROOT / "examples" / "guitar.flac", ROOT / "examples" / "speech.flac"


@pytest.fixture(scope="module")
def model() -> qa.QwenAudio:
    return qa.load()


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory, model: qa.QwenAudio) -> qa.Collection:
    """The examples as a collection."""
    path = tmp_path_factory.mktemp("collections") / "music.lance"
    collection = qa.Collection.create(path, model, describe=True)
    collection.index([ROOT / "examples"])
    return collection


@pytest.fixture(scope="module")
def playground(music: qa.Collection) -> Iterator[Served]:
    with served("--collection", music.path) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Any, playground: Served) -> Iterator[Any]:
    with visiting(chromium, playground.url) as opened:
        yield opened


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def wav(samples: Any, rate: int = 16_000) -> bytes:
    return write_wav(np.asarray(samples, np.float32).reshape(1, -1), rate)


def status(page: Any) -> str:
    return str(page.locator("[data-drop] + [data-status]").inner_text())


def test_a_recording_is_heard_described_and_asked_again(page: Any, model: qa.QwenAudio) -> None:
    choose(page, GUITAR)
    story = model.inspect(GUITAR)
    facts = page.locator("[data-clip] [data-facts]").inner_text()
    assert f"{story.seconds:.2f} s" in facts
    assert f"{story.windows[0].audio_tokens}, one per 40 ms" in facts

    said = model.describe(GUITAR)
    assert ask(page) == str(said)
    given = page.locator(".pg-answer .pg-facts").first.inner_text()
    assert f"{story.seconds:.2f} s, heard now" in given
    assert f"audio tokens\n{said.answers[0].audio_tokens}\n" in given
    assert f"prompt tokens\n{said.answers[0].prompt_tokens}\n" in given

    question = "Is anyone speaking?"
    assert ask(page, question) == model.describe(GUITAR, prompt=question)
    assert "heard before" in page.locator(".pg-answer .pg-facts").first.inner_text()
    assert page.locator(".pg-answer h3").all_inner_texts() == [question, "Describe the music:"]

    page.get_by_label("Chat (Instruct)").check()
    assert ask(page, question) == model.listen(GUITAR).ask(question, chat=True)


def test_every_stop_of_the_line_shows_what_inspect_says(page: Any, model: qa.QwenAudio) -> None:
    page.click("[data-example='guitar.flac']")
    page.wait_for_selector("[data-clip]:not([hidden])")
    tab(page, "See")
    page.wait_for_selector("[data-shown='mel']")
    slider = page.locator("[data-depth]")
    for story in model.inspect(GUITAR).taps:
        page.wait_for_selector(f"[data-shown='{story.tap}']")
        assert slider.get_attribute("aria-valuetext") == story.tap
        facts = page.locator(".pg-line .pg-facts").inner_text().splitlines()
        shown = dict(zip(facts[::2], facts[1::2], strict=True))
        assert shown["shape"] == f"{story.rows} × {story.width}"
        assert shown["width"] == str(story.width)
        rate = "one per position" if story.tap.startswith("lm") else f"{story.rate_hz:g} a second"
        assert shown["rate"] == rate
        if story.read_bytes:
            assert shown["weights read so far"] == f"{story.read_bytes / 1e6:.1f} MB"
        slider.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.pg-line').innerText.includes(' ms')")

    lens = model.lens(GUITAR)
    page.wait_for_selector("[data-words] tr")
    rows = page.locator("[data-words] tr").all_inner_texts()[1:]
    steps = lens.steps(12)
    for level, row in enumerate(reversed(rows)):
        tap, *words = row.split("\t")
        assert tap == str(lens.taps[level])
        assert words == [step.words[level].strip() or "␣" for step in steps]


def test_a_tap_changes_while_the_hand_moves(page: Any) -> None:
    choose(page, file("ten seconds.wav", wav(sound(10.0, 16_000)[0])))
    tab(page, "See")
    page.wait_for_selector("[data-shown='mel']")
    page.wait_for_selector("[data-words] tr")
    spent = [
        page.evaluate(
            """() => new Promise((done) => {
                const slider = document.querySelector('[data-depth]');
                const start = performance.now();
                slider.stepUp();
                new MutationObserver((_, seen) => {
                    seen.disconnect();
                    requestAnimationFrame(() => done(performance.now() - start));
                }).observe(slider.closest('[data-shown]'), { attributeFilter: ['data-shown'] });
                slider.dispatchEvent(new Event('input'));
            })"""
        )
        for _ in range(int(page.get_attribute("[data-depth]", "max")))
    ]
    print(f"milliseconds from one tap to the next: {[round(one) for one in spent]}")
    # 300 ms on a machine that does nothing else; this one may run other tests beside it.
    assert statistics.median(spent) < 600


def test_frames_can_be_heard_and_moved_through_by_keys(page: Any, model: qa.QwenAudio) -> None:
    choose(page, GUITAR)
    strip = page.locator("[data-clip] [data-strip]")
    box = strip.bounding_box()
    strip.hover(position={"x": box["width"] / 3, "y": 150})
    hint = page.locator("[data-clip] .pg-hint").inner_text()
    third = model.inspect(GUITAR).seconds / 3
    shown = re.fullmatch(r"0:(\d\d\.\d\d) · frame (\d+) · \d+ Hz", hint)
    assert shown
    assert float(shown[1]) == pytest.approx(third, abs=0.02)
    assert int(shown[2]) == pytest.approx(100 * third, abs=2)  # of 10 ms
    strip.click(position={"x": box["width"] / 3, "y": 20})
    page.wait_for_function(f"() => playground.player.audio.currentTime >= {third - 0.02}")
    assert page.locator("[data-bar] button").get_attribute("aria-label") == "Pause"
    page.click("[data-bar] button")
    strip.focus()
    strip.press("Home")
    strip.press("ArrowRight")
    page.wait_for_function("() => Math.abs(playground.player.audio.currentTime - 0.5) < 0.01")
    assert strip.get_attribute("aria-valuetext") == "0:00.50"


def test_the_keyboard_reaches_everything_that_can_be_done(page: Any) -> None:
    page.locator("body").press("Tab")
    reached = []
    for _ in range(12):
        reached.append(
            page.evaluate(
                "() => document.activeElement.innerText || document.activeElement.ariaLabel"
            )
        )
        page.keyboard.press("Tab")
    for name in ("Hear", "Choose a file", "Record", "Guitar", "Djembe", "Speech"):
        assert name in reached, reached
    tab(page, "Ask")
    page.click("text=Is anyone speaking?")
    assert page.input_value("#question textarea") == "Is anyone speaking?"


def test_what_comes_from_the_microphone_is_heard(page: Any) -> None:
    page.click("[data-record]")
    page.wait_for_timeout(1500)
    page.click("[data-record]")
    page.wait_for_selector("[data-clip]:not([hidden])")
    assert page.inner_text("[data-clip] [data-name]") == "recording.webm"


def test_a_long_recording_is_looked_at_window_by_window(page: Any, model: qa.QwenAudio) -> None:
    long = wav(np.concatenate([sound(30.0, 16_000)[0], sound(4.0, 16_000, seed=2)[0]]))
    choose(page, file("long.wav", long))
    assert page.inner_text("[data-where]") == "Window 1 of 2, 0:00–0:30"
    page.click("[data-after]")
    page.wait_for_function(
        "() => document.querySelector('[data-where]').innerText.startsWith('Window 2')"
    )
    assert ask(page).split("\n\n") == str(model.describe(long)).replace("  ", " ").split("\n")
    page.get_by_label("This window").check()
    part = qa.load_waveform(long).cut(qa.Window(30.0, 34.0))
    assert ask(page) == model.describe(part, sampling_rate=16_000)
    tab(page, "See")
    page.wait_for_selector("[data-shown='mel']")
    assert "400 × 80" in page.inner_text(".pg-line .pg-facts")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("words.mp3", b"not a sound, but words about one\n" * 30, "words.mp3 is not audio"),
        ("cut.flac", GUITAR.read_bytes()[:60_000], "cut.flac is truncated"),
        ("empty.wav", b"", "empty.wav is empty"),
        ("eleven minutes.wav", wav(np.zeros(660 * 8000), 8000), "is longer than 10 minutes"),
    ],
)
def test_what_cannot_be_heard_gets_a_sentence(
    page: Any, name: str, data: bytes, words: str
) -> None:
    choose(page, file(name, data))
    said = status(page)
    assert words in said
    assert said.endswith((".", "again"))
    assert "\n" not in said
    assert "Traceback" not in page.inner_text("body")
    choose(page, SPEECH)  # and the next one is heard
    assert page.inner_text("[data-clip] [data-name]") == SPEECH.name


def test_a_file_that_is_too_large_gets_a_sentence(page: Any, tmp_path: Path) -> None:
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as opened:
        opened.truncate(65 * 2**20)
    choose(page, huge)
    assert status(page) == "huge.wav is larger than 64 MB: choose a shorter one."


def test_silence_is_said_to_be_silent(page: Any) -> None:
    choose(page, file("silence.wav", wav(np.zeros(16_000))))
    page.wait_for_selector("[data-clip]:not([hidden])")
    assert "silent" in status(page)


def test_without_a_recording_the_page_says_what_to_do(page: Any) -> None:
    tab(page, "Ask")
    page.click("#ask")
    page.wait_for_selector("#answers [role=alert]")
    assert "choose one under Hear first" in page.inner_text("#answers")


def test_a_second_click_while_busy_gets_a_sentence_and_one_answer(page: Any) -> None:
    choose(page, GUITAR)
    tab(page, "Ask")
    page.evaluate("() => { const ask = document.querySelector('#ask'); ask.click(); ask.click(); }")
    assert "One question at a time" in page.inner_text("#ask-status")
    page.wait_for_selector(".pg-answer dl")
    page.wait_for_function("() => !document.querySelector('#ask-status').innerText")
    assert page.locator(".pg-answer").count() == 1


def test_what_is_near_in_a_collection_is_found_and_heard(page: Any, music: qa.Collection) -> None:
    choose(page, SPEECH)
    tab(page, "Find")
    page.click("[data-by-clip]")
    page.wait_for_selector("[data-hits] li")
    names = page.locator("[data-hits] b").all_inner_texts()
    hits = music.search(SPEECH)
    assert names == [Path(hit.source).name for hit in hits]
    scores = page.locator("[data-hits] .pg-score").all_inner_texts()
    assert scores == [f"{hit.score:.3f}" for hit in hits]
    assert str(ROOT) not in page.content()  # names of files, not where they lie
    page.get_by_label(f"Play {names[1]}").click()
    page.wait_for_function("() => playground.player.source === 'found'")
    assert page.inner_text("[data-bar] [data-name]") == names[1]
    page.fill("[data-text]", "drums")
    page.press("[data-text]", "Enter")
    page.wait_for_function("() => document.querySelectorAll('[data-hits] li').length === 1")
    assert page.inner_text("[data-hits] b") == Path(music.search(text="drums")[0].source).name


def test_two_recordings_are_compared_by_depth_and_time(page: Any, model: qa.QwenAudio) -> None:
    choose(page, GUITAR)
    tab(page, "Compare")
    page.locator("[data-example='speech.flac']").last.click()
    page.wait_for_selector("[data-shown-pair]:not([hidden])")
    one, two = model.activations([GUITAR, SPEECH], taps=model.taps)
    compared = qa.Comparison.of((one[tap], two[tap]) for tap in one)
    taps = page.locator("[data-names] span").all_inner_texts()
    assert taps == list(reversed(compared.taps))
    shown = page.locator("[data-values] span").all_inner_texts()
    assert shown == [f"{cosine:.3f}" for cosine in reversed(compared.cosines.tolist())]


def open_away(page: Any, name: str) -> Any:
    """The part of a tab from which it is taken away, opened."""
    part = page.locator("details:visible").filter(has_text=name)
    part.locator("summary").click()
    part.locator("[data-lines=python]").wait_for()
    return part


def test_every_view_is_taken_away_as_files_and_lines_that_work(
    page: Any, model: qa.QwenAudio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(GUITAR, tmp_path)
    choose(page, GUITAR)

    def take(part: Any, suffix: str) -> Path:
        with page.expect_download() as awaited:
            part.locator(f"[data-format={suffix}]").click()
        saved = tmp_path / awaited.value.suggested_filename
        awaited.value.save_as(saved)
        return saved

    def run_lines(part: Any) -> None:
        exec(compile(part.locator("[data-lines=python]").inner_text(), "lines", "exec"), {})

    part = open_away(page, "Take it away")
    assert take(part, "png").read_bytes().startswith(b"\x89PNG")
    run_lines(part)
    assert (tmp_path / "heard.png").is_file()

    said = ask(page, "Are there drums?")
    part = open_away(page, "Take it away")
    assert said in take(part, "csv").read_text(encoding="utf-8")
    program, *arguments = shlex.split(part.locator("[data-lines=command]").inner_text())
    assert (program, run(*arguments).stdout.strip()) == ("qwen-audio", said)

    tab(page, "See")
    page.wait_for_selector("[data-shown='mel']")
    page.press("[data-depth]", "ArrowRight")
    page.wait_for_selector("[data-shown='encoder.0']")
    part = open_away(page, "Take this tap away")
    with np.load(take(part, "npz")) as numbers:
        rows = model.activations(GUITAR, taps=["encoder.0"])["encoder.0"].data
        assert np.allclose(numbers["rows"], rows, atol=1e-5)
    run_lines(part)
    assert (tmp_path / "view.npz").is_file()
    assert (tmp_path / "view.png").is_file()
    program, *arguments = shlex.split(part.locator("[data-lines=command]").inner_text())
    assert run(*arguments).returncode == 0
    assert np.load(tmp_path / "rows.npz")["vectors_0"].shape[-1] == model.geometry.encoder_width


def test_two_visitors_keep_apart(chromium: Any, playground: Served, model: qa.QwenAudio) -> None:
    with (
        visiting(chromium, playground.url) as first,
        visiting(chromium, playground.url) as second,
    ):
        choose(first, GUITAR)
        choose(second, SPEECH)
        assert ask(first) == model.describe(GUITAR)
        assert ask(second) == model.describe(SPEECH)
        tab(first, "Hear")
        assert first.inner_text("[data-clip] [data-name]") == GUITAR.name
        second.reload()
        second.wait_for_selector("[data-example]")
        tab(second, "Ask")
        assert second.locator(".pg-answer").count() == 0


def test_who_leaves_leaves_nothing(chromium: Any, playground: Served) -> None:
    minutes = wav(sound(9 * 60.0, 16_000)[0])
    with visiting(chromium, playground.url) as page:
        choose(page, file("nine minutes.wav", minutes))
        held = playground.resident_bytes
    end = time.monotonic() + 30
    while playground.resident_bytes > held - 0.8 * 4 * 540 * 16_000:
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction(chromium: Any, playground: Served, scheme: str) -> None:
    view = {"width": 390, "height": 844}
    with visiting(chromium, playground.url, viewport=view, color_scheme=scheme) as page:
        choose(page, GUITAR)
        for name in page.get_by_role("tab").all_inner_texts():
            tab(page, name)
            page.wait_for_timeout(300)
            wide = page.evaluate("() => document.documentElement.scrollWidth")
            assert wide <= 390, name
        dark = page.evaluate("() => document.body.classList.contains('dark')")
        assert dark == (scheme == "dark")
