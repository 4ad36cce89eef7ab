"""Token samplers: logits → next tokens."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen_audio.weights.device import to_device

from .options import Sampling

__all__ = ["TokenSampler", "sample_tokens"]


class TokenSampler:
    """How the tokens of one sequence are chosen: transformers' logits processors, in its order.

    Args:
        context_ids: of the sequence before its first new token; the repetition penalty counts
            them.
    """

    def __init__(
        self, sampling: Sampling, repetition_penalty: float, context_ids: Sequence[int]
    ) -> None:
        from transformers.generation import logits_process

        self._processors = logits_process.LogitsProcessorList()
        self._counts_ids = repetition_penalty != 1.0
        if self._counts_ids:
            self._processors.append(
                logits_process.RepetitionPenaltyLogitsProcessor(repetition_penalty)
            )
        self._generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._processors.append(logits_process.TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self._processors.append(logits_process.TopPLogitsWarper(sampling.top_p))
            seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            self._generator = torch.Generator().manual_seed(seed)
        self._context_ids = list(context_ids) if self._counts_ids else []
        self._ids: Tensor | None = None

    def scores(self, logits: Float[Tensor, " vocabulary"]) -> Float[Tensor, " vocabulary"]:
        """Logits as the processors change them."""
        if not self._processors:
            return logits
        if self._ids is None:
            self._ids = to_device([self._context_ids], torch.long, logits.device)
        scores: Tensor = self._processors(self._ids, logits[None])[0]  # type: ignore[arg-type]
        return scores

    def accept(self, token: Int[Tensor, ""]) -> None:
        """Count a new token of the sequence, on the device where it was sampled."""
        if self._counts_ids and self._ids is not None:
            self._ids = torch.cat([self._ids, token.view(1, 1)], dim=1)

    def draw(self) -> float | None:
        """A random number of the sequence's own generator, greater than 0 and at most 1; None: the
        best token is taken."""
        if self._generator is None:
            return None
        return 1 - float(torch.rand((), generator=self._generator))


def sample_tokens(
    samplers: Sequence[TokenSampler], logits: Float[Tensor, "sequences vocabulary"]
) -> Int[Tensor, " sequences"]:
    """The next token of every sequence, without waiting for a GPU.

    Random numbers come from generators on the CPU, so that a seed gives the same on every device.
    A token is drawn where the cumulative probability reaches the number: never an impossible one.
    """
    pairs = zip(samplers, logits, strict=True)
    scores = torch.stack([sampler.scores(row) for sampler, row in pairs])
    tokens = scores.argmax(-1)
    draws = [(index, sampler.draw()) for index, sampler in enumerate(samplers)]
    drawn = {index: draw for index, draw in draws if draw is not None}
    if drawn:
        index = to_device(list(drawn), torch.long, scores.device)
        numbers = to_device(list(drawn.values()), scores.dtype, scores.device)[:, None]
        cumulative = scores[index].softmax(-1).cumsum(-1)
        # The probabilities' sum differs from 1 by rounding.
        found = torch.searchsorted(cumulative, numbers * cumulative[:, -1:])
        tokens = tokens.index_copy(0, index, found[:, 0])
    for sampler, token in zip(samplers, tokens, strict=True):
        sampler.accept(token)
    return tokens
