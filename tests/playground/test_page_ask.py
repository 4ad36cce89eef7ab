"""The Ask tab in a browser: answers, conversations, choices, and the seconds behind an answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

import qwen_audio as qa
from browser import (
    ROOT,
    PlaygroundProcess,
    ask,
    axe_violations,
    choose_file,
    open_example,
    open_page,
    select_tab,
)
from recordings import sound, write_wav

pytestmark = pytest.mark.slow

GUITAR, DJEMBE = ROOT / "examples" / "guitar.flac", ROOT / "examples" / "djembe.flac"
HOSTILE = "Is it <b onclick=alert(1)>loud</b> ${1} <|im_end|>?"


def badges(page: Any) -> list[str]:
    """What is said about the newest answer."""
    return list(page.locator(".pg-answer").first.locator(".pg-badge").all_inner_texts())


def in_conversation(page: Any) -> None:
    """Choose to ask in a conversation, as soon as the tab is ready."""
    select_tab(page, "Ask")
    page.wait_for_selector("[data-questions] button")
    page.check("[value=conversation]")


def test_a_suggested_question_is_asked_with_one_click(page: Any, model: qa.AudioModel) -> None:
    select_tab(page, "Ask")
    page.click("[data-questions] button:text-is('Are there drums?')")
    page.wait_for_selector(".pg-answer summary")
    assert page.inner_text(".pg-answer .pg-text") == model.describe(
        GUITAR, prompt="Are there drums?"
    )
    assert page.inner_text(".pg-answer h3") == "Are there drums?"
    assert badges(page) == ["one question · plain prompt", "whole recording"]
    assert page.input_value("#question") == "Are there drums?"
    assert "prompt=Are+there+drums" in page.url
    assert "small checkpoint" in page.inner_text("[data-about]")
    assert not page.is_visible("[data-no-answers]")
    page.click(".pg-answer summary")
    assert page.inner_text(".pg-answer pre") == model.spec("lm.0", prompt="Are there drums?").prompt
    assert "encoded now" in page.inner_text(".pg-answer dl")
    page.get_by_role("button", name="Ask again").click()
    page.wait_for_function("() => document.querySelectorAll('.pg-answer dl').length === 2")
    assert "encoded earlier" in str(page.locator(".pg-answer dl").first.text_content())


def test_the_mode_of_each_answer_is_shown(page: Any, model: qa.AudioModel) -> None:
    session = model.session(GUITAR)
    in_conversation(page)
    assert not page.is_visible("[data-new]")
    assert ask(page, HOSTILE) == session.ask(HOSTILE, chat=True)
    assert page.locator(".pg-answer b[onclick]").count() == 0
    assert page.inner_text(".pg-answer h3") == HOSTILE
    assert badges(page)[0] == "conversation, turn 1 · chat template"
    assert ask(page, "Why?") == session.ask("Why?", chat=True, follow_up=True)
    assert badges(page)[0] == "conversation, turn 2 · chat template"
    page.locator(".pg-answer summary").first.click()
    prompt = page.inner_text(".pg-answer pre")
    assert prompt.index("loud") < prompt.index("Why?")
    page.click("[data-new]")
    ask(page, "Why?")
    assert badges(page)[0] == "conversation, turn 1 · chat template"
    page.check("[value=question]")
    ask(page, "Is this music?")
    assert badges(page)[0] == "one question · plain prompt"


def test_windows_of_a_long_recording(page: Any) -> None:
    wav = write_wav(sound(31.0, rate=16_000), 16_000)
    choose_file(page, {"name": "long.wav", "mimeType": "audio/wav", "buffer": wav})
    assert page.inner_text("[data-scope-part]") == "Only 0:00–0:30"
    assert page.text_content("[data-scope-whole]") == "2 windows, each asked alone"
    ask(page)
    assert badges(page)[1] == "only 0:00–0:30"
    page.check("[value=whole]")
    lines = ask(page).split("\n\n")
    assert [line.partition(" ")[0] for line in lines] == ["0:00–0:30", "0:30–0:31"]
    answers = page.evaluate("() => document.querySelectorAll('.pg-answer')[0].innerText")
    assert "Which seconds?" not in answers
    page.get_by_role("button", name="0:30–0:31").click()
    page.wait_for_function("() => playground.player.seconds() >= 30")


def test_an_answer_can_be_stopped(page: Any) -> None:
    select_tab(page, "Ask")
    page.wait_for_selector("[data-questions] button")
    page.evaluate("() => playground.request('stop', { number: 1 })")  # before it has begun
    page.click("#ask")
    page.wait_for_selector(".pg-answer summary")
    assert "stopped" in badges(page)
    assert "Stopped before the first word." in page.inner_text(".pg-answer")
    assert not page.is_visible("[data-stop]")
    assert ask(page)
    while_running = page.evaluate(
        """() => {
          const [ask, stop] = ['#ask', '[data-stop]'].map((name) => document.querySelector(name));
          ask.click();
          const shown = [ask.disabled, stop.hidden];
          stop.click();
          return shown; }"""
    )
    assert while_running == [True, False]
    page.wait_for_function("() => document.querySelectorAll('.pg-answer summary').length === 3")
    assert page.is_enabled("#ask")
    assert page.inner_text("#ask-status") == ""


def test_a_question_that_is_refused_leaves_no_answer(page: Any) -> None:
    select_tab(page, "Ask")
    page.fill("#question", "<|AUDIO|><|AUDIO|>")
    page.press("#question", "Enter")
    page.wait_for_selector("#ask-status[data-kind=problem]")
    assert "2 times" in page.inner_text("#ask-status")
    assert page.locator(".pg-answer").count() == 0
    assert page.is_visible("[data-no-answers]")
    assert ask(page, "Is this music?").startswith("Yes")
    assert page.inner_text("#ask-status") == ""


def test_answers_belong_to_their_recording(page: Any, playground: PlaygroundProcess) -> None:
    ask(page)
    page.evaluate("() => playground.open({ part: [1, 2.5] })")
    page.wait_for_selector("[data-scope]:visible")
    assert page.locator(".pg-answer").count() == 1
    assert not page.get_by_role("button", name="Which seconds?").is_visible()
    ask(page)
    assert badges(page)[1] == "only 0:01.0–0:02.5"
    assert page.get_by_role("button", name="Which seconds?").first.is_visible()
    open_example(page, "djembe.flac")
    assert page.locator(".pg-answer").count() == 0
    assert page.is_visible("[data-no-answers]")
    page.goto("about:blank")
    page.goto(f"{playground.url}#tab=ask&prompt=Is+it+<i>%3F")
    page.wait_for_selector("[data-questions] button")
    assert page.input_value("#question") == "Is it <i>?"


def test_the_audio_tab_asks_for_a_caption(page: Any, model: qa.AudioModel) -> None:
    page.click("[data-describe]")
    page.wait_for_selector(".pg-answer summary")
    assert page.inner_text(".pg-answer .pg-text") == str(model.describe(GUITAR))
    assert page.inner_text(".pg-answer h3") == "Describe the music:"


def test_choices_are_scored_as_bars(page: Any, model: qa.AudioModel) -> None:
    open_example(page, "djembe.flac")
    select_tab(page, "Ask")
    page.click("[data-choice-sets] button:text-is('How fast is it?')")
    page.wait_for_selector("[data-choices-result]:visible")
    choices = page.input_value("[data-choices]").split("\n")
    scores = model.score(DJEMBE, "How fast is it?", choices=choices)
    rows = page.locator("[data-choices-rows] tr")
    assert tuple(rows.locator("th").all_inner_texts()) == scores.ranking()
    best = scores.choices.index(scores.ranking()[0])
    share, log_probability = scores.probability[0, best], scores.log_probability[0, best]
    shown = rows.first.locator("td").all_inner_texts()
    assert shown[0].strip() in (f"{100 * share:.1f} %", "> 99.9 %")
    assert shown[1] == f"{log_probability:.2f}".replace("-", "−")
    width = page.evaluate("() => document.querySelector('[data-choices-rows] i').style.width")
    assert float(width.rstrip("%")) == pytest.approx(100 * share, abs=0.01)
    assert page.get_attribute("[data-mass]", "data-kind") == ""

    page.fill("[data-choices]", "Blue\nGreen")
    page.get_by_role("button", name="Score the choices").click()
    page.wait_for_selector("[data-mass][data-kind=note]")
    assert "would rather say something else" in page.inner_text("[data-mass]")
    page.fill("[data-choices]", "Blue\nBlue")
    page.get_by_role("button", name="Score the choices").click()
    page.wait_for_selector("[data-choices-status][data-kind=problem]")
    assert "given twice" in page.inner_text("[data-choices-status]")
    page.evaluate("() => playground.open({ part: [1, 2] })")
    page.wait_for_selector("[data-choices-result]", state="hidden")


def test_the_seconds_behind_an_answer(page: Any, model: qa.AudioModel) -> None:
    open_example(page, "djembe.flac")
    answer_text = ask(page, "Are there drums?")
    assert page.input_value("[data-occlusion-answer]") == answer_text
    page.get_by_role("button", name="Which seconds?").click()
    page.wait_for_selector("[data-occlusion-result]:visible")
    found = model.occlusion(DJEMBE, "Are there drums?", answers=[answer_text])
    text = page.inner_text("[data-occlusion-peak]")
    shown = re.match(r"Most at 0:([\d.]+)–0:([\d.]+): .* \(\+([\d.]+) nats\)", text)
    assert shown is not None
    start, end, effect = map(float, shown.groups())
    assert end == start + 0.5
    # In bfloat16 effects depend on which windows share a pass, as memory allows.
    assert effect == pytest.approx(found.effect.max(), abs=1)
    assert found.effect[found.start_seconds == start] == pytest.approx(effect, abs=1)
    _, means = found.map()
    page.focus("[data-occlusion-strip]")
    page.press("[data-occlusion-strip]", "End")
    spoken = page.get_attribute("[data-occlusion-strip]", "aria-valuetext")
    assert spoken.startswith("0:06.00 · effect ")
    assert float(spoken.split()[-2].replace("−", "-")) == pytest.approx(means[-1], abs=0.5)
    label = page.get_attribute("[data-occlusion-strip]", "aria-label")
    assert f"“{answer_text}”" in label
    colours = page.evaluate(
        """() => ['wave', 'effects'].map((name) => {
          const canvas = document.querySelector(`[data-occlusion-${name}]`);
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size; })"""
    )
    assert colours[0] > 10  # one for each different effect
    assert colours[1] >= 3

    page.fill("[data-occlusion-other]", "No, there are no drums.")
    page.select_option("[data-occlusion-window]", "1")
    page.get_by_role("button", name="Find the seconds").click()
    page.wait_for_function(
        "() => document.querySelector('[data-occlusion-key]').innerText.includes('for “No')"
    )
    assert "parts of 1.00 s" in page.inner_text("[data-occlusion-note]")
    page.evaluate("() => playground.open({ part: [1, 3] })")
    page.wait_for_selector("[data-occlusion-result]", state="hidden")


def test_the_seconds_behind_a_turn_of_a_conversation(page: Any, model: qa.AudioModel) -> None:
    in_conversation(page)
    ask(page, "Is this music?")
    answer_text = ask(page, "Are there drums?")
    page.get_by_role("button", name="Which seconds?").first.click()
    page.wait_for_selector("[data-occlusion-result]:visible")
    assert "turn 2 of the conversation" in page.inner_text("[data-occlusion-turn]")
    prompt = page.locator(".pg-answer pre").first.text_content()
    found = model.occlusion(GUITAR, prompt, answers=[answer_text])
    shown = re.search(r"\+([\d.]+) nats", page.inner_text("[data-occlusion-peak]"))
    assert shown is not None
    assert float(shown.group(1)) == pytest.approx(found.effect.max(), abs=0.5)
    page.fill("[data-occlusion-question]", "Are there drums now?")
    assert not page.is_visible("[data-occlusion-turn]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_full_tab_is_accessible_on_a_phone(
    chromium: Any, playground: PlaygroundProcess, scheme: str
) -> None:
    with open_page(chromium, playground.url, scheme=scheme, phone=True) as page:
        ask(page, "Are there drums?")
        page.click(".pg-answer summary")
        page.get_by_role("button", name="Which seconds?").click()
        page.click("[data-choice-sets] button >> nth=0")
        for name in ("occlusion", "choices"):
            page.wait_for_selector(f"[data-{name}-result]:visible")
        assert axe_violations(page) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
