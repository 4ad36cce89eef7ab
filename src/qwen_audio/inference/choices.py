"""Choices: texts that an answer may be, and their tokens after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from qwen_audio.errors import OptionError, text_option
from qwen_audio.models.components.prompt import PromptTokenizer

from .token_tree import check_choices

__all__ = ["Choices", "OverWindows", "check_over_windows", "check_texts", "has_leading_space"]

OverWindows = Literal["mean", "sum"]
"""How the log-probabilities of a recording's windows become the recording's."""


@dataclass(frozen=True)
class Choices:
    """Texts that an answer may be, as the tokens that follow a prompt.

    They are tokenised apart from the prompt, as what a model generates is: no token has a part of
    both.

    Attributes:
        texts: as they were given.
        token_ids: of each.
        leading_space: whether a space was put before those that begin without one.
        include_end: whether the answer ends after them.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    leading_space: bool
    include_end: bool

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        tokenizer: PromptTokenizer,
        *,
        leading_space: bool,
        include_end: bool,
    ) -> Choices:
        """Raises OptionError as `check_texts` and `check_choices` do."""
        checked = check_texts(texts)
        token_ids = [
            tokenizer.encode_text(f" {text}" if leading_space and not text[0].isspace() else text)
            for text in checked
        ]
        check_choices(token_ids, checked, include_end=include_end)
        return cls(checked, tuple(token_ids), leading_space, include_end)


def has_leading_space(prompt_text: str, *, chat: bool) -> bool:
    """Whether answers to a rendered prompt begin with a space: those to plain text do, those in a
    chat template don't.

    Args:
        chat: whether the prompt is of the chat template.
    """
    return not chat and not prompt_text[-1:].isspace()


def check_texts(texts: Sequence[str]) -> tuple[str, ...]:
    """Choices as given, checked without a tokenizer.

    Raises:
        OptionError: if they aren't a list of texts, or one of them is empty, or given twice.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise OptionError(f"choices={texts!r:.60}: give a list of texts, such as ['Yes', 'No']")
    if not texts:
        raise OptionError("choices is empty: give at least one text")
    seen = set[str]()
    for number, text in enumerate(texts):
        if not text_option("a choice", text).strip():
            raise OptionError(
                f"choice {number} ({text!r:.20}) is empty: give a text, or leave it out"
            )
        if text in seen:
            raise OptionError(f"choice {text!r:.60} is given twice: leave one out")
        seen.add(text)
    return tuple(texts)


def check_over_windows(over_windows: str) -> None:
    """Raises OptionError for an unknown way."""
    if over_windows not in get_args(OverWindows):
        raise OptionError(f"over_windows={over_windows!r}: use 'mean' or 'sum'")
