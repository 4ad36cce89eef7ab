"""Options of the logit lens, checked without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qwen_audio.errors import OptionError, text_option, whole_number_option
from qwen_audio.inference.options import check_span
from qwen_audio.models.tap import Stage, Tap

__all__ = ["check_lens_options", "check_words"]

_MAX_TOP = 100


def check_lens_options(
    taps: Iterable[Tap], span: str, top: int, *, nearest: bool, vocabulary_size: int = _MAX_TOP
) -> int:
    """Check the options of `AudioModel.lens` but its words. Returns `top` as an int.

    Raises:
        OptionError: for taps other than layers of the language model, an unknown span, a `top` out
            of range, and `nearest` for a span without audio.
    """
    for tap in taps:
        if tap.stage is not Stage.LM:
            raise OptionError(
                f"{tap} has no logits: the lens takes layers of the language model, lm.0 to lm.-1"
            )
    check_span(span, Tap(Stage.LM, 0))
    count = whole_number_option("top", top, 1, min(_MAX_TOP, vocabulary_size))
    if nearest and span not in ("audio", "all"):
        raise OptionError(f"nearest=True with span={span!r}: only audio has rows at projector")
    return count


def check_words(words: Sequence[Any]) -> None:
    """Raises OptionError for anything but a list of words to track."""
    if isinstance(words, str):
        raise OptionError(
            f"tokens={words!r} is one text: give a list of words, such as [{words!r}]"
        )
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise OptionError(f"tokens: {word!r:.60} is no word: give words such as 'piano'")
        text_option("tokens", word)
