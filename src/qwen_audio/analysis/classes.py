"""Classes to choose from, and what is known of them before: checked without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from qwen_audio.errors import OptionError, counted, number_option

__all__ = ["Classes", "Prior", "as_classes", "as_prior", "as_temperature"]

Classes: TypeAlias = Mapping[str, str | Sequence[str]] | Sequence[str]
"""Classes with the spellings of each; or texts that are classes themselves."""

Prior: TypeAlias = Literal["none", "batch"] | Mapping[str, float] | Sequence[float]
"""What is divided out: nothing, the mean over the batch, or a probability for each class."""


def as_classes(classes: Classes) -> dict[str, tuple[str, ...]]:
    """Classes with the spellings of each.

    Raises:
        OptionError: for fewer than two, for one without spellings, or named twice.
    """
    if isinstance(classes, Mapping):
        spellings = {
            str(name): (texts,) if isinstance(texts, str) else tuple(texts)
            for name, texts in classes.items()
        }
    elif isinstance(classes, str) or not isinstance(classes, Sequence):
        raise OptionError(
            f"classes={classes!r:.60}: give a list of texts, or the spellings of each class by its "
            "name"
        )
    else:
        spellings = {str(text): (text,) for text in classes}
        if len(spellings) < len(classes):
            twice = next(text for text in classes if list(classes).count(text) > 1)
            raise OptionError(f"class {twice!r:.60} is given twice: leave one out")
    if len(spellings) < 2:
        raise OptionError(
            f"{counted(len(spellings), 'class', 'classes')}: give two or more to choose from"
        )
    for name, texts in spellings.items():
        if not texts:
            raise OptionError(
                f"class {name!r:.60} has no spellings: give at least one, or leave it out"
            )
    return spellings


def as_prior(prior: Prior, classes: Sequence[str]) -> tuple[float, ...] | Literal["batch"] | None:
    """A prior as a probability for each class, in order; None for none.

    Raises:
        OptionError: for anything else.
    """
    if isinstance(prior, str):
        if prior not in ("none", "batch"):
            raise OptionError(
                f"prior={prior!r:.60}: use 'none', 'batch', or a probability for each class"
            )
        return None if prior == "none" else "batch"
    if isinstance(prior, Mapping):
        if set(prior) != set(classes):
            raise OptionError(
                f"prior has {', '.join(map(str, prior))}: give a probability for each of "
                f"{', '.join(classes)}"
            )
        prior = [prior[name] for name in classes]
    values = [number_option("prior", value, "probabilities above 0") for value in prior]
    if len(values) != len(classes) or not all(0 < value < math.inf for value in values):
        raise OptionError(
            f"prior={values!r:.60} for {counted(len(classes), 'class', 'classes')}: give a "
            "probability above 0 for each"
        )
    # Relative to the highest, so that no sum overflows.
    shares = [value / max(values) for value in values]
    if not min(shares) > 0:
        raise OptionError(f"prior={values!r:.60} spans more than numbers can: give shares of 1")
    return tuple(share / math.fsum(shares) for share in shares)


def as_temperature(temperature: float) -> float:
    """A temperature. Raises OptionError for anything but a number above 0."""
    value = number_option("temperature", temperature, "a number above 0")
    if not 0 < value < math.inf:
        raise OptionError(f"temperature={value}: use a number above 0")
    return value
