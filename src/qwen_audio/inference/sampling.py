"""Token sampler: logits → next token."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .options import Sampling

__all__ = ["TokenSampler"]


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
        """The token that follows a clip's context and its new tokens."""
        if not self._processors:
            return int(logits.argmax())
        ids: Any = torch.tensor([[*self._context_ids[clip], *new]], device=logits.device)
        scores = self._processors(ids, logits[None])[0]
        if self._generators is None:
            return int(scores.argmax())
        probabilities = scores.softmax(-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generators[clip]))
