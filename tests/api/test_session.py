"""Heard once, asked many times: the same answers, without hearing again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.inference.decoder import DecoderInput, LanguageModel
from qwen_audio.inference.encoder import AudioEncoder
from reference import Reference, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


def test_each_question_stands_alone_and_equals_describe(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint), sound(2.0)
    heard = model.session(clip, **RATE)
    for question in ("What is this?", "Is anyone speaking?", "What is this?", None):
        expected = model.describe(clip, prompt=question, max_new_tokens=6, **RATE)
        said = heard.ask(question, max_new_tokens=6)
        assert said == expected
        assert said.answers == expected.answers


def test_the_ear_and_the_cache_are_used_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    read: list[int] = []
    hear, read_on = AudioEncoder.forward, LanguageModel.forward

    def count_hearing(self: Any, mels: Any, *rest: Any) -> Any:
        passes.append(len(mels))
        return hear(self, mels, *rest)

    def count_reading(self: Any, clips: list[DecoderInput], *rest: Any) -> Any:
        read.append(sum(len(clip.token_ids) for clip in clips))
        return read_on(self, clips, *rest)

    monkeypatch.setattr(AudioEncoder, "forward", count_hearing)
    monkeypatch.setattr(LanguageModel, "forward", count_reading)
    heard = qa.load(checkpoint).session(sound(10.0), **RATE)
    assert passes == [1]
    heard.ask("Is anyone speaking?", max_new_tokens=1)
    assert read.pop() > 250
    assert read == []
    heard.ask("How fast is it?", max_new_tokens=1)
    heard.ask("How fast is it?", max_new_tokens=1)
    assert passes == [1]
    assert read[0] < 12
    assert read[1] == 1


def test_windows_are_asked_each(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    clip = np.concatenate([sound(30.0, 1), sound(1.0, 2)])
    heard = model.session(clip, **RATE)
    assert heard.audio_tokens == 775
    assert [str(window) for window in heard.windows] == ["0:00–0:30", "0:30–0:31"]
    assert heard.ask("?", max_new_tokens=3) == model.describe(
        clip, prompt="?", max_new_tokens=3, **RATE
    )


def test_a_follow_up_continues_the_conversation(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint, chat=True), sound(2.0)
    heard = model.session(clip, **RATE)
    first = heard.ask("What is this?", max_new_tokens=4)
    second = heard.ask("How fast is it?", follow_up=True, max_new_tokens=4)
    turns: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio": clip},
                {"type": "text", "text": "What is this?"},
            ],
        },
        {"role": "assistant", "content": str(first)},
        {"role": "user", "content": [{"type": "text", "text": "How fast is it?"}]},
    ]
    assert model.chat(turns, max_new_tokens=4, **RATE).text == second
    assert heard.ask("How fast is it?", max_new_tokens=4) != second


def test_a_question_that_fails_leaves_no_trace_in_the_conversation(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint, chat=True), sound(1.0)
    heard, other = model.session([clip, clip], **RATE)
    for listening in (heard, other):
        listening.ask("What is this?", max_new_tokens=4)
    with pytest.raises(qa.OptionError, match="at most 4096"):
        heard.ask("a " * 5000, follow_up=True)
    again = heard.ask("How fast is it?", follow_up=True, max_new_tokens=4)
    assert again.answers == other.ask("How fast is it?", follow_up=True, max_new_tokens=4).answers


def test_a_conversation_with_two_audios_equals_transformers(checkpoint: Path) -> None:
    model, reference = qa.load(checkpoint, chat=True), Reference(checkpoint)
    clips = [sound(1.0, 1), sound(2.2, 2)]
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "audio", "audio": clips[0]}]},
        {"role": "assistant", "content": "A tone."},
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio": clips[1]},
                {"type": "text", "text": "And this?"},
            ],
        },
    ]
    prompt = reference.processor.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False
    )
    inputs = reference.inputs(clips, [prompt])
    out = reference.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = tuple(out[0, inputs["input_ids"].shape[1] :].tolist())
    answer = model.chat(turns, max_new_tokens=8, **RATE)
    assert answer.token_ids == expected
    assert answer.audio_tokens == 25 + 55


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        ([{"role": "user"}], qa.OptionError, "not a message"),
        ([{"role": "user", "content": [{"type": "audio"}]}], qa.OptionError, "needs one of"),
        (
            [{"role": "user", "content": [{"type": "audio", "audio": np.zeros(480_160)}]}],
            qa.AudioError,
            "up to 30 s",
        ),
    ],
)
def test_conversations_that_cannot_be_heard(
    checkpoint: Path, messages: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        qa.load(checkpoint, chat=True).chat(messages, **RATE)


def test_a_question_may_go_through_the_chat_template_or_not(checkpoint: Path) -> None:
    clip = sound(2.0)
    plain, chat = (qa.load(checkpoint, chat=chat) for chat in (False, True))
    for heard, other, way in (
        (plain.session(clip, **RATE), chat, True),
        (chat.session(clip, **RATE), plain, False),
    ):
        said = heard.ask("What is this?", chat=way, max_new_tokens=6)
        assert (
            said.answers
            == other.describe(clip, prompt="What is this?", max_new_tokens=6, **RATE).answers
        )
    heard = plain.session(clip, **RATE)
    heard.ask("What is this?", chat=True, max_new_tokens=2)
    assert (
        heard.ask("Why?", chat=True, follow_up=True, max_new_tokens=2).answers[0].prompt_tokens > 20
    )
    with pytest.raises(qa.OptionError, match="knows no turns"):
        heard.ask("Why?", chat=False, follow_up=True)
