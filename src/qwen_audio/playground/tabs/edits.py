"""Edits of what a tap holds: the answer with and without one, and what it does to its tokens."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from qwen_audio import (
    AudioError,
    AudioModel,
    Description,
    OptionError,
    Scores,
    ScoreWarning,
    Waveform,
    Window,
    edits,
)
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_stream_errors
from qwen_audio.playground.suggested_questions import MAX_QUESTION_CHARACTERS

__all__ = ["EditEffect", "EditsCard"]

_EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "shuffle": lambda data: edits.shuffle(_whole(data, "seed", 0)),
    "mean_over_time": lambda _: edits.mean_over_time(),
    "zero": lambda _: edits.zero(),
    "scale": lambda data: edits.scale(_factor(data)),
    "keep_every": lambda data: edits.keep_every(_whole(data, "n", 2)),
    "scale_heads": lambda data: edits.scale_heads(_heads(data), 0.0),
}
"""By their names in `qwen_audio.edits`, from a request's arguments."""


@dataclass(frozen=True)
class EditEffect:
    """The answer about a part of a recording without and with an edit.

    Attributes:
        edit: with its place, as results name it.
        unedited, edited: the answers.
        scores: of the unedited answer, without and with the edit; None if it is empty.
    """

    name: str
    edit: str
    unedited: Description
    edited: Description
    scores: tuple[Scores, Scores] | None

    def rows(self) -> list[dict[str, Any]]:
        """One for each token of the unedited answer: its log-probability (natural logarithm)
        without and with the edit; "" is the answer's end."""
        if self.scores is None:
            return []
        without, with_edit = (each.token_log_probabilities[0][0] for each in self.scores)
        return [
            {"token": token, "log_probability": before, "log_probability_edited": after}
            for token, before, after in zip(
                self.scores[0].tokens[0], without, with_edit, strict=True
            )
        ]


class EditsCard:
    """Request handler of edits."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self._unedited: WeakKeyDictionary[Clip, dict[tuple[Window, str], _Scored]] = (
            WeakKeyDictionary()
        )

    @report_stream_errors
    def edit(self, data: dict[str, Any], request: Any) -> Iterator[dict[str, Any]]:
        """Answer a "question" about the open part without and with an "edit" of a "tap".

        "span" says which rows, as in `AudioModel.edit`; arguments of edits are "seed", "factor",
        "n" and "heads". The unedited answer is sent first.
        """
        context, session = self.context, self.context.session(request)
        clip = session.open_clip
        window, samples = clip.window, clip.window_waveform
        edit, question = _edit(data), _question(data)
        tap, span = str(context.model.dimensions.tap(str(data.get("tap")))), data.get("span")
        span = "audio" if span is None else str(span)
        with context.model.edit(tap, edit, span=span):
            pass  # raises before anything is computed if it can't be used there
        known = self._unedited.setdefault(clip, {})
        key = window, question
        if key not in known:
            known[key] = context.run_on_model_thread(
                lambda: _answer_and_score(context.model, samples, question, None)
            ).result()
        unedited = known[key]
        yield {"unedited": unedited.text, "partial": True}

        def answer_edited() -> _Scored:
            with context.model.edit(tap, edit, span=span):
                return _answer_and_score(context.model, samples, question, unedited.text)

        edited = context.run_on_model_thread(answer_edited).result()
        if session.clip is not clip or clip.window != window:
            raise AudioError("Another recording or part has been opened meanwhile.")
        pair = unedited.scores, edited.scores
        scores = None if pair[0] is None or pair[1] is None else (pair[0], pair[1])
        effect = EditEffect(clip.name, str(edited.text.edits), unedited.text, edited.text, scores)
        session.results["edit"] = effect
        yield {
            "edit": effect.edit,
            "unedited": unedited.text,
            "edited": edited.text,
            "same": str(unedited.text) == str(edited.text),
            "complete": [unedited.text.complete, edited.text.complete],
            "tokens": effect.rows(),
        }


@dataclass(frozen=True)
class _Scored:
    """An answer, and the scores of an answer: None if that is empty."""

    text: Description
    scores: Scores | None


def _answer_and_score(
    model: AudioModel, samples: Waveform, question: str, choice: Description | None
) -> _Scored:
    """An answer under the edits that are in use, and the scores of `choice` (None: the answer)."""
    answer = model.describe(samples, prompt=question or None)
    scored = answer if choice is None else choice
    if not scored or len(scored.answers) > 1:
        return _Scored(answer, None)
    with warnings.catch_warnings():  # one answer of many: its mass is small, edited or not
        warnings.simplefilter("ignore", ScoreWarning)
        scores = model.score(
            samples, question or None, choices=[scored], include_end=scored.complete
        )
    return _Scored(answer, scores)


def _edit(data: dict[str, Any]) -> Any:
    name = data.get("edit")
    if not isinstance(name, str) or name not in _EDITS:
        raise OptionError(f"edit {name!r:.40}: choose one of {', '.join(_EDITS)}")
    return _EDITS[name](data)


def _whole(data: dict[str, Any], name: str, default: int) -> int:
    value = data.get(name, default)
    if type(value) is not int:
        raise OptionError(f"{name}={value!r:.40}: use a whole number")
    return value


def _factor(data: dict[str, Any]) -> float:
    value = data.get("factor", 0.5)
    if type(value) not in (int, float):
        raise OptionError(f"factor={value!r:.40}: use a number")
    return float(value)


def _heads(data: dict[str, Any]) -> list[int]:
    value = data.get("heads")
    if not isinstance(value, list) or not all(type(head) is int for head in value):
        raise OptionError("heads: give the numbers of attention heads, such as 0, 3")
    return value


def _question(data: dict[str, Any]) -> str:
    question = str(data.get("question") or "").strip()
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise OptionError(
            f"The question has {len(question)} characters: use at most {MAX_QUESTION_CHARACTERS}"
        )
    return question
