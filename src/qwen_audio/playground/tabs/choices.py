"""Ask tab: how likely each of several given answers is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from qwen_audio import AudioError, OptionError, ScoreWarning
from qwen_audio.playground.context import AppContext, report_errors

from .ask import question_of

if TYPE_CHECKING:
    from qwen_audio import Scores

__all__ = ["ChoicesCard", "percent"]

_MAX_CHOICES = 20
_MAX_CHARACTERS = 200
_LOW_MASS = 0.5
"""Below, the model would rather say something else: where `AudioModel.score` warns."""


class ChoicesCard:
    """Request handler of the Ask tab's choices."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def score(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Score "choices", a list of texts, as answers to a "question" about the open part."""
        session = self.context.session(request)
        clip, model = session.open_clip, self.context.model
        question, choices = question_of(data), _choices(data.get("choices"))
        window, waveform = clip.window, clip.window_waveform

        def score() -> Scores:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ScoreWarning)  # the page says it, see _mass_text
                return model.score(waveform, question, choices=choices)

        scores = self.context.run_on_model_thread(score).result()
        if session.clip is not clip or clip.window != window:
            raise AudioError("Another part was opened meanwhile: score the choices again.")
        session.results["choices"] = scores
        mass = float(scores.mass[0])
        rows = [
            {
                "choice": choice,
                "probability": float(scores.probability[0, index]),
                "log_probability": float(scores.log_probability[0, index]),
                "tokens": len(scores.tokens[index]),
            }
            for index, choice in enumerate(scores.choices)
        ]
        return {
            "question": question or model.pipeline.tokenizer.format.default_prompt,
            "prompt": scores.prompt,
            "rows": sorted(rows, key=lambda row: -row["probability"]),
            "mass": mass,
            "mass_text": _mass_text(mass),
            "is_low": mass < _LOW_MASS,
            "dtype": scores.dtype,
        }


def percent(share: float) -> str:
    """A share as text, without claiming 0 % or 100 % of what is only close to it."""
    if share < 1e-4:
        return "less than 0.01 %"
    if share >= 0.995:
        return "more than 99 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _mass_text(mass: float) -> str:
    of_all = f"{percent(mass)} of the model’s probability is on answers that begin with these"
    if mass >= _LOW_MASS:
        return f"{of_all.capitalize()} choices."
    return (
        f"Only {of_all} choices: it would rather say something else. Ask the question to see what."
    ).replace("Only less", "Less")


def _choices(value: Any) -> list[str]:
    """Raises OptionError for anything but a list of texts, few enough and short."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise OptionError("choices: give a list of texts")
    choices = [text.strip() for text in value if text.strip()]
    if not choices:
        raise OptionError("There are no choices: write at least one, each on a line of its own.")
    if len(choices) > _MAX_CHOICES or max(map(len, choices)) > _MAX_CHARACTERS:
        raise OptionError(
            f"Use at most {_MAX_CHOICES} choices of at most {_MAX_CHARACTERS} characters each."
        )
    return choices
