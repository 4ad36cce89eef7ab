"""Ask tab: which seconds an answer depends on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, OptionError
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.sessions import Session

from .ask import question_of

if TYPE_CHECKING:
    from qwen_audio import Occlusion, Window

__all__ = ["OcclusionCard"]

_WINDOW_SECONDS = (0.5, 1.0, 2.0)
"""Of what is made silent, by default: the first of which there are few enough."""
_FEW_WINDOWS, _MAX_WINDOWS = 40, 120
"""By default, and where the visitor chooses: each takes as long as an answer's first token."""
_MAX_CHARACTERS = 2000
"""Of an answer."""
_NOTABLE = math.log(2)
"""Effect in nats by which odds change by a factor of 2."""


class OcclusionCard:
    """Request handler of the Ask tab's occlusion."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def occlusion(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The effect of each part of the open seconds on "answers", a text or two to compare.

        They answer a "question", or, as it was asked, the one whose answer has the "number".
        "window_seconds" are made silent at once.
        """
        session = self.context.session(request)
        clip, model = session.open_clip, self.context.model
        question = _prompt_of(session, data["number"]) if "number" in data else question_of(data)
        answers = _answers(data.get("answers"))
        window, waveform = clip.window, clip.window_waveform
        seconds = _window_seconds(data.get("window_seconds"), waveform.duration_seconds)
        found = self.context.run_on_model_thread(
            lambda: model.occlusion(
                waveform,
                question,
                answers=answers,
                window_seconds=seconds,
                hop_seconds=seconds / 2,
            )
        ).result()
        if session.clip is not clip or clip.window != window:
            raise AudioError("Another part was opened meanwhile: compute it again.")
        session.results["occlusion"] = found
        return _payload(found, window)


def _payload(found: Occlusion, part: Window) -> dict[str, Any]:
    """What the page draws; times are of the recording."""
    edges, means = found.map()
    start = part.start_seconds
    return {
        "answers": found.answers,
        "prompt": found.prompt,
        "difference": found.difference,
        "start_seconds": [start + float(seconds) for seconds in found.start_seconds],
        "window_seconds": found.window_seconds,
        "effect": [float(effect) for effect in found.effect],
        "edges": [start + float(seconds) for seconds in edges],
        "means": [float(mean) for mean in means],
        "notable": _NOTABLE,
        "peak": _peak(found, start),
        "dtype": found.dtype,
    }


def _peak(found: Occlusion, start: float) -> dict[str, Any]:
    """The window that matters most for the first answer."""
    number = int(found.effect.argmax())
    effect = float(found.effect[number])
    return {
        "start": start + float(found.start_seconds[number]),
        "end": start + float(found.end_seconds[number]),
        "effect": effect,
        "is_notable": effect >= _NOTABLE,
        "factor": "more than 1000" if effect > math.log(1000) else _two_digits(math.exp(effect)),
    }


def _prompt_of(session: Session, number: Any) -> str:
    """The rendered prompt of an answer, in which texts of visitors hold no control tokens.

    Raises:
        AudioError: for no answer of the session, or one about other seconds than are open.
    """
    given = next(
        (entry["given"] for entry in session.answers if entry["given"].number == number), None
    )
    if given is None or len(given.prompts) != 1:
        raise AudioError("That answer is gone, or is about several windows: ask again.")
    if given.part != session.open_clip.window_of_many:
        raise AudioError("That answer is about other seconds: ask about the open ones.")
    return str(given.prompts[0])


def _answers(value: Any) -> list[str]:
    """Raises OptionError for anything but one or two short texts."""
    texts = value if isinstance(value, list) else []
    if len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
        raise OptionError("answers: give a list of one text, or two")
    if not all(text.strip() for text in texts):
        raise OptionError("There is no answer: write it, or ask a question first.")
    if max(map(len, texts)) > _MAX_CHARACTERS:
        raise OptionError(f"Use answers of at most {_MAX_CHARACTERS} characters.")
    return [text.strip() for text in texts]


def _window_seconds(asked: Any, duration: float) -> float:
    """Of what is made silent at once: as asked, or so that a few dozen cover the duration.

    Raises:
        OptionError: for too many, or longer than the duration.
    """
    if asked is None:
        short = max(0.01, min(_WINDOW_SECONDS[0], round(duration / 4, 2)))
        candidates = (short, *_WINDOW_SECONDS[1:])
        few = (each for each in candidates if 2 * duration / each <= _FEW_WINDOWS + 1)
        return next(few, _WINDOW_SECONDS[-1])
    if type(asked) not in (int, float) or not 0 < asked <= duration:
        raise OptionError(f"window_seconds={asked!r:.20}: use a number up to {duration:.2f}")
    count = math.ceil(2 * duration / asked)
    if count > _MAX_WINDOWS:
        raise OptionError(
            f"{asked:g} s at once are {count} windows: make more seconds silent at once, or open "
            "fewer seconds"
        )
    return float(asked)


def _two_digits(value: float) -> str:
    """With two significant digits, and no exponent below a million: 2.7, 970."""
    return f"{float(f'{value:.2g}'):g}"
