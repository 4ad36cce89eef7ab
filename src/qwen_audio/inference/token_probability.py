"""How likely generated tokens were, and which others were likeliest: before any sampling."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

__all__ = ["TokenProbability", "read_probabilities", "token_probabilities"]


@dataclass(frozen=True)
class TokenProbability:
    """A generated token, and how likely it was: the model's own log-probabilities, before the
    repetition penalty, temperature and top_p.

    Attributes:
        log_probability: of the token.
        top: the likeliest tokens at its place, with theirs, the likeliest first.
    """

    token_id: int
    log_probability: float
    top: tuple[tuple[int, float], ...]


def token_probabilities(
    logits: Float[Tensor, "sequences vocabulary"],
    tokens: Int[Tensor, " sequences"],
    counts: Sequence[int | None],
) -> Float32[Tensor, " numbers"]:
    """The numbers of `TokenProbability`, on the device: for `read_probabilities`.

    Args:
        tokens: what was generated after each row.
        counts: how many of the likeliest are asked for; None: no probabilities at all.
    """
    parts = [torch.empty(0, device=logits.device)]
    for row, token, count in zip(logits, tokens, counts, strict=True):
        if count is not None:
            log_probabilities = row.float().log_softmax(-1)
            best = log_probabilities.topk(count)
            # Whole numbers up to 2**24 are exact.
            parts += [log_probabilities[token][None], best.indices.float(), best.values]
    return torch.cat(parts)


def read_probabilities(
    numbers: Sequence[float], tokens: Sequence[int], counts: Sequence[int | None]
) -> list[TokenProbability | None]:
    """`TokenProbability` of each sequence, from the numbers of `token_probabilities`; None where
    none was asked for."""
    rest: Iterator[float] = iter(numbers)
    results: list[TokenProbability | None] = []
    for token, count in zip(tokens, counts, strict=True):
        if count is None:
            results.append(None)
            continue
        log_probability = next(rest)
        best = [int(number) for number in itertools.islice(rest, count)]
        values = itertools.islice(rest, count)
        top = tuple(zip(best, values, strict=True))
        results.append(TokenProbability(token, log_probability, top))
    return results
