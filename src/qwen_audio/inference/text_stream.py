"""Text of tokens as they are generated, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_audio.models.components.prompt import PromptTokenizer

__all__ = ["TextStream"]


class TextStream:
    """Emits text as soon as its tokens form whole characters.

    The pieces emitted add up to the final text: whitespace at both ends is held back.
    """

    def __init__(self, tokenizer: PromptTokenizer, emit: Callable[[str], None]) -> None:
        self._tokenizer, self._emit = tokenizer, emit
        self._emitted = ""

    def update(self, token_ids: Sequence[int]) -> None:
        """Called with all tokens so far."""
        text = self._tokenizer.decode(token_ids).strip()
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.finish(text)

    def finish(self, text: str) -> None:
        """Emit the part of the text that has not been emitted yet."""
        if len(text) > len(self._emitted):
            self._emit(text[len(self._emitted) :])
            self._emitted = text
