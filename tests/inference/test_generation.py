"""Generation in a batch: sequences that join, leave and end, each as if it were alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qwen_audio as qa
from qwen_audio.errors import OptionError
from qwen_audio.inference.decoder import DecoderInput, LanguageModel
from qwen_audio.inference.generation import GeneratingSequence, GenerationBatch
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.reducers import all_rows
from qwen_audio.inference.sampling import TokenSampler, sample_tokens
from qwen_audio.models.tap import Tap
from reference import sound

NO_STOP: frozenset[int] = frozenset()
GREEDY = Sampling(max_new_tokens=6)
SAMPLED = Sampling(max_new_tokens=6, temperature=2.0, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture(scope="module")
def lm(model: qa.AudioModel) -> LanguageModel:
    return model.pipeline.lm


@pytest.fixture(scope="module")
def items(model: qa.AudioModel) -> list[DecoderInput]:
    """Three clips with their prompts, of different lengths."""
    pipeline = model.pipeline
    mels = [pipeline.log_mel(sound(seconds, seed=k)) for k, seconds in enumerate((0.1, 1.7, 0.4))]
    prompt = pipeline.tokenizer.render("What?")
    return pipeline.build_inputs(prompt, [[rows] for rows in pipeline.encode_audio(mels)])


def alone(lm: LanguageModel, item: DecoderInput, sampling: Sampling) -> list[int]:
    batch = GenerationBatch(lm)
    sequence = batch.join(item, sampling, stop_ids=NO_STOP)
    batch.run()
    return sequence.token_ids


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_sequences_that_join_later_are_as_if_alone(
    lm: LanguageModel, items: list[DecoderInput], sampling: Sampling
) -> None:
    batch = GenerationBatch(lm)
    sequences = []
    for item in items:  # each joins two steps after the one before
        sequences.append(batch.join(item, sampling, stop_ids=NO_STOP))
        batch.step()
        stepped = batch.step()
        assert stepped == sequences
    batch.run()
    for item, sequence in zip(items, sequences, strict=True):
        assert sequence.token_ids == alone(lm, item, sampling)
        assert sequence.ended_by == "max_new_tokens"
    assert batch.cache.reserved_positions == 0


def test_a_sequence_that_leaves_frees_its_slot_and_changes_no_other(
    lm: LanguageModel, items: list[DecoderInput]
) -> None:
    batch = GenerationBatch(lm)
    leaving, staying = (batch.join(item, GREEDY, stop_ids=NO_STOP) for item in items[:2])

    def on_token(sequence: GeneratingSequence) -> None:
        if sequence is leaving and len(sequence.token_ids) == 2:
            batch.leave(sequence)

    batch.run(on_token)
    assert leaving.ended_by is None
    assert leaving.token_ids == alone(lm, items[0], GREEDY)[:2]
    assert staying.token_ids == alone(lm, items[1], GREEDY)
    assert batch.sequences == []
    assert batch.cache.reserved_positions == 0


def test_stop_tokens_and_the_context_end_a_sequence(
    lm: LanguageModel, items: list[DecoderInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = alone(lm, items[0], GREEDY)
    batch = GenerationBatch(lm)
    stopped = batch.join(items[0], GREEDY, stop_ids=frozenset(tokens[1:2]))
    batch.run()
    assert stopped.token_ids == tokens[: tokens.index(tokens[1]) + 1]
    assert stopped.ended_by == "stop token"
    length = len(items[0].token_ids)
    monkeypatch.setattr(LanguageModel, "max_positions", length + 2)
    full = batch.join(items[0], GREEDY, stop_ids=NO_STOP)
    batch.run()
    assert (len(full.token_ids), full.ended_by) == (3, "context")
    with pytest.raises(OptionError, match="positions of audio and text"):
        batch.join(items[1], GREEDY, stop_ids=NO_STOP)
    assert batch.sequences == []


def test_a_step_that_fails_leaves_no_sequence_and_no_slot(
    lm: LanguageModel, items: list[DecoderInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = GenerationBatch(lm)
    kept = batch.cache.add()
    batch.join(items[0], GREEDY, stop_ids=NO_STOP, slot=kept)
    batch.join(items[1], GREEDY, stop_ids=NO_STOP)
    batch.step()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a step that fails")

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModel, "logits", fail)
        with pytest.raises(RuntimeError, match="a step that fails"):
            batch.step()
    assert batch.sequences == []
    assert batch.cache.length(kept) >= len(items[0].token_ids)  # the caller's slot stays
    again = batch.join(items[0], GREEDY, stop_ids=NO_STOP, slot=kept)
    batch.run()
    assert again.token_ids == alone(lm, items[0], GREEDY)


def test_a_slot_goes_on_where_its_positions_end(
    lm: LanguageModel, items: list[DecoderInput]
) -> None:
    """A fork for each of two questions about the same audio; neither changes what they share."""
    batch = GenerationBatch(lm)
    slot = batch.cache.add()
    first = batch.join(items[1], GREEDY, stop_ids=NO_STOP, slot=slot)
    batch.run()
    shared = len(items[1].token_ids) - 3
    others = [replace(items[1], token_ids=(*items[1].token_ids[:shared], k, 9)) for k in (7, 8)]
    forks = [batch.cache.fork(slot, shared) for _ in others]
    sequences = [
        batch.join(item, GREEDY, stop_ids=NO_STOP, slot=fork)
        for item, fork in zip(others, forks, strict=True)
    ]
    batch.run()
    for item, sequence in zip(others, sequences, strict=True):
        assert sequence.token_ids == alone(lm, item, GREEDY)
    again = batch.join(items[1], GREEDY, stop_ids=NO_STOP, slot=slot)
    batch.run()
    assert again.token_ids == first.token_ids


@pytest.mark.parametrize("sizes", [(1, 1), (40, 3, 1), (64, 1), (63, 2)])
def test_positions_in_parts_are_those_of_one_pass(
    lm: LanguageModel, items: list[DecoderInput], sizes: tuple[int, ...]
) -> None:
    tap, item = Tap.parse("lm.norm"), DecoderInput(tuple(5 + k % 40 for k in range(80)))
    (whole,) = lm.forward([item], [tap], all_rows)[tap]
    cache = lm.new_cache()
    slot = cache.add()
    parts, start = [], 0
    for size in (*sizes, 80 - sum(sizes)):
        part = DecoderInput(item.token_ids[start : start + size])
        parts += lm.forward([part], [tap], all_rows, cache, [slot])[tap]
        start += size
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)


# Sampling.


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.3, 0.8)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float, top_p: float) -> None:
    draws = 4_000
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf, 0.5])
    probabilities = (logits / temperature).softmax(-1)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(-1) - probabilities[order]
    probabilities[order[before >= top_p]] = 0
    probabilities /= probabilities.sum()
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=0)
    sampler = TokenSampler(sampling, 1.0, [])
    tokens = sample_tokens([sampler] * draws, logits.expand(draws, -1))
    counts = torch.bincount(tokens, minlength=len(logits))
    assert (counts[probabilities == 0] == 0).all()
    expected = draws * probabilities[probabilities > 0]
    chi_square = ((counts[probabilities > 0] - expected) ** 2 / expected).sum()
    assert chi_square < 20  # of 4 degrees of freedom at most: 99.95 %


def test_each_sequence_has_a_generator_of_its_own() -> None:
    logits = torch.zeros(3, 50)
    seeds = (1, 2, 1)
    samplers = [TokenSampler(Sampling(temperature=1.0, seed=seed), 1.0, []) for seed in seeds]
    tokens = torch.stack([sample_tokens(samplers, logits) for _ in range(5)])
    assert torch.equal(tokens[:, 0], tokens[:, 2])
    assert not torch.equal(tokens[:, 0], tokens[:, 1])
    single = TokenSampler(Sampling(temperature=1.0, seed=2), 1.0, [])
    assert [int(sample_tokens([single], logits[:1])) for _ in range(5)] == tokens[:, 1].tolist()


def test_the_repetition_penalty_counts_prompt_and_answer() -> None:
    logits = torch.tensor([[1.0, 1.1, 1.05]])
    sampler = TokenSampler(Sampling(), 2.0, [1])
    assert [int(sample_tokens([sampler], logits)) for _ in range(3)] == [2, 0, 1]
