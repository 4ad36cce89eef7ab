"""Control tokens in prompts: those of the format are tokens, those that a user types are text.

In the text of a rendered prompt `<|im_end|>` is a control token, and `<\\|im_end|>` is the text
`<|im_end|>`: one more backslash after the first character than in the text that it stands for. So
the rendered prompt, which embedding specs store, says exactly which token ids it has.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from qwen_audio.errors import text_option

__all__ = ["ControlTokens"]

_FORM = r"<\\*\|[^<>|]{1,64}\|>"
_UNRENDERED_KEYS = frozenset({"role", "type", "audio", "audio_url", "url", "path"})


class ControlTokens:
    """The control tokens of a tokenizer, found in prompts and escaped in what users type.

    Args:
        names: of control tokens that the tokenizer may not declare as such.
    """

    def __init__(self, tokenizer: Tokenizer, names: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        declared = (t for t in tokenizer.get_added_tokens_decoder().values() if t.special)
        texts = {token.content for token in declared}
        texts |= {name for name in names if tokenizer.token_to_id(name) is not None}
        self._ids: dict[str, Any] = {text: tokenizer.token_to_id(text) for text in texts if text}
        self._id_set = frozenset(self._ids.values())
        # Checkpoints have thousands, nearly all of this form: one pattern, and a look-up.
        others = [text for text in self._ids if not re.fullmatch(_FORM, text)]
        bodies = [
            f"{re.escape(t[0])}\\\\*{re.escape(t[1:])}" for t in sorted(others, key=len)[::-1]
        ]
        self._pattern = re.compile("|".join([_FORM, *bodies]))

    def escape(self, *texts: str) -> list[str]:
        """The same texts without control tokens, also where they follow one another directly."""
        ends = list(itertools.accumulate(map(len, texts)))
        characters = list("".join(texts))
        for match, _ in self._find("".join(texts)):
            characters[match.start()] += "\\"
        starts = [0, *ends]
        return ["".join(characters[a:b]) for a, b in zip(starts, ends, strict=False)]

    def escape_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A turn of a conversation, with every text in it escaped.

        Raises:
            OptionError: for a text that is none: see `text_option`.
        """
        content = message["content"]
        if isinstance(content, str):
            text_option("a message's content", content)
            return {**message, "content": self.escape(content)[0]}
        texts = {
            (number, key): value
            for number, part in enumerate(content)
            for key, value in part.items()
            if key == "text" or (isinstance(value, str) and key not in _UNRENDERED_KEYS)
        }
        for text in texts.values():
            text_option("a message's text", text)
        escaped = dict(zip(texts, self.escape(*texts.values()), strict=True))
        parts = [
            {key: escaped.get((number, key), value) for key, value in part.items()}
            for number, part in enumerate(content)
        ]
        return {**message, "content": parts}

    def encode(self, prompt_text: str) -> list[int]:
        """Token ids of a rendered prompt."""
        matches = list(self._find(prompt_text))
        control = [match for match, token in matches if match[0] == token]
        if len(control) == len(matches):
            ids = self._encode(self._tokenizer, prompt_text)
            # More, where the tokenizer normalises other text to a control token.
            if sum(token in self._id_set for token in ids) == len(control):
                return ids
        ids, end = [], 0
        for match in control:
            ids += self._encode_text(prompt_text[end : match.start()])
            ids += [self._ids[match[0]]]
            end = match.end()
        return ids + self._encode_text(prompt_text[end:])

    def _encode_text(self, text: str) -> list[int]:
        """Text between control tokens: escaped ones are those that were typed."""
        characters = list(text)
        for match, _ in self._find(text):
            characters[match.start() + 1] = ""
        return self._encode(self._text_tokenizer, "".join(characters))

    def _find(self, text: str) -> Iterator[tuple[re.Match[str], str]]:
        """Control tokens in a text, as they are or escaped, and which they are."""
        for match in self._pattern.finditer(text):
            token = match[0][0] + match[0][1:].lstrip("\\")
            if token in self._ids:
                yield match, token

    @cached_property
    def _text_tokenizer(self) -> Tokenizer:
        """The tokenizer, without control tokens."""
        tokenizer = copy.deepcopy(self._tokenizer)
        tokenizer.add_special_tokens(list(self._ids))
        tokenizer.encode_special_tokens = True
        return tokenizer

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
