"""Prompts, plain or through the chat template, to token ids with audio placeholders; and back.

A base checkpoint takes a plain prompt, its markers around the audio and a text; an Instruct
checkpoint takes its chat template. generation_config.json tells them apart: an Instruct checkpoint
lists the end of a turn, such as `<|im_end|>`, among its eos_token_id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_audio.errors import CheckpointError, OptionError, text_option
from qwen_audio.models.checkpoint_files import CheckpointFiles
from qwen_audio.models.processor_files import PROCESSOR_CONFIG
from qwen_audio.weights.json_file import parse_json

from .control_tokens import ControlTokens
from .conversation import Message
from .prompt_format import PromptFormat
from .tokenizer_files import read_tokenizer, token_bytes

__all__ = ["PromptTokenizer"]


class PromptTokenizer:
    """A checkpoint's tokenizer and prompt format.

    Args:
        audio_token_id: of the placeholder, as config.json has it.
        eos_token_id: what ends a text where generation_config.json doesn't say.
        chat: whether prompts go through the chat template; None: as generation_config.json implies.

    Attributes:
        format: of the prompts.
        audio_token_id: id of the audio placeholder.
        uses_chat_template: whether prompts go through the chat template by default.

    Raises:
        CheckpointError: if the tokenizer is missing, or lacks the placeholder or the markers around
            it.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        prompt_format: PromptFormat,
        audio_token_id: int,
        eos_token_id: int | list[int] | None,
        chat: bool | None = None,
    ) -> None:
        self._files, self.format = files, prompt_format
        self._tokenizer = read_tokenizer(files)
        self.audio_token_id = self._token_id(prompt_format.audio)
        if self.audio_token_id != audio_token_id:
            raise CheckpointError(
                f"{files.name}: the tokenizer has {prompt_format.audio} as {self.audio_token_id}, "
                f"config.json says {audio_token_id}: they don't belong together"
            )
        self._around_rows = tuple(
            (self._token_id(marker),) if marker else ()
            for marker in (prompt_format.before_rows, prompt_format.after_rows)
        )
        eos = files.generation_config.get("eos_token_id", eos_token_id)
        self._eos_token_ids = frozenset(
            eos if isinstance(eos, list) else [] if eos is None else [eos]
        )
        self._control_tokens = ControlTokens(
            self._tokenizer,
            [
                *prompt_format.control_tokens,
                *filter(None, map(self._tokenizer.id_to_token, self._eos_token_ids)),
            ],
        )
        self._turn_end_id = self._tokenizer.token_to_id(prompt_format.turn_end)
        is_trained = prompt_format.always_chat or self._turn_end_id in self._eos_token_ids
        self.uses_chat_template = is_trained if chat is None else chat

    def stop_token_ids(self, chat: bool | None = None) -> frozenset[int]:
        """Ids that end an answer: the checkpoint's eos_token_id and, in chat, a turn's end."""
        ends_turns = self.uses_chat_template if chat is None else chat
        return self._eos_token_ids | (
            {self._turn_end_id} if ends_turns and self._turn_end_id else set()
        )

    def render(self, prompt: str | None, chat: bool | None = None) -> str:
        """The full prompt text for one clip, with the placeholder where the audio goes.

        A raw prompt, one that contains the placeholder, is used verbatim, without template or
        markers. Control tokens in any other are text: see `control_tokens`.

        Args:
            prompt: None for the format's default.
            chat: through the chat template or plain; None: as `uses_chat_template`.

        Raises:
            OptionError: if it contains the placeholder more than once, is empty, or not text.
        """
        text, audio = self._checked(prompt), self.format.audio
        if text.count(audio) > 1:
            raise OptionError(
                f"the prompt contains {audio} {text.count(audio)} times, but one clip is given: "
                "in Python, chat() takes several audios in one conversation"
            )
        if self.is_raw(text):
            return text
        if self.uses_chat_template if chat is None else chat:
            return self.apply_chat_template(self.turns(prompt))
        return self._plain_audio + self._control_tokens.escape(text)[0]

    def is_raw(self, prompt: str | None) -> bool:
        """Whether a prompt says itself where the audio goes."""
        return isinstance(prompt, str) and self.format.audio in prompt

    def user_message(self, prompt: str | None, *, audio: bool) -> Message:
        """A user's turn of a conversation, with or without an audio part before the text.

        Raises:
            OptionError: for a prompt that is empty, or not text.
        """
        audio_part = [{"type": "audio", "audio": ""}] if audio else []
        text_part = {"type": "text", "text": self._checked(prompt)}
        return {"role": "user", "content": [*audio_part, text_part]}

    def turns(self, prompt: str | None, *, audio: bool = True) -> list[Message]:
        """What a prompt adds to a conversation: a user's turn, or, where the format says so, the
        system's with the prompt, and a user's of audio alone.

        Raises:
            OptionError: for a prompt that is empty, not text, or can't follow an answer.
        """
        if not self.format.is_context:
            return [self.user_message(prompt, audio=audio)]
        if not audio:
            raise OptionError(
                f"{self.format.title} answers audio, and no question that follows: ask anew"
            )
        text = self._checked(prompt)
        context = [{"role": "system", "content": text}] if text else []
        return [*context, {"role": "user", "content": [{"type": "audio", "audio": ""}]}]

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """A conversation as prompt text, ending where the answer begins.

        Control tokens in its texts are text: see `control_tokens`.

        Raises:
            OptionError: if the template can't render the conversation, or a text is none.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.format.is_context and any(map(_is_text_of_user, messages)):
            raise OptionError(
                f"the chat template of {self.format.title} drops the text of a user's turn: give "
                'it as {"role": "system", "content": text}, before the audio'
            )
        try:
            conversations: list[Any] = [list(map(self._control_tokens.escape_message, messages))]
            prompt_text: Any = render_jinja_template(
                conversations, chat_template=self._template(), add_generation_prompt=True
            )
        except (CheckpointError, OptionError):
            raise
        except Exception as error:  # a template can raise anything
            raise OptionError(
                f"the conversation doesn't fit the chat template ({error}): give a list of "
                '{"role": …, "content": …}'
            ) from error
        return str(prompt_text[0][0])  # of (conversations, masks)

    def encode(self, prompt_text: str) -> tuple[int, ...]:
        """A rendered prompt's token ids, one placeholder per clip (see `expand_audio_tokens`)."""
        return tuple(self._control_tokens.encode(prompt_text))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that isn't a prompt: control tokens in it are text."""
        return tuple(self._control_tokens.encode(self._control_tokens.escape(text)[0]))

    def text_tokens(self, prompt_text: str) -> int:
        """Positions of a rendered prompt for one clip, without those of the audio."""
        audio_markers = sum(map(len, self._around_rows))
        return len(self.encode(prompt_text)) - 1 + audio_markers

    def expand_audio_tokens(
        self, token_ids: Sequence[int], audio_tokens: Sequence[int]
    ) -> tuple[int, ...]:
        """The model's input ids: the n-th placeholder repeated `audio_tokens[n]` times, between the
        format's markers.

        Raises:
            OptionError: if there are more or fewer clips than placeholders.
        """
        placeholders = token_ids.count(self.audio_token_id)
        if placeholders != len(audio_tokens):
            raise OptionError(
                f"{len(audio_tokens)} audios, but the prompt has {placeholders} placeholders "
                "for them: give each as a part {'type': 'audio', …}"
            )
        counts = iter(audio_tokens)
        before, after = self._around_rows
        return tuple(
            repeated
            for token in token_ids
            for repeated in (
                (*before, *[token] * next(counts), *after)
                if token == self.audio_token_id
                else (token,)
            )
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Token ids to text, without special tokens."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def decode_token(self, token_id: int) -> str:
        """One token as text, with its leading space; special tokens by name.

        An incomplete character is �; an id that the tokenizer doesn't know is `<id>`.
        """
        text = str(self._tokenizer.decode([token_id], skip_special_tokens=False))
        return text or f"<{token_id}>"

    def token_bytes(self, token_id: int) -> bytes | None:
        """The bytes of a token's text, also of an incomplete character; None if they aren't
        known."""
        return token_bytes(self._tokenizer, token_id)

    @property
    def _plain_audio(self) -> str:
        """The audio's place in a plain prompt."""
        audio = f"{self.format.before_audio}{self.format.audio}{self.format.after_audio}"
        return f"{self.format.text_start}{audio}"

    def _checked(self, prompt: str | None) -> str:
        text = self.format.default_prompt if prompt is None else prompt
        text_option("prompt", text)
        if (not text and prompt is not None) or text.isspace():
            raise OptionError(
                f"prompt={text!r:.60} is empty: give a text, leave it out for the default, or give "
                f"{self._plain_audio} for the audio alone"
            )
        return text

    def _template(self) -> str:
        """The processor's template as transformers finds it, else the format's default.

        (A template in tokenizer_config.json is for text alone; the processor doesn't use it.)
        """
        for name in (PROCESSOR_CONFIG, "chat_template.json"):
            path = self._files.file(name)
            template = None if path is None else parse_json(path).get("chat_template")
            if isinstance(template, dict):  # several, by name
                template = template.get("default")
            if isinstance(template, str):
                return template
        if (path := self._files.file("chat_template.jinja")) is not None:
            return path.read_text(encoding="utf-8")
        if self.format.default_template is None:
            raise CheckpointError(
                f"{self._files.name} has no chat template (chat_template.jinja): save the "
                "processor beside the weights, or use a plain prompt with chat=False"
            )
        return self.format.default_template()

    def _token_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(
                f"{self._files.name}: the tokenizer lacks {token}: it is not {self.format.title}'s"
            )
        return int(token_id)


def _is_text_of_user(message: Message) -> bool:
    """Whether a user's turn has more than audio."""
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    return bool(message["role"] == "user" and any(texts))
