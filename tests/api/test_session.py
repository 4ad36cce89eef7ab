"""Sessions: audio encoded once, the same answers as `describe` for every question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.inference.decoder import LanguageModel
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.encoder import AudioEncoder
from reference import Reference, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.slow
def test_each_question_is_independent_and_equals_describe(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint), sound(2.0)
    session = model.session(clip, **RATE)
    for question in ("What is this?", "Is anyone speaking?", "What is this?", None):
        expected = model.describe(clip, prompt=question, max_new_tokens=6, **RATE)
        answer = session.ask(question, max_new_tokens=6)
        assert answer == expected
        assert answer.answers == expected.answers


def test_the_encoder_runs_once_and_the_cache_is_reused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded_windows: list[int] = []
    token_counts: list[int] = []
    encoder_forward, lm_forward = AudioEncoder.forward, LanguageModel.forward

    def counted_encoder_forward(self: Any, mels: Any, *rest: Any) -> Any:
        encoded_windows.append(len(mels))
        return encoder_forward(self, mels, *rest)

    def counted_lm_forward(self: Any, clips: list[DecoderInput], *rest: Any) -> Any:
        token_counts.append(sum(len(clip.token_ids) for clip in clips))
        return lm_forward(self, clips, *rest)

    monkeypatch.setattr(AudioEncoder, "forward", counted_encoder_forward)
    monkeypatch.setattr(LanguageModel, "forward", counted_lm_forward)
    session = qa.load(checkpoint).session(sound(10.0), **RATE)
    assert encoded_windows == [1]
    session.ask("Is anyone speaking?", max_new_tokens=1)
    assert token_counts.pop() > 250
    assert token_counts == []
    session.ask("How fast is it?", max_new_tokens=1)
    session.ask("How fast is it?", max_new_tokens=1)
    assert encoded_windows == [1]
    assert token_counts[0] < 12
    assert token_counts[1] == 1


@pytest.mark.slow
def test_each_window_is_asked(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    clip = np.concatenate([sound(30.0, 1), sound(1.0, 2)])
    session = model.session(clip, **RATE)
    assert session.audio_tokens == 775
    assert [str(window) for window in session.windows] == ["0:00–0:30", "0:30–0:31"]
    assert session.ask("?", max_new_tokens=3) == model.describe(
        clip, prompt="?", max_new_tokens=3, **RATE
    )


def test_a_follow_up_continues_the_conversation(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint, chat=True), sound(2.0)
    session = model.session(clip, **RATE)
    first = session.ask("What is this?", max_new_tokens=4)
    second = session.ask("How fast is it?", follow_up=True, max_new_tokens=4)
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
    assert session.ask("How fast is it?", max_new_tokens=4) != second


def test_a_failed_question_does_not_change_the_conversation(checkpoint: Path) -> None:
    model, clip = qa.load(checkpoint, chat=True), sound(1.0)
    session, other = model.session([clip, clip], **RATE)
    for either in (session, other):
        either.ask("What is this?", max_new_tokens=4)
    with pytest.raises(qa.OptionError, match="at most 4096"):
        session.ask("a " * 5000, follow_up=True)
    again = session.ask("How fast is it?", follow_up=True, max_new_tokens=4)
    assert again.answers == other.ask("How fast is it?", follow_up=True, max_new_tokens=4).answers


@pytest.mark.slow
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
def test_invalid_conversations(
    checkpoint: Path, messages: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        qa.load(checkpoint, chat=True).chat(messages, **RATE)


def test_a_question_with_and_without_the_chat_template(checkpoint: Path) -> None:
    clip = sound(2.0)
    plain, chat = (qa.load(checkpoint, chat=chat) for chat in (False, True))
    for session, other, chat_prompt in (
        (plain.session(clip, **RATE), chat, True),
        (chat.session(clip, **RATE), plain, False),
    ):
        answer = session.ask("What is this?", chat=chat_prompt, max_new_tokens=6)
        assert (
            answer.answers
            == other.describe(clip, prompt="What is this?", max_new_tokens=6, **RATE).answers
        )
    session = plain.session(clip, **RATE)
    assert session.prompts("Why?") == [plain.spec("lm.0", prompt="Why?").prompt]
    assert session.prompts("Why?", chat=True) == [chat.spec("lm.0", prompt="Why?").prompt]
    assert session.prompts("Why?", chat=True, follow_up=True) == session.prompts("Why?", chat=True)
    first = session.ask("What is this?", chat=True, max_new_tokens=2)
    (prompt,) = session.prompts("Why?", chat=True, follow_up=True)
    asked_first = session.prompts("What is this?", chat=True)[0]
    assert prompt.startswith(asked_first.removesuffix("<|im_start|>assistant\n"))
    assert str(first) in prompt[len(asked_first) :]
    # A rendered prompt is a raw one, which is used as it is.
    assert session.prompts(prompt) == [prompt]
    assert (
        session.ask("Why?", chat=True, follow_up=True, max_new_tokens=2).answers[0].prompt_tokens
        > 20
    )
    with pytest.raises(qa.OptionError, match="knows no turns"):
        session.ask("Why?", chat=False, follow_up=True)
