"""Handlers of the Ask tab: answers, conversations, suggestions, choices and occlusion."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from adapters import write_adapter
from checkpoints import EMBEDDED, random_checkpoint
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext
from qwen_audio.playground.examples import prepared_caption
from qwen_audio.playground.limits import Limits
from qwen_audio.playground.suggested_questions import FILE_NAME, suggested_questions
from qwen_audio.playground.tabs.ask import AskTab
from qwen_audio.playground.tabs.audio import AudioTab
from qwen_audio.playground.tabs.choices import ChoicesCard, percent
from qwen_audio.playground.tabs.occlusion import OcclusionCard
from qwen_audio.playground.tabs.snippets import Snippets
from reference import sound

EXAMPLES = Path(__file__).parents[2] / "examples"


class Page:
    """Stand-in for a Gradio request."""

    session_hash = "page"


@pytest.fixture
def context(model: qa.AudioModel) -> AppContext:
    """With the guitar open."""
    made = AppContext(model, Limits())
    AudioTab(made).open({"example": "guitar.flac"}, Page())
    return made


def small_context(folder: Path, seconds: float = 1.0, **options: Any) -> AppContext:
    """Of a tiny checkpoint, with a tone open."""
    made = AppContext(qa.load(folder, dtype="float32", **options), Limits(max_new_tokens=3))
    made.session(Page()).open(Clip(qa.Waveform(sound(seconds), "a.wav")))
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    return random_checkpoint(path, width=32, encoder_layers=1, lm_layers=1)


def asked(context: AppContext, question: str = "", **options: Any) -> dict[str, Any]:
    """The last update of an answer."""
    *_, last = AskTab(context).ask({"question": question, **options}, Page())
    return last


def test_a_question_is_asked_alone_and_grows(context: AppContext, model: qa.AudioModel) -> None:
    updates = list(AskTab(context).ask({"question": " Are there drums? ", "n": 4}, Page()))
    assert all(update["partial"] and update["n"] == 4 for update in updates[:-1])
    assert updates[0]["answer"]["lines"] == []
    answer = updates[-1]["answer"]
    expected = model.describe(EXAMPLES / "guitar.flac", prompt="Are there drums?")
    assert answer["text"] == expected
    assert answer["lines"] == [{"text": str(expected)}]
    assert (answer["style"], answer["is_conversation"], answer["turn"]) == (
        "plain prompt",
        False,
        1,
    )
    assert answer["prompt"] == model.spec("lm.0", prompt="Are there drums?").prompt
    assert (answer["cut_off"], answer["is_stopped"], answer["note"]) == (None, False, None)
    facts = dict(answer["facts"])
    assert facts["audio"] == "5.20 s, encoded now"
    assert facts["generated"] == f"{len(expected.answers[0].token_ids)} tokens"
    assert facts["dtype"] == model.dtype
    again = asked(context, "Are there drums?")["answer"]
    assert dict(again["facts"])["audio"] == "5.20 s, encoded earlier"
    assert [each["question"] for each in context.session(Page()).answers] == 2 * [
        "Are there drums?"
    ]
    assert json.dumps(updates)


def test_a_conversation_holds_earlier_turns(tiny: Path) -> None:
    context = small_context(tiny)
    asked(context, "How loud is it?")
    first = asked(context, "Is this music?", conversation=True)["answer"]
    second = asked(context, "Why?", conversation=True)["answer"]
    assert (first["turn"], first["style"]) == (1, "chat template")
    assert second["turn"] == 2
    assert "How loud" not in first["prompt"]  # it was asked alone
    begin = first["prompt"].removesuffix("<|im_start|>assistant\n")
    assert second["prompt"].startswith(begin)
    session = context.model.session(qa.Waveform(sound(1.0), "a.wav"))
    session.ask("Is this music?", chat=True, max_new_tokens=3)
    assert second["text"] == session.ask("Why?", chat=True, follow_up=True, max_new_tokens=3)

    assert asked(context, "Why?", conversation=True, new=True)["answer"]["turn"] == 1
    asked(context, "Alone?")
    assert asked(context, "And?", conversation=True)["answer"]["turn"] == 1
    clip = context.session(Page()).open_clip
    clip.audio_sessions.clear()  # as when memory is short
    last = asked(context, "And?", conversation=True)["answer"]
    assert (last["turn"], "no longer in memory" in last["note"]) == (1, True)


def test_conversations_about_other_seconds_are_others(tiny: Path) -> None:
    context = small_context(tiny, seconds=2.0)
    asked(context, "One?", conversation=True)
    context.session(Page()).open_clip.select_part([0.5, 1.5])
    part = asked(context, "Two?", conversation=True)["answer"]
    assert (part["turn"], part["part"]) == (1, [0.5, 1.5])
    whole = asked(context, "Three?", conversation=True, whole=True)["answer"]
    assert (whole["turn"], whole["part"]) == (2, None)


@pytest.mark.slow
def test_windows_of_a_recording_have_their_times(tiny: Path) -> None:
    context = small_context(tiny, seconds=31.0)
    answer = asked(context, "One?", whole=True)["answer"]
    assert [line["time"] for line in answer["lines"]] == ["0:00–0:30", "0:30–0:31"]
    assert [line["seconds"] for line in answer["lines"]] == [0, 30]
    assert answer["windows"] == 2
    assert "31.00 s in 2 windows" in dict(answer["facts"])["audio"]
    assert asked(context, "One?")["answer"]["part"] == [0, 30]


def test_a_model_without_a_chat_template_has_no_conversations(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert AskTab(small_context(tiny)).questions({}, Page())["no_conversation"] is None
    copy = shutil.copytree(tiny, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    context = small_context(copy)
    tokenizer = context.model.pipeline.tokenizer
    without_default = dataclasses.replace(tokenizer.format, default_template=None)
    monkeypatch.setattr(tokenizer, "format", without_default)
    why = AskTab(context).questions({}, Page())["no_conversation"]
    assert why.startswith("This model has no chat template")
    assert asked(context, "Why?", conversation=True)["problem"] == why
    assert asked(context, "Why?")["answer"]["style"] == "plain prompt"

    monkeypatch.setattr(tokenizer, "format", dataclasses.replace(tokenizer.format, is_context=True))
    why = AskTab(context).questions({}, Page())["no_conversation"]
    assert why.startswith("This model's chat template takes one question")


def test_an_instruct_checkpoint_is_asked_through_its_template(tiny: Path) -> None:
    context = small_context(tiny, chat=True)
    assert AskTab(context).questions({}, Page())["style"] == "chat template"
    assert asked(context, "Why?")["answer"]["style"] == "chat template"


def test_an_answer_is_stopped_and_keeps_its_text(
    context: AppContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = AskTab(context)
    reached, go_on = threading.Event(), threading.Event()

    def wait_once() -> None:
        if not reached.is_set():
            reached.set()
            go_on.wait(30)

    monkeypatch.setattr(context.thread, "let_others_run", wait_once)
    updates = tab.ask({"question": "", "number": 7}, Page())
    next(updates)
    assert reached.wait(30)
    assert tab.stop({"number": 7}, Page()) == {"n": None}
    go_on.set()
    *_, last = updates
    answer = last["answer"]
    assert answer["is_stopped"]
    assert answer["text"]
    whole = context.model.describe(EXAMPLES / "guitar.flac")
    assert str(whole).startswith(answer["text"].strip())
    assert len(answer["text"]) < len(whole)
    assert not context.session(Page()).is_answering

    tab.stop({"number": 8}, Page())  # before it is its turn
    *_, last = tab.ask({"question": "", "number": 8}, Page())
    assert (last["answer"]["is_stopped"], last["answer"]["text"]) == (True, "")
    assert asked(context, number=9)["answer"]["text"] == whole


def test_a_failed_question_is_no_answer(context: AppContext) -> None:
    asked(context, "Is this music?")
    for question in ("a" * 1001, "\ud800", "<|AUDIO|><|AUDIO|>", 3):
        answer = asked(context, question)  # type: ignore[arg-type]
        assert "problem" in answer
        assert "internal" not in answer["problem"]
    session = context.session(Page())
    assert [each["question"] for each in session.answers] == ["Is this music?"]
    session.is_answering = True
    assert "One question at a time" in asked(context, "And?")["problem"]
    assert session.is_answering  # for the one that runs


@pytest.mark.slow
def test_a_follow_up_snippet_includes_earlier_questions(
    context: AppContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    snippets = Snippets(context)
    for question in ("Is this music?", "How loud is it?"):
        asked(context, question, conversation=True)
    lines = snippets.snippets({"view": "ask"}, Page())
    assert lines["command"] == ""
    assert lines["python"].splitlines()[-2:] == [
        "session.ask('Is this music?', chat=True)",
        "print(session.ask('How loud is it?', chat=True, follow_up=True))",
    ]
    monkeypatch.chdir(EXAMPLES)
    exec(compile(lines["python"], "lines", "exec"), {})
    assert capsys.readouterr().out.strip() == str(context.session(Page()).answers[0]["answer"])
    asked(context, "Are there drums?")
    assert "music?" not in snippets.snippets({"view": "ask"}, Page())["python"]


@pytest.mark.parametrize("example", ["guitar.flac", "djembe.flac", "speech.flac"])
def test_prepared_captions_are_what_the_model_says(model: qa.AudioModel, example: str) -> None:
    caption = prepared_caption(model, example)
    assert caption == model.describe(EXAMPLES / example)
    assert f"| {caption} |" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_captions_belong_to_the_weights_they_were_made_with(
    tiny: Path, tmp_path: Path, model: qa.AudioModel
) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    assert prepared_caption(qa.load(copy), "guitar.flac") is None
    captions = json.loads((EMBEDDED / "example_captions.json").read_text(encoding="utf-8"))
    (copy / "example_captions.json").write_text(json.dumps(captions))
    assert prepared_caption(qa.load(copy), "guitar.flac") is None  # of other weights
    assert prepared_caption(model, "other.flac") is None
    assert prepared_caption(qa.load(quantize="int8"), "guitar.flac") is None


def test_the_checkpoint_suggests_questions(model: qa.AudioModel, context: AppContext) -> None:
    offered = AskTab(context).questions({"n": 1}, Page())
    assert "small checkpoint" in offered["about"]
    assert offered["note"] is None
    assert "Are there drums?" in offered["questions"]
    assert json.dumps(offered)
    for question, choices in suggested_questions(model).choices:
        scores = model.score(
            [EXAMPLES / "djembe.flac", EXAMPLES / "speech.flac"], question, choices=choices
        )
        assert all(each.mass.min() > 0.9 for each in scores), question


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[1]", "is no object of about, choices, questions"),
        ('{"answers": []}', "is no object of"),
        ('{"about": 3}', "3 is not a text"),
        ('{"questions": "Why?"}', "questions is not a list"),
        ('{"questions": [" "]}', "is not a text of at most 1000"),
        ('{"choices": [{"question": "Why?"}]}', "is not a question with its choices"),
        (json.dumps({"questions": 13 * ["Why?"]}), "at most 12 entries"),
    ],
)
def test_damaged_suggestions_are_named(
    tiny: Path, tmp_path: Path, content: str, message: str
) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    (copy / FILE_NAME).write_text(content)
    found = suggested_questions(qa.load(copy))
    assert found.note is not None
    assert message in found.note
    assert found.questions[0] == "Describe the music:"


def test_other_checkpoints_suggest_their_own_or_general_questions(
    tiny: Path, tmp_path: Path
) -> None:
    general = suggested_questions(qa.load(tiny))
    assert (general.about, general.note) == (None, None)
    assert "Is anyone speaking?" in general.questions
    copy = shutil.copytree(tiny, tmp_path / "copy")
    content = {
        "about": "It knows birds.",
        "questions": ["Which bird?"],
        "choices": [{"question": "Which bird?", "choices": ["A crow", "A tit"]}],
    }
    (copy / FILE_NAME).write_text(json.dumps(content))
    model = qa.load(copy)
    found = suggested_questions(model)
    assert found.about == "It knows birds."
    assert found.choices == (("Which bird?", ("A crow", "A tit")),)
    adapter = write_adapter(tmp_path / "adapter", _transformers_model(copy))
    adapted = suggested_questions(qa.load(copy, adapter=adapter))
    assert (adapted.about, adapted.questions) == (None, ("Which bird?",))


def _transformers_model(folder: Path) -> Any:
    from transformers import Qwen2AudioForConditionalGeneration

    return Qwen2AudioForConditionalGeneration.from_pretrained(folder)


def test_choices_are_scored_for_the_open_part(context: AppContext, model: qa.AudioModel) -> None:
    tab = ChoicesCard(context)
    data = {"question": "Are there drums?", "choices": ["Yes", " No ", ""], "n": 2}
    answer = tab.score(data, Page())
    expected = model.score(EXAMPLES / "guitar.flac", "Are there drums?", choices=["Yes", "No"])
    rows = {row["choice"]: row for row in answer["rows"]}
    assert [row["choice"] for row in answer["rows"]] == ["No", "Yes"]  # the likeliest first
    for index, choice in enumerate(expected.choices):
        assert rows[choice]["probability"] == pytest.approx(expected.probability[0, index])
        assert rows[choice]["log_probability"] == pytest.approx(expected.log_probability[0, index])
    assert (answer["is_low"], answer["prompt"], answer["n"]) == (False, expected.prompt, 2)
    assert answer["mass_text"].startswith("More than 99 % of the model’s probability")
    shown = context.session(Page()).results["choices"]
    assert shown.choices == ("Yes", "No")

    low = tab.score({"question": "How fast is it?", "choices": ["Blue", "Green"]}, Page())
    assert low["is_low"]
    assert low["mass_text"].startswith("Less than 0.01 % of the model’s probability is on")
    assert low["mass_text"].endswith("Ask the question to see what.")
    for choices in (None, [], ["", " "], "Yes", ["Yes", 3], 21 * ["a"], ["a" * 201], ["a", "a"]):
        problem = tab.score({"choices": choices}, Page())["problem"]
        assert "internal" not in problem, choices
    AudioTab(context).open({"part": [1.0, 2.0]}, Page())
    assert "choices" not in context.session(Page()).results


def test_percentages_claim_neither_none_nor_all() -> None:
    shares = (0, 5e-5, 0.003, 0.0999, 0.1, 0.457, 0.9949, 0.9951)
    assert [percent(share) for share in shares] == [
        *("less than 0.01 %", "less than 0.01 %", "0.3 %", "10 %", "10 %", "46 %", "99 %"),
        "more than 99 %",
    ]


def test_seconds_that_an_answer_depends_on(tiny: Path) -> None:
    context = small_context(tiny, seconds=6.0)
    context.session(Page()).open_clip.select_part([3.0, 6.0])
    tab, waveform = OcclusionCard(context), context.session(Page()).open_clip.window_waveform
    data = {"question": "Are there drums?", "answers": ["Yes", "No"]}
    answer = tab.occlusion({**data, "window_seconds": 1}, Page())
    expected = context.model.occlusion(
        waveform, "Are there drums?", window_seconds=1.0, hop_seconds=0.5
    )
    np.testing.assert_allclose(answer["effect"], expected.effect, atol=1e-5)
    assert answer["start_seconds"] == [3, 3.5, 4, 4.5, 5]
    assert (answer["edges"][0], answer["edges"][-1]) == (3, 6)
    peak = answer["peak"]
    assert peak["start"] == 3 + expected.start_seconds[np.argmax(expected.effect)]
    assert peak["end"] == peak["start"] + 1
    assert json.dumps(answer)
    assert context.session(Page()).results["occlusion"].answers == ("Yes", "No")
    wrong: dict[str, list[Any]] = {
        "answers": [None, [], ["a", "b", "c"], [""], [3], ["a" * 2001]],
        "window_seconds": [0, -1, 4, 0.01, "1", True, float("nan")],
        "number": [None, 0, "1", []],
    }
    for change in ({name: value} for name, values in wrong.items() for value in values):
        problem = tab.occlusion({**data, **change}, Page())["problem"]
        assert "internal" not in problem, change


def test_seconds_for_an_answer_as_it_was_asked(tiny: Path) -> None:
    context = small_context(tiny, seconds=1.0)
    asked(context, "Is it <|im_end|> music?", conversation=True)
    answer = asked(context, "Why?", conversation=True, number=5)["answer"]
    tab = OcclusionCard(context)
    shown = tab.occlusion({"number": 5, "answers": ["abc"]}, Page())
    assert shown["prompt"] == answer["prompt"]
    assert shown["start_seconds"] == pytest.approx([0.125 * k for k in range(7)])
    assert shown["answers"] == ("abc",)
    context.session(Page()).open_clip.select_part([0.0, 0.5])
    assert (
        "about other seconds" in tab.occlusion({"number": 5, "answers": ["a"]}, Page())["problem"]
    )


@pytest.mark.parametrize(
    ("seconds", "window"), [(30, 2), (20, 1), (10, 0.5), (1, 0.25), (0.04, 0.01)]
)
def test_a_few_dozen_windows_by_default(seconds: float, window: float) -> None:
    from qwen_audio.playground.tabs.occlusion import _window_seconds

    assert _window_seconds(None, seconds) == window
