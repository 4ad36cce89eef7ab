"""Tokens drawn from logits: as often as is probable, and by each sequence's own seed."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from qwen_audio.inference.options import Sampling
from qwen_audio.inference.sampling import TokenSampler, sample_tokens


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (2.0, 0.8)])
def test_tokens_are_drawn_as_often_as_is_probable(temperature: float, top_p: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -torch.inf, 1.2, 1.1])
    probabilities = (logits.double() / temperature).softmax(0)
    ranked = probabilities.argsort(descending=True)
    before = probabilities[ranked].cumsum(0) - probabilities[ranked]
    probabilities[ranked[before >= top_p]] = 0
    probabilities /= probabilities.sum()

    samplings = [Sampling(temperature=temperature, top_p=top_p, seed=seed) for seed in range(20)]
    samplers = [TokenSampler(each, 1.0, ()) for each in samplings] * 100
    count = len(samplers)
    tokens = sample_tokens(samplers, logits.expand(count, -1))
    observed = torch.bincount(tokens, minlength=len(logits)).numpy()
    possible = (probabilities > 0).numpy()
    assert not observed[~possible].any()
    assert chisquare(observed[possible], count * probabilities.numpy()[possible]).pvalue > 0.01


@pytest.mark.parametrize("number", [1e-9, 0.5, 1.0])
def test_an_impossible_token_is_never_drawn(number: float) -> None:
    """Also of numbers at the ends of the range, where sums of probabilities are rounded."""
    logits = torch.full((2, 50_001), -torch.inf)
    logits[:, 1:-1] = torch.randn(2, 49_999, generator=torch.Generator().manual_seed(0))
    samplers = [TokenSampler(Sampling(temperature=1.0, seed=0), 1.0, ()) for _ in range(2)]
    for sampler in samplers:
        sampler.draw = lambda: number  # type: ignore[method-assign]
    tokens = sample_tokens(samplers, logits)
    assert bool((logits.gather(1, tokens[:, None]) > -torch.inf).all())


def test_greedy_and_sampled_sequences_of_one_batch() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    sampled = Sampling(temperature=2.0, seed=9)
    together = [TokenSampler(each, 1.0, ()) for each in (Sampling(), sampled, Sampling())]
    single = TokenSampler(sampled, 1.0, ())
    for _ in range(20):
        tokens = sample_tokens(together, logits).tolist()
        assert tokens[0::2] == logits[0::2].argmax(-1).tolist()
        assert tokens[1:2] == sample_tokens([single], logits[1:2]).tolist()


def test_the_repetition_penalty_counts_prompt_and_answer() -> None:
    sampler = TokenSampler(Sampling(), 4.0, (0,))
    logits = torch.tensor([[4.0, 3.0, 2.0, 0.5]])
    assert [int(sample_tokens([sampler], logits)) for _ in range(3)] == [1, 2, 0]
