"""What the model said, and what it had heard when it said it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_audio.audio.window import Window

__all__ = ["Answer", "Description"]


@dataclass(frozen=True)
class Answer:
    """One answer about one window.

    Attributes:
        text: without special tokens, stripped.
        window: the seconds of the recording that were heard for it.
        audio_tokens, prompt_tokens: what the model was given; text markers count as prompt.
        token_ids: what it said, the stopping token included.
        complete: whether it stopped by itself; False: it was cut off at max_new_tokens.
        dtype: of the arithmetic ("float32", "bfloat16").
    """

    text: str
    window: Window
    audio_tokens: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    complete: bool
    dtype: str


class Description(str):
    """A text that knows what it is about.

    As a string it is the answer, or, where a recording was heard in several windows, one line each
    that begins with the window's time.

    Attributes:
        name: of the recording.
        answers: one a window.
    """

    name: str
    answers: tuple[Answer, ...]

    def __new__(cls, name: str, answers: Sequence[Answer]) -> Description:
        """Join the answers about the recording called `name`."""
        lines = [f"{prefix(answer.window, len(answers))}{answer.text}" for answer in answers]
        self = super().__new__(cls, "\n".join(lines))
        self.name, self.answers = name, tuple(answers)
        return self

    def __getnewargs__(self) -> tuple[str, tuple[Answer, ...]]:  # type: ignore[override]
        return self.name, self.answers

    @property
    def complete(self) -> bool:
        """Whether no answer was cut off at max_new_tokens."""
        return all(answer.complete for answer in self.answers)


def prefix(window: Window, windows: int) -> str:
    """What an answer's line begins with: its window's time, unless there is just one window."""
    return f"{window}  " if windows > 1 else ""
