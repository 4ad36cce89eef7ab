"""Options of pooling, prompts and sampling, checked without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from qwen_audio.errors import OptionError, number_option, whole_number_option
from qwen_audio.models.tap import Tap

__all__ = [
    "AnswerEnd",
    "PoolingName",
    "PoolingUnit",
    "ReturnTensors",
    "Sampling",
    "SpanName",
    "VectorPoolingName",
    "check_pooling",
    "check_pooling_unit",
    "check_prompt",
    "check_return_tensors",
    "check_span",
    "check_vector_pooling",
    "taps_with_span",
]

VectorPoolingName = Literal["mean", "max", "mean+std", "last"]
PoolingName = Literal[VectorPoolingName, "none"]
SpanName = Literal["audio", "prompt", "last", "all"]
PoolingUnit = Literal["recording", "window"]
"""What one pooled vector is of."""
ReturnTensors = Literal["np", "pt"]
"""NumPy arrays or PyTorch tensors, as in transformers."""
AnswerEnd = Literal["stop token", "max_new_tokens", "context"]
"""Why an answer ended: by itself, at the limit, or as the model's context was full."""

_MIN_TEMPERATURE = 1e-5
"""Below, logits divided by it overflow, or all but the highest have no probability anyway."""


def check_pooling(pooling: str) -> None:
    """Raises OptionError for an unknown pooling."""
    if pooling not in get_args(PoolingName):
        raise OptionError(f"pooling={pooling!r}: use one of {', '.join(get_args(PoolingName))}")


def check_pooling_unit(per: str, pooling: str) -> None:
    """Raises OptionError for an unknown unit, or one that isn't used: rows that are not pooled."""
    if per not in get_args(PoolingUnit):
        raise OptionError(f"per={per!r}: use one of {', '.join(get_args(PoolingUnit))}")
    if per == "window" and pooling == "none":
        raise OptionError(
            "per='window' has no effect with pooling='none', which returns all rows with their "
            "windows: leave one out"
        )


def check_return_tensors(return_tensors: str) -> None:
    """Raises OptionError for an unknown kind."""
    if return_tensors not in get_args(ReturnTensors):
        raise OptionError(f"return_tensors={return_tensors!r}: use 'np' (NumPy) or 'pt' (PyTorch)")


def check_vector_pooling(pooling: str, unit: str) -> None:
    """Raises OptionError for a pooling that doesn't give one vector per `unit`."""
    if pooling not in get_args(VectorPoolingName):
        raise OptionError(
            f"pooling={pooling!r}: use one of {', '.join(get_args(VectorPoolingName))}, which give "
            f"one vector per {unit}"
        )


def check_span(span: str, tap: Tap) -> None:
    """Raises OptionError for an unknown span, or one that this tap has no rows of."""
    if span not in get_args(SpanName):
        raise OptionError(f"span={span!r}: use one of {', '.join(get_args(SpanName))}")
    if span in ("prompt", "last") and not tap.in_language_model:
        raise OptionError(
            f"span={span!r} at tap {tap}: only the language model (lm.K, lm.norm) sees a prompt; "
            "use span='audio' here"
        )


def taps_with_span(span: str, taps: Sequence[Tap]) -> list[Tap]:
    """The taps that have rows of the span, shallowest first.

    Raises:
        OptionError: for an unknown span, or one that none of the taps (at least one) has.
    """
    with_span = sorted({tap for tap in taps if tap.in_language_model or span in ("audio", "all")})
    check_span(span, (with_span or taps)[0])
    return with_span


def check_prompt(prompt: str | None, taps: Sequence[Tap]) -> None:
    """Raises OptionError for a prompt if no tap is in the language model."""
    if prompt is not None and not any(tap.in_language_model for tap in taps):
        raise OptionError(
            f"prompt={prompt!r:.60} with {', '.join(map(str, taps))}: only the language model "
            "(lm.K, lm.norm) reads a prompt; leave it out or choose such a tap"
        )


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled.

    Attributes:
        max_new_tokens: limit of an answer; `Answer.complete` says whether it ended before.
        temperature: 0 is greedy: always the most likely token; so is anything below 1e-5.
        top_p: sample from the most likely tokens that together have this probability.
        seed: makes sampling repeatable (greedy always is); each clip has a random generator of its
            own, so that its answer doesn't depend on the batch.

    Raises:
        OptionError: for values out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        tokens = whole_number_option("max_new_tokens", self.max_new_tokens, 1)
        temperature = number_option("temperature", self.temperature, "0 (greedy) or more")
        if not 0 <= temperature < math.inf:
            raise OptionError(f"temperature={temperature}: use 0 (greedy) or more")
        temperature = 0.0 if temperature < _MIN_TEMPERATURE else temperature
        top_p = number_option("top_p", self.top_p, "a probability above 0, at most 1")
        if not 0 < top_p <= 1:
            raise OptionError(f"top_p={top_p}: use a probability above 0, at most 1")
        if top_p < 1 and temperature == 0:
            raise OptionError(
                f"top_p={top_p} does nothing at temperature {self.temperature}, which is greedy: "
                "set both"
            )
        seed = None if self.seed is None else whole_number_option("seed", self.seed, 0, 2**63 - 1)
        values = {"max_new_tokens": tokens, "temperature": temperature, "top_p": top_p}
        for name, value in {**values, "seed": seed}.items():
            object.__setattr__(self, name, value)
