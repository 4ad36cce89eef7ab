"""How a family's prompts are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["DEFAULT_PROMPT", "PromptFormat"]

DEFAULT_PROMPT = "Describe the music:"


@dataclass(frozen=True)
class PromptFormat:
    """How a family's prompts are written.

    Attributes:
        title: of the family, for error messages.
        audio: the placeholder for audio.
        before_audio, after_audio: markers around it in a plain prompt.
        before_rows, after_rows: markers that are put around the placeholders of each audio when
            they are repeated, whatever the prompt.
        turn_start, turn_end: markers of the chat template.
        always_chat: whether all checkpoints take the chat template.
        default_prompt: of captions; empty: the audio alone.
        transcription_prompt: what asks for a transcription; None where the family has no such.
        language_end: what follows the language with which transcriptions begin; empty: they don't.
        is_context: whether a prompt is the system's turn, as the template drops the text of users.
        default_template: the chat template of a checkpoint that has none.
        text_start: what a text begins with that isn't a conversation.
    """

    title: str
    audio: str
    before_audio: str = ""
    after_audio: str = ""
    before_rows: str = ""
    after_rows: str = ""
    turn_start: str = "<|im_start|>"
    turn_end: str = "<|im_end|>"
    always_chat: bool = False
    default_prompt: str = DEFAULT_PROMPT
    transcription_prompt: str | None = None
    language_end: str = ""
    is_context: bool = False
    default_template: Callable[[], str] | None = None
    text_start: str = ""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """Names of tokens that are the format's, whatever the tokenizer says of them."""
        markers = (self.before_audio, self.after_audio, self.before_rows, self.after_rows)
        turns = (self.text_start, self.turn_start, self.turn_end)
        return tuple(filter(None, (self.audio, *markers, *turns)))
