"""Questions that a checkpoint suggests, in a file beside its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_audio import CheckpointError, QwenAudioError

if TYPE_CHECKING:
    from qwen_audio import AudioModel

__all__ = ["FILE_NAME", "MAX_QUESTION_CHARACTERS", "SuggestedQuestions", "suggested_questions"]

FILE_NAME = "suggested_questions.json"
MAX_QUESTION_CHARACTERS = 1000
_MAX_ABOUT_CHARACTERS = 400
_MAX_BYTES = 100_000
_MAX_SUGGESTIONS = 12
"""Of questions, of sets of choices, and of choices in a set: as many as a page shows at once."""


@dataclass(frozen=True)
class SuggestedQuestions:
    """What a page offers to ask.

    Attributes:
        about: what the checkpoint can and can't answer; None: it doesn't say.
        questions: to be answered.
        choices: questions, each with answers to choose from.
        note: why the checkpoint's own are not these; None: they are, or it has none.
    """

    about: str | None
    questions: tuple[str, ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    note: str | None = None

    @classmethod
    def from_json(cls, content: Any) -> SuggestedQuestions:
        """{"about": text, "questions": [text, …], "choices": [{"question": text, "choices":
        [text, …]}, …]}, of which each may be left out.

        Raises:
            CheckpointError: for anything else.
        """
        known = {"about", "questions", "choices"}
        if not isinstance(content, dict) or not set(content) <= known:
            raise CheckpointError(f"{FILE_NAME} is no object of {', '.join(sorted(known))}")
        about = content.get("about")
        sets = _list(content.get("choices", []), "choices")
        for each in sets:
            if not isinstance(each, dict) or set(each) != {"question", "choices"}:
                raise CheckpointError(
                    f"{FILE_NAME}: {each!r:.60} is not a question with its choices"
                )
        return cls(
            None if about is None else _text(about, _MAX_ABOUT_CHARACTERS),
            tuple(map(_text, _list(content.get("questions", []), "questions"))),
            tuple(
                (_text(each["question"]), tuple(map(_text, _list(each["choices"], "choices"))))
                for each in sets
            ),
        )


def _general(default_question: str, note: str | None = None) -> SuggestedQuestions:
    """For a checkpoint that suggests none: without a claim that it can answer them."""
    return SuggestedQuestions(
        about=None,
        questions=(
            *((default_question,) if default_question else ()),
            "What sounds are in this recording?",
            "Is anyone speaking?",
            "Is there music?",
            "Which instruments play?",
        ),
        choices=(
            ("Is anyone speaking?", ("Yes", "No")),
            ("Is there music?", ("Yes", "No")),
        ),
        note=note,
    )


def suggested_questions(model: AudioModel) -> SuggestedQuestions:
    """Those beside the model's checkpoint, or general ones; downloaded if need be.

    What the checkpoint says about itself is left out if an adapter changes the model.
    """
    default_question = model.pipeline.tokenizer.format.default_prompt
    try:
        path = model.pipeline.checkpoint.file(FILE_NAME)
    except QwenAudioError:  # a hub that can't be reached, which is no matter of this page
        path = None
    if path is None:
        return _general(default_question)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{FILE_NAME} is larger than {_MAX_BYTES} bytes")
        found = SuggestedQuestions.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (CheckpointError, OSError, ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, CheckpointError) else f"{FILE_NAME} is damaged"
        note = f"The checkpoint's own suggestions can't be read: {reason}."
        return _general(default_question, note)
    if model.adapter is not None:
        return SuggestedQuestions(None, found.questions, found.choices)
    return found


def _text(value: Any, limit: int = MAX_QUESTION_CHARACTERS) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise CheckpointError(
            f"{FILE_NAME}: {value!r:.60} is not a text of at most {limit} characters"
        )
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_SUGGESTIONS:
        raise CheckpointError(
            f"{FILE_NAME}: {name} is not a list of at most {_MAX_SUGGESTIONS} entries"
        )
    return value
