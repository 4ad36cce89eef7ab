"""Sampling options and the token sampler."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.errors import OptionError

__all__ = ["Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled.

    Attributes:
        max_new_tokens: limit of an answer; `Answer.complete` says whether it ended before.
        temperature: 0 is greedy: always the most likely token.
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
        for name in ("temperature", "top_p"):
            if not isinstance(getattr(self, name), int | float):
                raise OptionError(f"{name}={getattr(self, name)!r} is not a number")
        if not (isinstance(self.max_new_tokens, int) and self.max_new_tokens >= 1):
            raise OptionError(
                f"max_new_tokens={self.max_new_tokens!r}: use a whole number, 1 or more"
            )
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"temperature={self.temperature!r}: use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p={self.top_p!r}: use a probability above 0, at most 1")
        if self.top_p < 1 and self.temperature == 0:
            raise OptionError(f"top_p={self.top_p!r} does nothing at temperature 0: set both")
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise OptionError(f"seed={self.seed!r}: use a whole number from 0 to 2**63 - 1")


class TokenSampler:
    """Logits → next token, with transformers' logits processors in transformers' order."""

    def __init__(
        self, sampling: Sampling, repetition_penalty: float, context_ids: Sequence[Sequence[int]]
    ) -> None:
        from transformers.generation import logits_process

        self._context_ids = context_ids
        self._processors = logits_process.LogitsProcessorList()
        if repetition_penalty != 1.0:
            self._processors.append(
                logits_process.RepetitionPenaltyLogitsProcessor(repetition_penalty)
            )
        self._generators: list[torch.Generator] | None = None
        if sampling.temperature > 0:
            self._processors.append(logits_process.TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self._processors.append(logits_process.TopPLogitsWarper(sampling.top_p))
            seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            self._generators = [torch.Generator().manual_seed(seed) for _ in context_ids]

    def __call__(self, logits: Float[Tensor, " vocabulary"], clip: int, new: Sequence[int]) -> int:
        if not self._processors:
            return int(logits.argmax())
        ids: Any = torch.tensor([[*self._context_ids[clip], *new]], device=logits.device)
        scores = self._processors(ids, logits[None])[0]
        if self._generators is None:
            return int(scores.argmax())
        probabilities = scores.softmax(-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generators[clip]))
