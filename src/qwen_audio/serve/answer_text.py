"""The text of an answer as its tokens come, up to the first of some texts that end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_audio.models.components.prompt import PromptTokenizer

__all__ = ["AnswerText"]


class AnswerText:
    """Text of tokens, stripped, that ends before the first of the stop texts in it.

    Args:
        stops: texts that end it.
        emit: called with pieces as soon as they are certain: of whole characters, and no part of a
            stop text. Together they are the text. None: nobody reads it meanwhile.

    Attributes:
        text: as of the last update.
        is_stopped: whether a stop text occurred.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        stops: Sequence[str] = (),
        emit: Callable[[str], None] | None = None,
    ) -> None:
        self._tokenizer, self._stops, self._emit = tokenizer, tuple(stops), emit
        self._emitted = 0
        self.text, self.is_stopped = "", False

    def update(self, token_ids: Sequence[int], *, is_last: bool) -> None:
        """Called after each token with all of them.

        Args:
            is_last: whether no tokens follow.
        """
        if not (is_last or self._stops or self._emit):
            return  # decoding takes time that grows with the text
        self.text = self._tokenizer.decode(token_ids).strip()
        found = [place for stop in self._stops if (place := self.text.find(stop)) >= 0]
        if found:
            self.text, self.is_stopped = self.text[: min(found)].strip(), True
        if self._emit is not None:
            self._emit_until(len(self.text) if is_last or found else self._certain())

    def _certain(self) -> int:
        """How many characters no later token changes."""
        if self.text.endswith("\N{REPLACEMENT CHARACTER}"):  # a part of a character
            return 0
        held = max(map(self._begun, self._stops), default=0)
        return len(self.text[: len(self.text) - held].rstrip())

    def _begun(self, stop: str) -> int:
        """How many characters at the end of the text may be the beginning of a stop text."""
        lengths = range(min(len(stop) - 1, len(self.text)), 0, -1)
        return next((length for length in lengths if self.text.endswith(stop[:length])), 0)

    def _emit_until(self, end: int) -> None:
        if self._emit is not None and end > self._emitted:
            piece, self._emitted = self.text[self._emitted : end], end
            self._emit(piece)
