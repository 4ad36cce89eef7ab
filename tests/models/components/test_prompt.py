"""Prompts against transformers' tokenizer, processor and chat templates."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor, AutoTokenizer, Qwen2AudioProcessor

from checkpoints import AUDIO_ID, EMBEDDED, END_OF_TEXT_ID, edit_json
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.components.conversation import audio_inputs
from qwen_audio.models.components.prompt import PromptTokenizer
from qwen_audio.models.components.prompt_format import DEFAULT_PROMPT
from qwen_audio.models.families.qwen2_audio import Qwen2Audio

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
AUDIO_MARKERS = "<|audio_bos|><|AUDIO|><|audio_eos|>"

texts = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
    st.lists(
        st.sampled_from(
            [
                *("Describe", " the", " music", ":", "  ", "\n", "\n\n", "\t", "'s", "2024", "  7"),
                *(
                    "音乐",
                    "größe",
                    "é",
                    "e\u0301",
                    "🎵",
                    "👩‍🎤",
                    "العود",
                    "\u200b",
                    "\ufeff",
                    "\x00",
                ),
                *(IM_START, IM_END, "<|endoftext|>", "<|audio_bos|>", "<|audio|>", "<|", "|>"),
            ]
        ),
        max_size=12,
    ).map("".join),
)


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@functools.cache
def prompt_tokenizer(chat: bool | None = None) -> PromptTokenizer:
    return Checkpoint(EMBEDDED).tokenizer(chat)


@functools.cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(EMBEDDED)


@functools.cache
def processor() -> Any:
    return AutoProcessor.from_pretrained(EMBEDDED)


def typed(text: str) -> str:
    """A text that is no empty prompt, and has no control tokens."""
    return text.replace("<|", "<") if text.strip() else f"{text}x"


# Text to ids and back.


@pytest.mark.slow
@settings(max_examples=200)
@given(texts)
@example("")
def test_token_ids_equal_those_of_transformers(text: str) -> None:
    assert list(prompt_tokenizer().encode(text)) == tokenizer()(text)["input_ids"]
    prompt_text = prompt_tokenizer(False).render(typed(text))
    assert list(prompt_tokenizer().encode(prompt_text)) == tokenizer()(prompt_text)["input_ids"]


@given(st.lists(st.integers(0, 1098), max_size=30))
def test_decoded_text_equals_that_of_transformers(ids: list[int]) -> None:
    expected = tokenizer().decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert prompt_tokenizer().decode(ids) == expected


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_encoding_and_decoding_returns_the_text(text: str) -> None:
    if "<|" not in text:
        assert prompt_tokenizer().decode(prompt_tokenizer().encode(text)) == text


@given(texts)
@example("🎵 \N{REPLACEMENT CHARACTER}")
def test_bytes_of_tokens_are_those_of_the_text(text: str) -> None:
    """Also where a token is a part of a character."""
    ids = prompt_tokenizer().encode_text(text)
    expected = tokenizer().decode(ids, clean_up_tokenization_spaces=False).encode()
    assert b"".join(prompt_tokenizer().token_bytes(each) or b"" for each in ids) == expected


def test_special_tokens_are_not_text() -> None:
    prompts = prompt_tokenizer()
    ids = prompts.encode(f"{IM_START}calm{AUDIO_MARKERS} piano{IM_END}<|endoftext|>")
    assert prompts.decode(ids) == "calm piano"


def test_the_default_prompt() -> None:
    assert DEFAULT_PROMPT == "Describe the music:"
    prompts = prompt_tokenizer(False)
    assert len(prompts.encode(DEFAULT_PROMPT)) == 4
    ids = prompts.encode(prompts.render(None))
    assert len(ids) == 7
    assert ids[1] == prompts.audio_token_id == AUDIO_ID
    assert prompts.render(None) == prompts.render(DEFAULT_PROMPT) == AUDIO_MARKERS + DEFAULT_PROMPT


# The plain prompt.


@given(texts)
def test_a_plain_prompt_is_the_audio_markers_and_the_text(text: str) -> None:
    assert prompt_tokenizer(False).render(typed(text)) == AUDIO_MARKERS + typed(text)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(
    "prompt",
    ["<|AUDIO|>", "Listen: <|audio_bos|><|AUDIO|><|audio_eos|>", f"{IM_START}x<|AUDIO|>\n"],
)
def test_a_prompt_with_an_audio_placeholder_is_used_verbatim(prompt: str, chat: bool) -> None:
    assert prompt_tokenizer(chat).render(prompt) == prompt


@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_for_one_clip_has_one_placeholder(chat: bool) -> None:
    with pytest.raises(OptionError) as caught:
        prompt_tokenizer(chat).render("<|AUDIO|> and <|AUDIO|>")
    assert str(caught.value) == (
        "the prompt contains <|AUDIO|> 2 times, but one clip is given: "
        "in Python, chat() takes several audios in one conversation"
    )


# Chat.


@pytest.mark.slow
@settings(max_examples=100)
@given(texts)
def test_a_chat_prompt_equals_the_processors(text: str) -> None:
    text = typed(text)
    conversation = [
        {
            "role": "user",
            "content": [{"type": "audio", "audio": "clip.wav"}, {"type": "text", "text": text}],
        }
    ]
    expected = processor().apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=False
    )
    prompt_text = prompt_tokenizer(True).render(text)
    assert prompt_text == expected
    assert list(prompt_tokenizer().encode(prompt_text)) == tokenizer()(expected)["input_ids"]
    assert prompt_text.count("<|AUDIO|>") == 1


roles = st.sampled_from(["user", "assistant", "system"])
parts = st.one_of(
    texts.map(lambda text: {"type": "text", "text": typed(text)}),
    st.just({"type": "audio", "audio": "a.wav"}),
    st.just({"type": "audio", "audio_url": "b.wav"}),
)
conversations = st.lists(
    st.fixed_dictionaries(
        {"role": roles, "content": texts.map(typed) | st.lists(parts, max_size=3)}
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100)
@given(conversations)
def test_conversations_are_rendered_as_the_processor_does(
    conversation: list[dict[str, Any]],
) -> None:
    expected = processor().apply_chat_template(
        conversation, add_generation_prompt=True, tokenize=False
    )
    assert prompt_tokenizer(True).apply_chat_template(conversation) == expected


def test_a_rendered_chat() -> None:
    prompts = prompt_tokenizer(True)
    messages = [
        prompts.user_message("What is this?", audio=True),
        {"role": "assistant", "content": "A piano."},
        prompts.user_message("And this?", audio=True),
    ]
    assert prompts.apply_chat_template(messages) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nAudio 1: {AUDIO_MARKERS}\nWhat is this?<|im_end|>\n"
        "<|im_start|>assistant\nA piano.<|im_end|>\n"
        f"<|im_start|>user\nAudio 2: {AUDIO_MARKERS}\nAnd this?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert "<|AUDIO|>" not in prompts.apply_chat_template([prompts.user_message(None, audio=False)])


def test_a_checkpoint_without_a_template_uses_transformers_default(copy: Path) -> None:
    """As the base model does; older checkpoints have a JSON file."""
    messages = [prompt_tokenizer().user_message("What is this?", audio=True)]
    (copy / "chat_template.jinja").unlink()
    default = Checkpoint(copy).tokenizer(True).apply_chat_template(messages)
    default_template: Any = Qwen2AudioProcessor.default_chat_template  # a property
    expected = processor().apply_chat_template(
        messages,
        chat_template=default_template.fget(None),
        add_generation_prompt=True,
        tokenize=False,
    )
    assert default == expected
    assert "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat is this?" in default

    template = "{{ messages[0]['role'] }} says"
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert Checkpoint(copy).tokenizer(True).apply_chat_template(messages) == "user says"


@pytest.mark.parametrize("messages", [[{"role": "user", "content": 5}], [{"content": [7]}]])
def test_messages_that_the_template_cannot_render(messages: list[Any]) -> None:
    with pytest.raises(OptionError, match="doesn't fit the chat template"):
        prompt_tokenizer(True).apply_chat_template(messages)


def test_a_template_that_fails(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("{{ raise_exception('only\nuser turns') }}")
    with pytest.raises(OptionError) as caught:
        Checkpoint(copy).tokenizer(True).render("x")
    assert "(only user turns)" in str(caught.value)


# Chat template and stop tokens.


@pytest.mark.parametrize(
    ("eos", "chat", "stop_ids"),
    [
        (END_OF_TEXT_ID, False, {END_OF_TEXT_ID}),
        ([END_OF_TEXT_ID], False, {END_OF_TEXT_ID}),
        ([1095, END_OF_TEXT_ID], True, {1095, END_OF_TEXT_ID}),
        (1095, True, {1095}),
    ],
)
def test_a_checkpoint_with_an_end_of_turn_token_uses_the_chat_template(
    eos: int | list[int], chat: bool, stop_ids: set[int], copy: Path
) -> None:
    edit_json(copy / "generation_config.json", eos_token_id=eos)
    prompts = Checkpoint(copy).tokenizer()
    assert prompts.encode(IM_END) == (1095,)
    assert prompts.uses_chat_template is chat
    assert prompts.stop_token_ids() == stop_ids
    assert (IM_START in prompts.render("Hello")) is chat


def test_the_chat_option_overrides_the_checkpoints_format(copy: Path) -> None:
    assert Checkpoint(copy).tokenizer(chat=True).stop_token_ids() == {1095, END_OF_TEXT_ID}
    edit_json(copy / "generation_config.json", eos_token_id=[1095, END_OF_TEXT_ID])
    plain = Checkpoint(copy).tokenizer(chat=False)
    assert not plain.uses_chat_template
    assert plain.render("Hello") == AUDIO_MARKERS + "Hello"
    assert plain.stop_token_ids() == {1095, END_OF_TEXT_ID}


def test_without_a_generation_config_the_config_has_the_stop_token(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    assert Checkpoint(copy).tokenizer().stop_token_ids() == {END_OF_TEXT_ID}
    edit_json(copy / "config.json", text_config__eos_token_id=None)
    assert Checkpoint(copy).tokenizer().stop_token_ids() <= {END_OF_TEXT_ID}


# Audio tokens.


@given(st.lists(st.integers(0, 9), max_size=4), st.data())
def test_each_placeholder_is_repeated_for_its_audio_tokens(
    tokens: list[int], data: st.DataObject
) -> None:
    prompts = prompt_tokenizer()
    ids: list[int] = []
    expected: list[int] = []
    for count in [*tokens, None]:
        text_ids = data.draw(st.lists(st.integers(0, 1095), max_size=4))
        ids += text_ids
        expected += text_ids
        if count is not None:
            ids.append(AUDIO_ID)
            expected += count * [AUDIO_ID]
    assert list(prompts.expand_audio_tokens(ids, tokens)) == expected


def test_expanded_ids_equal_the_processors() -> None:
    import numpy as np

    clips = [np.zeros(size, np.float32) for size in (16_000, 52_345)]
    text = f"First {AUDIO_MARKERS} and second {AUDIO_MARKERS}: which?"
    inputs = processor()(text=text, audio=clips, sampling_rate=16_000)
    prompts = prompt_tokenizer()
    token_ids = prompts.expand_audio_tokens(prompts.encode(text), [25, 82])
    assert list(token_ids) == list(inputs["input_ids"][0])


@pytest.mark.parametrize("tokens", [[], [1, 2]])
def test_audios_and_placeholders_must_agree(tokens: list[int]) -> None:
    with pytest.raises(OptionError, match=f"{len(tokens)} audios, but the prompt has 1 "):
        prompt_tokenizer().expand_audio_tokens((5, AUDIO_ID, 6), tokens)


def test_the_audios_of_a_conversation() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Listen."},
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio": b"first"},
                {"type": "text", "text": "and"},
                {"type": "audio", "audio_url": "second.wav"},
                {"type": "audio", "path": Path("third.wav")},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": ({"audio": "fourth.wav"},)},
    ]
    assert list(audio_inputs(messages)) == [b"first", "second.wav", Path("third.wav"), "fourth.wav"]


@pytest.mark.parametrize(
    "part",
    [{"type": "audio"}, {"type": "audio", "audio": "a", "path": "b"}, {"audio": 1, "audio_url": 2}],
)
def test_an_audio_part_has_one_audio(part: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="an audio part needs one of audio, audio_url, url, path"):
        list(audio_inputs([{"role": "user", "content": [part]}]))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": [{"audio": "a.wav", "text": "Hm?"}]}], "as two parts"),
        ([], "the conversation is empty"),
        ([{"role": "wizard", "content": "Hm?"}], "a role of system, user, assistant"),
        ([{"role": "user", "content": []}], "is not empty"),
        (
            [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}],
            "ends with the assistant's turn",
        ),
    ],
)
def test_invalid_conversations(messages: Any, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        list(audio_inputs(messages))


@pytest.mark.parametrize(
    "message", [{}, {"role": "user"}, {"content": "x"}, {"role": "user", "content": 5}, "x", None]
)
def test_a_message_has_a_role_and_content(message: Any) -> None:
    with pytest.raises(OptionError, match=r"is not a message: give \{'role': …"):
        list(audio_inputs((message,)))


@pytest.mark.parametrize("part", ["text", 5, None, {}, {"type": "image", "image": "a.png"}])
def test_a_part_that_no_template_renders(part: Any) -> None:
    """The template would drop it silently."""
    with pytest.raises(OptionError, match="is neither text nor audio"):
        list(audio_inputs([{"role": "user", "content": [part]}]))


# Tokenizers that don't belong to the checkpoint.


@pytest.mark.parametrize("content", ["", "{", "{}", "[]"])
def test_an_invalid_tokenizer(content: str, copy: Path) -> None:
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json can't be read") as caught:
        Checkpoint(copy).tokenizer()
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_checkpoint(copy: Path) -> None:
    edit_json(copy / "config.json", audio_token_index=1095)
    with pytest.raises(CheckpointError, match=r"has <\|AUDIO\|> as 1096, config\.json says 1095"):
        Checkpoint(copy).tokenizer()


def test_a_tokenizer_without_the_audio_token(copy: Path) -> None:
    file = copy / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|AUDIO|>", "<|VIDEO|>"))
    with pytest.raises(CheckpointError, match=r"<\|AUDIO\|>"):
        Checkpoint(copy).tokenizer()


def test_markers_around_the_rows_of_each_audio() -> None:
    """Of a format whose processor adds them: they are positions of the prompt."""
    checkpoint = Checkpoint(EMBEDDED)
    marked = replace(Qwen2Audio.prompt_format, before_rows="<|im_start|>", after_rows="<|im_end|>")
    plain = checkpoint.tokenizer()
    files, audio_id = checkpoint._files, plain.audio_token_id
    tokenizer = PromptTokenizer(files, marked, audio_id, None)
    start, end = (plain.encode(marker)[0] for marker in ("<|im_start|>", "<|im_end|>"))
    expanded = tokenizer.expand_audio_tokens((7, audio_id, audio_id), (2, 1))
    assert expanded == (7, start, audio_id, audio_id, end, start, audio_id, end)
    prompt_text = tokenizer.render(None)
    assert tokenizer.text_tokens(prompt_text) == plain.text_tokens(prompt_text) + 2
    with pytest.raises(CheckpointError, match=r"the tokenizer lacks <x>: it is not Qwen2-Audio's"):
        PromptTokenizer(files, replace(marked, before_rows="<x>"), audio_id, None)
