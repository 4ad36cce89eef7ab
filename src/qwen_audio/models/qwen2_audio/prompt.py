"""Prompts, plain or through the chat template, to token ids with audio placeholders; and back.

A base checkpoint takes a plain prompt, `<|audio_bos|><|AUDIO|><|audio_eos|>Describe the music:`; an
Instruct checkpoint takes its chat template. generation_config.json tells them apart: an Instruct
checkpoint lists `<|im_end|>`, the end of a turn, among its eos_token_id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from qwen_audio.errors import CheckpointError, OptionError, text_option
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.processor_files import PROCESSOR_CONFIG, SLOW_TOKENIZER, TOKENIZER
from qwen_audio.weights.json_file import parse_json

from .control_tokens import ControlTokens

__all__ = ["DEFAULT_PROMPT", "Message", "PromptTokenizer", "audio_inputs"]

DEFAULT_PROMPT = "Describe the music:"

Message = Mapping[str, Any]
"""One turn in transformers' format: {"role": "user", "content": text or a list of parts}."""

AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
AUDIO_KEYS = ("audio", "audio_url", "url", "path")
"""Keys under which the audio part of a message may give its audio; exactly one is used."""

ROLES = ("system", "user", "assistant")
"""Roles that the chat template knows."""


class PromptTokenizer:
    """A checkpoint's tokenizer and prompt format.

    Args:
        chat: whether prompts go through the chat template; None: as generation_config.json implies.

    Attributes:
        audio_token_id: id of `<|AUDIO|>`.
        uses_chat_template: whether prompts go through the chat template by default.

    Raises:
        CheckpointError: if the tokenizer is missing or lacks `<|AUDIO|>`.
    """

    def __init__(self, checkpoint: Checkpoint, chat: bool | None = None) -> None:
        self._checkpoint = checkpoint
        self._tokenizer = _read_tokenizer(checkpoint)
        self.audio_token_id = self._token_id(AUDIO)
        if self.audio_token_id != checkpoint.config.audio_token_index:
            raise CheckpointError(
                f"{checkpoint.name}: the tokenizer has {AUDIO} as {self.audio_token_id}, "
                f"config.json says {checkpoint.config.audio_token_index}: they don't belong "
                "together"
            )
        eos = checkpoint.generation_config.get("eos_token_id", checkpoint.text_config.eos_token_id)
        self._eos_token_ids = frozenset(
            eos if isinstance(eos, list) else [] if eos is None else [eos]
        )
        self._control_tokens = ControlTokens(
            self._tokenizer,
            [
                *(AUDIO, AUDIO_BOS, AUDIO_EOS, TURN_START, TURN_END),
                *filter(None, map(self._tokenizer.id_to_token, self._eos_token_ids)),
            ],
        )
        self._turn_end_id = self._tokenizer.token_to_id(TURN_END)
        self.uses_chat_template = self._turn_end_id in self._eos_token_ids if chat is None else chat

    def stop_token_ids(self, chat: bool | None = None) -> frozenset[int]:
        """Ids that end an answer: the checkpoint's eos_token_id and, in chat, `<|im_end|>`."""
        ends_turns = self.uses_chat_template if chat is None else chat
        return self._eos_token_ids | (
            {self._turn_end_id} if ends_turns and self._turn_end_id else set()
        )

    def render(self, prompt: str | None, chat: bool | None = None) -> str:
        """The full prompt text for one clip, with `<|AUDIO|>` where the audio goes.

        A raw prompt, one that contains `<|AUDIO|>`, is used verbatim, without template or markers.
        Control tokens in any other are text: see `control_tokens`.

        Args:
            prompt: None for `DEFAULT_PROMPT`.
            chat: through the chat template or plain; None: as `uses_chat_template`.

        Raises:
            OptionError: if it contains `<|AUDIO|>` more than once, is empty, or not text.
        """
        text = _checked(prompt)
        if text.count(AUDIO) > 1:
            raise OptionError(
                f"the prompt contains {AUDIO} {text.count(AUDIO)} times, but one clip is given: "
                "in Python, chat() takes several audios in one conversation"
            )
        if self.is_raw(text):
            return text
        if self.uses_chat_template if chat is None else chat:
            return self.apply_chat_template([self.user_message(text, audio=True)])
        return f"{AUDIO_BOS}{AUDIO}{AUDIO_EOS}{self._control_tokens.escape(text)[0]}"

    def is_raw(self, prompt: str | None) -> bool:
        """Whether a prompt says itself where the audio goes."""
        return isinstance(prompt, str) and AUDIO in prompt

    def user_message(self, prompt: str | None, *, audio: bool) -> Message:
        """A user's turn of a conversation, with or without an audio part before the text.

        Raises:
            OptionError: for a prompt that is empty, or not text.
        """
        audio_part = [{"type": "audio", "audio": ""}] if audio else []
        text_part = {"type": "text", "text": _checked(prompt)}
        return {"role": "user", "content": [*audio_part, text_part]}

    def apply_chat_template(self, messages: Sequence[Message]) -> str:
        """A conversation as prompt text, ending where the answer begins.

        Control tokens in its texts are text: see `control_tokens`.

        Raises:
            OptionError: if the template can't render the conversation, or a text is none.
        """
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            conversations: list[Any] = [list(map(self._control_tokens.escape_message, messages))]
            prompt_text: Any = render_jinja_template(
                conversations, chat_template=self._template(), add_generation_prompt=True
            )
        except OptionError:
            raise
        except Exception as error:  # a template can raise anything
            raise OptionError(
                f"the conversation doesn't fit the chat template ({error}): give a list of "
                '{"role": …, "content": …}'
            ) from error
        return str(prompt_text[0][0])  # of (conversations, masks)

    def encode(self, prompt_text: str) -> tuple[int, ...]:
        """A rendered prompt's token ids, one `<|AUDIO|>` per clip (see `expand_audio_tokens`)."""
        return tuple(self._control_tokens.encode(prompt_text))

    def expand_audio_tokens(
        self, token_ids: Sequence[int], audio_tokens: Sequence[int]
    ) -> tuple[int, ...]:
        """The model's input ids: the n-th `<|AUDIO|>` repeated `audio_tokens[n]` times.

        Raises:
            OptionError: if there are more or fewer clips than `<|AUDIO|>` tokens.
        """
        placeholders = token_ids.count(self.audio_token_id)
        if placeholders != len(audio_tokens):
            raise OptionError(
                f"{len(audio_tokens)} audios, but the prompt has {placeholders} placeholders "
                "for them: give each as a part {'type': 'audio', …}"
            )
        counts = iter(audio_tokens)
        return tuple(
            repeated
            for token in token_ids
            for repeated in ([token] * next(counts) if token == self.audio_token_id else [token])
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

    def _template(self) -> str:
        """The processor's template as transformers finds it, else its default for Qwen2-Audio.

        (A template in tokenizer_config.json is for text alone; the processor doesn't use it.)
        """
        for name in (PROCESSOR_CONFIG, "chat_template.json"):
            path = self._checkpoint.file(name)
            template = None if path is None else parse_json(path).get("chat_template")
            if isinstance(template, dict):  # several, by name
                template = template.get("default")
            if isinstance(template, str):
                return template
        if (path := self._checkpoint.file("chat_template.jinja")) is not None:
            return path.read_text(encoding="utf-8")
        from transformers import Qwen2AudioProcessor

        default: Any = Qwen2AudioProcessor.default_chat_template  # a property that uses no state
        return str(default.fget(None))

    def _token_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise CheckpointError(
                f"{self._checkpoint.name}: the tokenizer lacks {token}: it is not Qwen2-Audio's"
            )
        return int(token_id)


def _checked(prompt: str | None) -> str:
    text = DEFAULT_PROMPT if prompt is None else prompt
    text_option("prompt", text)
    if not text or text.isspace():
        raise OptionError(
            f"prompt={text!r:.60} is empty: give a text, leave it out for the default, or give "
            f"{AUDIO_BOS}{AUDIO}{AUDIO_EOS} for the audio alone"
        )
    return text


def _read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """From tokenizer.json, or from the files of a tokenizer that was saved without."""
    files = TOKENIZER if (path := checkpoint.file(TOKENIZER)) else "vocab.json and merges.txt"
    for name in () if path else SLOW_TOKENIZER:
        checkpoint.file(name)
    try:
        if path is not None:
            return Tokenizer.from_buffer(path.read_bytes())  # from_file takes no non-UTF-8 path
        from transformers import Qwen2Tokenizer

        slow: Any = Qwen2Tokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    except Exception as error:  # neither library raises anything narrower
        raise CheckpointError(
            f"{checkpoint.name}: {files} can't be read ({error}): download it again"
        ) from error
    return slow.backend_tokenizer


def audio_inputs(messages: Sequence[Any]) -> Iterator[Any]:
    """The audio inputs of a conversation, in order.

    Raises:
        OptionError: for an empty or malformed conversation, one that doesn't end with the user's
            turn, or a part that is neither text nor audio, which the template would drop.
    """
    if not messages:
        raise OptionError("the conversation is empty: give at least one user turn")
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, str | list | tuple) or "role" not in message:
            raise OptionError(
                f"{message!r:.80} is not a message: give {{'role': …, 'content': …}} for each "
                "turn, with content a text or a list of parts"
            )
        if message["role"] not in ROLES or not content:
            raise OptionError(
                f"{message!r:.80}: use a role of {', '.join(ROLES)}, and content that is not empty"
            )
        for part in () if isinstance(content, str) else content:
            keys = part.keys() if isinstance(part, Mapping) else set()
            if keys & set(AUDIO_KEYS) or (keys and part.get("type") == "audio"):
                audios = [part[key] for key in AUDIO_KEYS if key in keys]
                if len(audios) != 1:
                    raise OptionError(
                        f"an audio part needs one of {', '.join(AUDIO_KEYS)}, not {sorted(part)}"
                    )
                if "text" in keys:
                    raise OptionError(
                        f"{part!r:.80} has audio and text, of which a template renders one: "
                        "give them as two parts"
                    )
                yield audios[0]
            elif "text" not in keys:
                raise OptionError(
                    f"{part!r:.80} is neither text nor audio: give {{'type': 'text', 'text': …}} "
                    "or {'type': 'audio', 'audio': …}"
                )
    if messages[-1]["role"] != "user":
        raise OptionError(
            f"the conversation ends with the {messages[-1]['role']}'s turn: end it with a user "
            "turn for the model to answer"
        )
