"""Generated text, with what the model was given for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from qwen_audio.audio.timecode import format_range
from qwen_audio.inference.html_table import html_table
from qwen_audio.inference.options import AnswerEnd

__all__ = ["Answer", "Description"]


@dataclass(frozen=True)
class Answer:
    """One answer about one window.

    Attributes:
        text: without special tokens, stripped.
        source: the recording: its path, or its name; of a conversation, all of them.
        window: the number of the window that the model was given, from 0 on.
        start_seconds, end_seconds: of that window, in the recording.
        audio_tokens, prompt_tokens: positions of the input that hold audio, and its text; audio
            markers count as prompt.
        token_ids: generated, the stop token included.
        complete: whether generation ended by itself; False: it was cut off.
        ended_by: "stop token" (by itself), "max_new_tokens", or "context": prompt and answer have
            as many positions as the model reads.
        dtype: of the computation ("float32", "bfloat16").
        padding_tokens: positions of the input that hold padding, with which some families fill up
            short audio.
        edits: that it was made under, as embedding specs have them; None: none.
    """

    text: str
    source: str
    window: int
    start_seconds: float
    end_seconds: float
    audio_tokens: int
    prompt_tokens: int
    token_ids: tuple[int, ...]
    complete: bool
    ended_by: AnswerEnd
    dtype: str
    padding_tokens: int = 0
    edits: str | None = None

    def facts(self) -> dict[str, Any]:
        """All fields by name, as JSON can hold them; without `edits` where there are none."""
        fields = asdict(self)
        return (
            fields if self.edits is not None else {k: v for k, v in fields.items() if k != "edits"}
        )

    def _repr_html_(self) -> str:
        return _answers_table("Answer", [self])


class Description(str):
    """A str with the answers it was made of.

    As a string it is the answer, or, for a recording of several windows, a line for each that
    begins with the window's time.

    Attributes:
        source: the recording: its path, or its name.
        answers: one for each window.
        notes: what was left out of the file: other audio tracks, damaged parts.
    """

    source: str
    answers: tuple[Answer, ...]
    notes: tuple[str, ...]

    def __new__(
        cls, source: str, answers: Sequence[Answer], notes: Sequence[str] = ()
    ) -> Description:
        """Join the answers about a recording."""
        lines = [
            prefix(answer.start_seconds, answer.end_seconds, is_only=len(answers) == 1)
            + answer.text
            for answer in answers
        ]
        self = super().__new__(cls, "\n".join(lines))
        self.source, self.answers, self.notes = source, tuple(answers), tuple(notes)
        return self

    def __getnewargs__(  # type: ignore[override]
        self,
    ) -> tuple[str, tuple[Answer, ...], tuple[str, ...]]:
        return self.source, self.answers, self.notes

    def _repr_html_(self) -> str:
        edits = () if self.edits is None else (f"edits: {self.edits}",)
        notes = "".join(f"<p>{escape(note)}</p>" for note in (*edits, *self.notes))
        return _answers_table(self.source, self.answers) + notes

    @property
    def edits(self) -> str | None:
        """That it was made under, as embedding specs have them; None: none."""
        return self.answers[0].edits

    @property
    def complete(self) -> bool:
        """Whether no answer was cut off; `Answer.ended_by` says by what."""
        return all(answer.complete for answer in self.answers)


def _answers_table(caption: str, answers: Sequence[Answer]) -> str:
    rows = [
        (
            answer.window,
            format_range(answer.start_seconds, answer.end_seconds),
            answer.text,
            answer.audio_tokens,
            answer.prompt_tokens,
            answer.complete,
        )
        for answer in answers
    ]
    columns = ("window", "time", "text", "audio tokens", "prompt tokens", "complete")
    return html_table(columns, rows, caption)


def prefix(start_seconds: float, end_seconds: float, *, is_only: bool) -> str:
    """The start of an answer's line: its window's time, unless there is just one window."""
    return "" if is_only else f"{format_range(start_seconds, end_seconds)}  "
