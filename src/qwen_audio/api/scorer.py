"""A prompt and choices, whose scores are asked for window by window."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from torch import Tensor

from qwen_audio.analysis.scores import Scores
from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError, ScoreWarning, counted
from qwen_audio.inference.choices import (
    Choices,
    OverWindows,
    check_over_windows,
    check_texts,
    has_leading_space,
)
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.score import ChoiceScores

__all__ = ["Scorer", "warn_of_low_mass"]

_LOW_MASS = 0.5
"""Below, the model would rather say something else than any of the choices."""


class Scorer:
    """Scores choices after one prompt, and warns where the model would say something else.

    Args:
        prompt, chat: see `PromptTokenizer.render`.
        texts: the choices.
        include_end, leading_space, length_normalized, over_windows: see `AudioModel.score`.

    Attributes:
        other_mass: of a window where all choices had less than half of the probability, that with
            the other tokenisation: with a space before them if they were scored without, and the
            other way round. None where no window had less, or they can't be told apart so.

    Raises:
        OptionError: for choices or options that can't be used.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        prompt: str | None,
        texts: Sequence[str],
        *,
        chat: bool | None = None,
        include_end: bool = False,
        leading_space: bool | None = None,
        length_normalized: bool = False,
        over_windows: OverWindows = "mean",
    ) -> None:
        check_texts(texts)
        check_over_windows(over_windows)
        tokenizer = pipeline.tokenizer
        self._pipeline = pipeline
        self._prompt_text = tokenizer.render(prompt, chat)
        self._chat = tokenizer.uses_chat_template if chat is None else chat
        if leading_space is None:
            in_template = self._chat and not tokenizer.is_raw(prompt)
            leading_space = has_leading_space(self._prompt_text, chat=in_template)
        self._choices = Choices.of(
            texts, tokenizer, leading_space=leading_space, include_end=include_end
        )
        self._length_normalized, self._over_windows = length_normalized, over_windows
        self._scored: list[Scores] = []
        self.other_mass: float | None = None
        self._is_other_known = False

    @property
    def key(self) -> Hashable:
        """Equal for scorers whose windows may share passes."""
        choices = self._choices
        return (self._prompt_text, choices.token_ids, choices.include_end, self._chat)

    @property
    def choice_tokens(self) -> int:
        """Of all choices together."""
        return sum(map(len, self._choices.token_ids))

    @property
    def longest_choice(self) -> int:
        """Its tokens."""
        return max(map(len, self._choices.token_ids))

    @property
    def prompt_tokens(self) -> int:
        """Positions of the prompt, without audio."""
        return self._pipeline.tokenizer.text_tokens(self._prompt_text)

    def scores(self, audio_rows: Sequence[Tensor], context: Any = None) -> list[ChoiceScores]:
        """Of windows, by their rows at `projector`."""
        scores = self.pass_scores(audio_rows, context)
        for rows, of_window in zip(audio_rows, scores, strict=True):
            self.note_mass(rows, of_window)
        return scores

    def pass_scores(self, audio_rows: Sequence[Tensor], context: Any = None) -> list[ChoiceScores]:
        """`scores` that may be of several scorers, each of which is told of its own by
        `note_mass`."""
        return self._score(audio_rows, self._choices, context)

    def note_mass(self, rows: Tensor, scores: ChoiceScores) -> None:
        """Find `other_mass`, if this window's mass is the first that is low."""
        if scores.mass < _LOW_MASS and not self._is_other_known:
            self._is_other_known = True
            self.other_mass = self._mass_otherwise(rows)

    def result(
        self,
        name: str,
        windows: Sequence[Window],
        scores: Sequence[ChoiceScores],
        notes: Sequence[str],
    ) -> Scores:
        """The scores of all windows of a recording."""
        decode = self._pipeline.tokenizer.decode_token
        ends = ("",) if self._choices.include_end else ()
        result = Scores(
            name=name,
            choices=self._choices.texts,
            windows=tuple(windows),
            token_log_probabilities=tuple(each.token_log_probabilities for each in scores),
            tokens=tuple((*map(decode, ids), *ends) for ids in self._choices.token_ids),
            prompt=self._prompt_text,
            leading_space=self._choices.leading_space,
            include_end=self._choices.include_end,
            length_normalized=self._length_normalized,
            over_windows=self._over_windows,
            dtype=self._pipeline.dtype_name,
            notes=tuple(notes),
            edits=self._pipeline.all_edits,
        )
        self._scored.append(result)
        return result

    def warn(self) -> None:
        """One warning about all recordings whose choices had little probability."""
        warn_of_low_mass(self._scored, self.other_mass, stacklevel=4)

    def _score(
        self, audio_rows: Sequence[Tensor], choices: Choices, context: Any = None
    ) -> list[ChoiceScores]:
        return self._pipeline.score(
            self._prompt_text,
            [[rows] for rows in audio_rows],
            choices.token_ids,
            include_end=choices.include_end,
            chat=self._chat,
            context=context,
        )

    def _mass_otherwise(self, rows: Tensor) -> float | None:
        """With the other tokenisation; None where that can't tell the choices apart."""
        choices = self._choices
        try:
            other = Choices.of(
                choices.texts,
                self._pipeline.tokenizer,
                leading_space=not choices.leading_space,
                include_end=choices.include_end,
            )
        except OptionError:
            return None
        return self._score([rows], other)[0].mass


def warn_of_low_mass(
    scores: Iterable[Scores], other_mass: float | None, *, stacklevel: int = 3
) -> None:
    """One warning about all recordings whose choices had less than half of the probability.

    Args:
        other_mass: see `Scorer`.
    """
    lowest: dict[str, float] = {}
    leading_space = False
    for each in scores:
        leading_space = each.leading_space
        if (mass := float(each.mass.min())) < _LOW_MASS:
            lowest[each.name] = min(mass, lowest.get(each.name, 1.0))
    if not lowest:
        return
    name, mass = min(lowest.items(), key=lambda item: item[1])
    more = f" (and {counted(len(lowest) - 1, 'other')})" if len(lowest) > 1 else ""
    other = ""
    if other_mass is not None:
        how = "without" if leading_space else "with"
        other = f"; {how} a space before them (leading_space=) {other_mass:.2g}"
    warnings.warn(
        f"{name}{more}: the model gives all choices together a probability of {mass:.2g}, and "
        f"would rather say something else{other}: compare what describe says",
        ScoreWarning,
        stacklevel=stacklevel,
    )
