"""Questions → token ids, the audio's places among them; and token ids → text.

A base checkpoint is given a plain prompt, `<|audio_bos|><|AUDIO|><|audio_eos|>Describe the music:`;
an Instruct one its chat template. Which one it is, its generation_config.json says: a model that
was taught turns stops at the end of one, `<|im_end|>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint

__all__ = ["DEFAULT_PROMPT", "Message", "Prompts", "audio_parts"]

DEFAULT_PROMPT = "Describe the music:"

Message = Mapping[str, Any]
"""One turn in transformers' convention: {"role": "user", "content": text or a list of parts}."""

AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TURN_END = "<|im_end|>"
AUDIO_KEYS = ("audio", "audio_url", "url", "path")
"""The keys of a message part that may hold its audio."""
ROLES = ("system", "user", "assistant")
"""Roles that a message may have."""


class Prompts:
    """A checkpoint's tokenizer and its way of being asked.

    Args:
        chat: whether to use the chat template; None lets the checkpoint decide.

    Raises:
        CheckpointError: if the tokenizer is missing or lacks the audio markers.
    """

    def __init__(self, checkpoint: Checkpoint, chat: bool | None = None) -> None:
        self._checkpoint = checkpoint
        path = checkpoint.file("tokenizer.json")
        if path is None:
            raise CheckpointError(f"{checkpoint.name} lacks tokenizer.json: download it whole")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise CheckpointError(
                f"{checkpoint.name}: tokenizer.json can't be read ({error}): download it again"
            ) from error
        self.audio_id = self._id(AUDIO)
        if self.audio_id != checkpoint.config.audio_token_index:
            raise CheckpointError(
                f"{checkpoint.name}: the tokenizer has {AUDIO} as {self.audio_id}, config.json "
                f"says {checkpoint.config.audio_token_index}: they don't belong together"
            )
        stops = checkpoint.generation_config.get(
            "eos_token_id", checkpoint.text_config.eos_token_id
        )
        listed = stops if isinstance(stops, list) else [] if stops is None else [stops]
        turn_end = self._tokenizer.token_to_id(TURN_END)
        self.chat = turn_end in listed if chat is None else chat
        self._stops = frozenset(listed)
        self._turn_end = turn_end

    def stop_ids(self, chat: bool | None = None) -> frozenset[int]:
        """Where an answer ends: at the checkpoint's own stops, and in chat at the end of a turn."""
        in_turns = self.chat if chat is None else chat
        return self._stops | ({self._turn_end} if in_turns and self._turn_end else set())

    def render(self, prompt: str | None, chat: bool | None = None) -> str:
        """A question about one clip → the text that the model is given, `<|AUDIO|>` in its place.

        A prompt that holds `<|AUDIO|>` itself is taken as it is, markers, template and all.

        Args:
            chat: through the chat template or plain; unless given, as the checkpoint is asked.

        Raises:
            OptionError: if it holds `<|AUDIO|>` more than once, or is no text.
        """
        text = DEFAULT_PROMPT if prompt is None else prompt
        if not isinstance(text, str):
            raise OptionError(f"prompt={text!r:.60} is not text")
        if text.count(AUDIO) > 1:
            raise OptionError(
                f"the prompt holds {AUDIO} {text.count(AUDIO)} times, but one clip is given: "
                "use chat() for several audios in one conversation"
            )
        if AUDIO in text:
            return text
        if self.chat if chat is None else chat:
            return self.render_chat([self.turn(text, audio=True)])
        return f"{AUDIO_BOS}{AUDIO}{AUDIO_EOS}{text}"

    def turn(self, prompt: str | None, *, audio: bool) -> Message:
        """A user's turn of a conversation, with or without the audio."""
        text = DEFAULT_PROMPT if prompt is None else prompt
        heard = [{"type": "audio", "audio": ""}] if audio else []
        return {"role": "user", "content": [*heard, {"type": "text", "text": text}]}

    def render_chat(self, messages: Sequence[Message]) -> str:
        """A conversation → text, by the checkpoint's template, ending where the answer begins.

        Raises:
            OptionError: if the template can't take the conversation.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            conversations: list[Any] = [list(messages)]
            prompt_text: Any = render_jinja_template(
                conversations, chat_template=self._template(), add_generation_prompt=True
            )
        except Exception as error:  # templates raise whatever they like
            raise OptionError(
                f"the conversation doesn't fit the chat template ({error}): give a list of "
                '{"role": …, "content": …}'
            ) from error
        return str(prompt_text[0][0])  # of (conversations, masks)

    def ids(self, prompt_text: str) -> tuple[int, ...]:
        """Token ids before the audio is merged: one `<|AUDIO|>` an audio."""
        return tuple(self._tokenizer.encode(prompt_text, add_special_tokens=False).ids)

    def merged(self, ids: Sequence[int], audio_tokens: Sequence[int]) -> tuple[int, ...]:
        """Each audio's single id repeated once per audio token, as the model reads it.

        Raises:
            OptionError: if there are more or fewer audios than places for them.
        """
        if ids.count(self.audio_id) != len(audio_tokens):
            raise OptionError(
                f"{len(audio_tokens)} audios, but the text has {ids.count(self.audio_id)} places "
                f"for them: give each as a part {{'type': 'audio', …}}, and keep {AUDIO} out of "
                "the text"
            )
        counts = iter(audio_tokens)
        return tuple(
            token for i in ids for token in ([i] * next(counts) if i == self.audio_id else [i])
        )

    def text(self, ids: Sequence[int]) -> str:
        """Token ids → text, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """One token as text, its space included; special ones by their names. Part of a character
        is �; an id that the tokenizer doesn't know is its number."""
        text = str(self._tokenizer.decode([token_id], skip_special_tokens=False))
        return text or f"<{token_id}>"

    def _template(self) -> str:
        """chat_template.jinja or .json, else transformers' default for Qwen2-Audio."""
        if (path := self._checkpoint.file("chat_template.jinja")) is not None:
            return path.read_text(encoding="utf-8")
        if (path := self._checkpoint.file("chat_template.json")) is not None:
            return str(json.loads(path.read_text(encoding="utf-8"))["chat_template"])
        from transformers import Qwen2AudioProcessor

        constant: Any = Qwen2AudioProcessor.default_chat_template  # kept as a property
        return str(constant.fget(None))

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"{self._checkpoint.name}: the tokenizer lacks {token}: it is not Qwen2-Audio's"
            )
        return int(found)


def audio_parts(messages: Sequence[Any]) -> Iterator[Any]:
    """The audio inputs of a conversation, in order.

    Raises:
        OptionError: where a message holds anything but text and audio, which no template renders.
    """
    if not messages:
        raise OptionError("the conversation is empty: give at least one turn of the user's")
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str | list | tuple) or "role" not in message:
            raise OptionError(
                f"{message!r:.80} is no message: give {{'role': …, 'content': …}} for each turn, "
                "the content a text or a list of parts"
            )
        if message["role"] not in ROLES or not content:
            raise OptionError(
                f"{message!r:.80}: the role is one of {', '.join(ROLES)}, the content not empty"
            )
        for part in () if isinstance(content, str) else content:
            keys = part.keys() if isinstance(part, Mapping) else set()
            if keys & set(AUDIO_KEYS) or (keys and part.get("type") == "audio"):
                given = [part[key] for key in AUDIO_KEYS if key in keys]
                if len(given) != 1:
                    raise OptionError(
                        f"an audio part needs one of {', '.join(AUDIO_KEYS)}, not {sorted(part)}"
                    )
                if "text" in keys:
                    raise OptionError(
                        f"{part!r:.80} holds audio and text, of which a template renders one: "
                        "give them as two parts"
                    )
                yield given[0]
            elif "text" not in keys:
                raise OptionError(
                    f"{part!r:.80} is neither text nor audio: give {{'type': 'text', 'text': …}} "
                    "or {'type': 'audio', 'audio': …}"
                )
    if messages[-1]["role"] != "user":
        raise OptionError(
            f"the conversation ends with the {messages[-1]['role']}'s turn: end it with the "
            "user's, to which the answer is given"
        )
