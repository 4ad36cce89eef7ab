"""Generated text, with what the model was given for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from qwen_audio.audio.window import Window
from qwen_audio.inference.html_table import html_table
from qwen_audio.inference.options import AnswerEnd

__all__ = ["Answer", "Description"]


@dataclass(frozen=True)
class Answer:
    """One answer about one window.

    Attributes:
        text: without special tokens, stripped.
        window: the part of the recording that the model was given.
        audio_tokens, prompt_tokens: positions of the input; audio markers count as prompt.
        token_ids: generated, the stop token included.
        complete: whether generation ended by itself; False: it was cut off.
        ended_by: "stop token" (by itself), "max_new_tokens", or "context": prompt and answer have
            as many positions as the model reads.
        dtype: of the computation ("float32", "bfloat16").
    """

    text: str
    window: Window
    audio_tokens: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    complete: bool
    ended_by: AnswerEnd
    dtype: str

    def _repr_html_(self) -> str:
        return _answers_table("Answer", [self])


class Description(str):
    """A str with the answers it was made of.

    As a string it is the answer, or, for a recording of several windows, a line for each that
    begins with the window's time.

    Attributes:
        name: of the recording.
        answers: one for each window.
        notes: what was left out of the file: other audio tracks, damaged parts.
    """

    name: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]

    def __new__(
        cls, name: str, answers: Sequence[Answer], notes: Sequence[str] = ()
    ) -> Description:
        """Join the answers about the recording called `name`."""
        lines = [
            f"{prefix(answer.window, is_only=len(answers) == 1)}{answer.text}" for answer in answers
        ]
        self = super().__new__(cls, "\n".join(lines))
        self.name, self.answers, self.notes = name, tuple(answers), tuple(notes)
        return self

    def __getnewargs__(  # type: ignore[override]
        self,
    ) -> tuple[str, tuple[Answer, ...], tuple[str, ...]]:
        return self.name, self.answers, self.notes

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return _answers_table(self.name, self.answers) + notes

    @property
    def complete(self) -> bool:
        """Whether no answer was cut off; `Answer.ended_by` says by what."""
        return all(answer.complete for answer in self.answers)


def _answers_table(caption: str, answers: Sequence[Answer]) -> str:
    rows = [
        (answer.window, answer.text, answer.audio_tokens, answer.prompt_tokens, answer.complete)
        for answer in answers
    ]
    columns = ("window", "text", "audio tokens", "prompt tokens", "complete")
    return html_table(columns, rows, caption)


def prefix(window: Window, *, is_only: bool) -> str:
    """The start of an answer's line: its window's time, unless there is just one window."""
    return "" if is_only else f"{window}  "
