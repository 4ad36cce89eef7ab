"""An answer as the Ask tab shows it: text, how it was asked, and what the model was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import counted

if TYPE_CHECKING:
    from qwen_audio import AudioSession, Description, Window

__all__ = ["GivenAnswer", "prompt_style"]


def prompt_style(is_chat: bool) -> str:
    """How a question is put to the model, in words."""
    return "chat template" if is_chat else "plain prompt"


@dataclass(eq=False)
class GivenAnswer:
    """A question and its answer, also while it is generated.

    Attributes:
        number: the page's, of the question.
        is_conversation: whether it is a turn of a conversation, and not asked alone.
        is_chat: whether it was asked through the chat template.
        part: the seconds that it is about; None: the whole recording.
        last_tap: the deepest of the model.
        text: as far as it has been generated.
        answer: once it is complete.
        turn: of the conversation, from 1 on.
        prompts: rendered, one for each window of the model.
        windows: of the model, each of which is asked.
        is_cached: whether the audio had been encoded for an earlier question.
        is_stopped: whether the visitor has ended it.
        were_turns_dropped: whether it begins a conversation because the audio of the one before
            it was no longer in memory.
    """

    number: int
    question: str
    is_conversation: bool
    is_chat: bool
    part: Window | None
    last_tap: str
    text: str = ""
    answer: Description | None = None
    turn: int = 1
    prompts: list[str] = field(default_factory=list)
    windows: tuple[Window, ...] = ()
    is_cached: bool = False
    is_stopped: bool = False
    were_turns_dropped: bool = False
    first_token_seconds: float | None = None
    seconds: float | None = None

    def begin(
        self, audio_session: AudioSession, question: str | None, turn: int, **options: Any
    ) -> None:
        """Before it is generated: what the model is asked, with the options of `ask`."""
        self.turn, self.windows = turn, audio_session.windows
        self.prompts = audio_session.prompts(question, **options)

    def update(self) -> dict[str, Any]:
        """What the page is sent while it is generated."""
        answer = {"number": self.number, "lines": self._lines()}
        return {"partial": True, "answer": answer}

    def payload(self) -> dict[str, Any]:
        """All that the page shows of it."""
        start = None if self.part is None else self.part.start_seconds
        return {
            "number": self.number,
            "question": self.question,
            "lines": self._lines(),
            "text": self.text,
            "is_conversation": self.is_conversation,
            "turn": self.turn,
            "style": prompt_style(self.is_chat),
            "prompt": self.prompts[0] if self.prompts else "",
            "windows": len(self.windows),
            "part": None if self.part is None else [start, self.part.end_seconds],
            "is_stopped": self.is_stopped,
            "cut_off": self._cut_off(),
            "note": "The earlier turns are not part of it: their audio was no longer in memory."
            if self.were_turns_dropped
            else None,
            "facts": self._facts(),
        }

    def _lines(self) -> list[dict[str, Any]]:
        """Each line, with the time of its window where there are several."""
        starts = {str(window): window.start_seconds for window in self.windows}
        lines = []
        for line in self.text.splitlines():
            time, gap, text = line.partition("  ")
            if len(self.windows) > 1 and gap and time in starts:
                lines.append({"time": time, "seconds": starts[time], "text": text})
            else:
                lines.append({"text": line})
        return lines

    def _cut_off(self) -> str | None:
        """Why generation did not end by itself, in words."""
        if self.answer is None or self.answer.complete:
            return None
        ends = {each.ended_by for each in self.answer.answers}
        if "context" in ends:
            return "Cut off: the model reads no more text than this."
        longest = max(len(each.token_ids) for each in self.answer.answers)
        return f"Cut off at the limit of this page, {counted(longest, 'token')}."

    def _facts(self) -> list[tuple[str, str]]:
        """What the model was given, what it generated, and how long it took."""
        facts: list[tuple[str, str]] = []
        if self.windows:
            length = self.windows[-1].end_seconds - self.windows[0].start_seconds
            in_windows = f" in {len(self.windows)} windows" if len(self.windows) > 1 else ""
            encoded = "encoded earlier" if self.is_cached else "encoded now"
            facts.append(("audio", f"{length:.2f} s{in_windows}, {encoded}"))
        if self.answer is not None:
            answers = self.answer.answers
            generated = counted(sum(len(answer.token_ids) for answer in answers), "token")
            facts += [
                ("audio tokens", str(sum(answer.audio_tokens for answer in answers))),
                ("prompt tokens", str(sum(answer.prompt_tokens for answer in answers))),
                ("generated", f"{generated}{'' if self.answer.complete else ', cut off'}"),
                ("layers", f"mel → {self.last_tap} → text"),
                ("dtype", answers[0].dtype),
            ]
        if self.first_token_seconds is not None:
            facts.append(("first token", f"{self.first_token_seconds:.2f} s"))
        if self.seconds is not None:
            facts.append(("total", f"{self.seconds:.2f} s"))
        return facts
