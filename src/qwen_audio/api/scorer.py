"""A prompt and choices, whose scores are asked for window by window."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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

__all__ = ["Scorer"]

_LOW_MASS = 0.5
"""Below, the model would rather say something else than any of the choices."""


class Scorer:
    """Scores choices after one prompt, and warns where the model would say something else.

    Args:
        prompt, chat: see `PromptTokenizer.render`.
        texts: the choices.
        include_end, leading_space, length_normalized, over_windows: see `AudioModel.score`.

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
        self._lowest: dict[str, float] = {}
        self._other_mass: float | None = None
        self._is_other_known = False

    def scores(self, audio_rows: Sequence[Tensor], context: Any = None) -> list[ChoiceScores]:
        """Of windows, by their rows at `projector`."""
        scores = self._score(audio_rows, self._choices, context)
        for rows, of_window in zip(audio_rows, scores, strict=True):
            if of_window.mass < _LOW_MASS and not self._is_other_known:
                self._is_other_known = True
                self._other_mass = self._mass_otherwise(rows)
        return scores

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
        lowest = min(of_window.mass for of_window in scores)
        if lowest < _LOW_MASS:
            self._lowest[name] = min(lowest, self._lowest.get(name, 1.0))
        return Scores(
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

    def warn(self, stacklevel: int = 3) -> None:
        """One warning about all recordings whose choices had little probability."""
        if not self._lowest:
            return
        name, mass = min(self._lowest.items(), key=lambda item: item[1])
        more = f" (and {counted(len(self._lowest) - 1, 'other')})" if len(self._lowest) > 1 else ""
        other = ""
        if self._other_mass is not None:
            how = "without" if self._choices.leading_space else "with"
            other = f"; {how} a space before them (leading_space=) {self._other_mass:.2g}"
        warnings.warn(
            f"{name}{more}: the model gives all choices together a probability of {mass:.2g}, and "
            f"would rather say something else{other}: compare what describe says",
            ScoreWarning,
            stacklevel=stacklevel,
        )

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
