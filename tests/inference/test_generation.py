"""Texts that are generated together: each as if it were alone, whoever joins, leaves or fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import qwen_audio as qa
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.decoder import LanguageModel
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.generation import GeneratingSequence, GenerationBatch
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.reducers import all_rows
from qwen_audio.models.kv_cache import KeyValueCache
from reference import PLAIN, Reference, relative_error, sound

NO_STOP: frozenset[int] = frozenset()
RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    loaded = qa.load(checkpoint, dtype="float32")
    loaded.pipeline.fetch_weights(None)
    return loaded


@pytest.fixture(scope="module")
def lm(model: qa.AudioModel) -> LanguageModel:
    return model.pipeline.lm


def item(length: int, seed: int = 0, audio: int = 0) -> DecoderInput:
    """Random tokens, those of audio first."""
    random = torch.Generator().manual_seed(1000 * seed + length)
    ids = torch.randint(0, 1000, (length - audio,), generator=random).tolist()
    rows = 0.5 * torch.randn(audio, 96, generator=random) if audio else None
    return DecoderInput((*[1096] * audio, *ids), rows)


ITEMS = [item(61, 1), item(5, 2), item(130, 3, audio=100), item(64, 4), item(1, 5)]
"""The first crosses a block of 64 positions as it goes on, the third has two of them."""
SAMPLINGS = [
    Sampling(9),
    Sampling(12, temperature=0.8, top_p=0.9, seed=3),
    Sampling(4, temperature=1.5, seed=3),
    Sampling(7),
    Sampling(1),
]


def alone(lm: LanguageModel, item: DecoderInput, sampling: Sampling) -> list[int]:
    batch = GenerationBatch(lm)
    sequence = batch.join(item, sampling, stop_ids=NO_STOP)
    batch.run()
    return sequence.token_ids


@pytest.fixture(scope="module")
def expected(lm: LanguageModel) -> list[list[int]]:
    return [alone(lm, *pair) for pair in zip(ITEMS, SAMPLINGS, strict=True)]


@pytest.mark.parametrize("starts", [(0, 0, 0, 0, 0), (0, 3, 5, 5, 20), (8, 2, 0, 1, 9)])
def test_sequences_that_join_at_any_step_get_the_tokens_that_they_get_alone(
    lm: LanguageModel, expected: list[list[int]], starts: Sequence[int]
) -> None:
    """With samplings of their own: a seed gives the same tokens whatever else is in the batch."""
    batch, sequences = GenerationBatch(lm), dict[int, GeneratingSequence]()
    for step in itertools.count():
        for number in (number for number, start in enumerate(starts) if start == step):
            sequences[number] = batch.join(ITEMS[number], SAMPLINGS[number], stop_ids=NO_STOP)
        before = {id(each): len(each.token_ids) for each in batch.sequences}
        stepped = batch.step()
        assert {id(each): len(each.token_ids) - 1 for each in stepped} == before
        assert batch.sequences == [each for each in stepped if each.ended_by is None]
        if step > max(starts) and not batch.sequences:
            break
    assert [sequences[number].token_ids for number in range(5)] == expected
    assert {each.ended_by for each in sequences.values()} == {"max_new_tokens"}
    assert batch.cache.reserved_positions == 0


def test_probabilities_are_transformers_before_sampling(checkpoint: Path) -> None:
    """With a repetition penalty and a temperature, which decide about tokens alone."""
    pipeline = qa.load(checkpoint, dtype="float32").pipeline
    clip, prompt = sound(1.3, seed=2), PLAIN + "Which instrument?"
    inputs = pipeline.build_inputs(prompt, [pipeline.encode_audio([pipeline.log_mel(clip)])])
    batch = GenerationBatch(pipeline.lm)
    random = Sampling(4, temperature=2.0, seed=1)
    drawn = batch.join(inputs[0], random, stop_ids=NO_STOP, top_count=3)
    plain = batch.join(ITEMS[0], Sampling(2), stop_ids=NO_STOP)
    greedy = batch.join(ITEMS[1], Sampling(3), stop_ids=NO_STOP, top_count=0)
    batch.run()
    assert drawn.token_ids == alone(pipeline.lm, inputs[0], random)
    assert plain.probabilities == []
    assert [(each.token_id, each.top) for each in greedy.probabilities] == [
        (token, ()) for token in greedy.token_ids
    ]
    expected = torch.from_numpy(
        Reference(checkpoint).log_probabilities(clip, prompt, tuple(drawn.token_ids))
    )
    for place, each in enumerate(drawn.probabilities):
        assert each.log_probability == pytest.approx(
            float(expected[place, each.token_id]), abs=1e-4
        )
        best = expected[place].topk(3)
        assert [token for token, _ in each.top] == best.indices.tolist()
        np.testing.assert_allclose([value for _, value in each.top], best.values, atol=1e-4)


def test_a_stop_token_ends_a_sequence(lm: LanguageModel, expected: list[list[int]]) -> None:
    batch = GenerationBatch(lm)
    stop = frozenset(expected[0][3:4])
    first, other = (batch.join(ITEMS[0], SAMPLINGS[0], stop_ids=ids) for ids in (stop, NO_STOP))
    batch.run()
    assert first.token_ids == expected[0][: expected[0].index(*stop) + 1]
    assert (first.ended_by, other.ended_by) == ("stop token", "max_new_tokens")
    assert other.token_ids == expected[0]


def test_the_models_context_ends_a_sequence(
    lm: LanguageModel, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "max_positions", 63)
    batch = GenerationBatch(lm)
    sequence = batch.join(ITEMS[0], SAMPLINGS[0], stop_ids=NO_STOP)
    assert sequence.max_positions == 63
    batch.run()
    assert sequence.ended_by == "context"
    assert sequence.token_ids == expected[0][:3]  # two are read, and give a third
    with pytest.raises(qa.OptionError, match="64 positions"):
        batch.join(ITEMS[3], SAMPLINGS[3], stop_ids=NO_STOP)
    assert batch.sequences == []


def test_a_callback_may_cancel_and_add_sequences(
    lm: LanguageModel, expected: list[list[int]]
) -> None:
    batch = GenerationBatch(lm)
    cancelled, other = (batch.join(ITEMS[n], SAMPLINGS[n], stop_ids=NO_STOP) for n in (0, 1))
    added: list[GeneratingSequence] = []
    seen: list[int] = []

    def on_token(sequence: GeneratingSequence) -> None:
        if sequence is other:
            seen.append(sequence.token_ids[-1])
        elif sequence is cancelled and len(sequence.token_ids) == 2:
            slot = sequence.slot
            batch.leave(sequence)
            with pytest.raises(KeyError):
                batch.cache.length(slot)
            added.append(batch.join(ITEMS[3], SAMPLINGS[3], stop_ids=NO_STOP))

    batch.run(on_token)
    assert cancelled.token_ids == expected[0][:2]
    assert cancelled.ended_by is None
    assert seen == other.token_ids == expected[1]
    assert added[0].token_ids == expected[3]
    assert batch.cache.reserved_positions == 0


def test_sequences_that_come_and_go_take_no_more_memory_than_those_at_once(
    lm: LanguageModel,
) -> None:
    batch = GenerationBatch(lm)
    sizes = set()
    for _ in range(6):
        for each in batch.sequences[:1]:
            batch.leave(each)
        while len(batch.sequences) < 2:
            batch.join(item(20), Sampling(60), stop_ids=NO_STOP)
        batch.step()
        sizes.add(batch.cache.reserved_positions)
    assert sizes == {2 * 128}  # with the room for answers, from the first step on


def test_prefixes_are_shared_and_stay(lm: LanguageModel, expected: list[list[int]]) -> None:
    """Two questions about one recording at once, after an answer that goes on from it."""
    batch = GenerationBatch(lm)
    whole, slot = ITEMS[2], batch.cache.add()
    first = batch.join(whole, SAMPLINGS[2], stop_ids=NO_STOP, slot=slot)
    batch.run()
    assert batch.cache.length(slot) == 130 + 3
    kept = [part.clone() for part in keys_and_values(batch.cache, slot)]
    others = [
        DecoderInput((*whole.token_ids[:110], *item(9, n).token_ids), whole.audio_rows)
        for n in (1, 2)
    ]
    forks = [batch.cache.fork(slot, 110) for _ in others]
    reserved = batch.cache.reserved_positions
    answers = [
        batch.join(each, Sampling(6), stop_ids=NO_STOP, slot=fork)
        for each, fork in zip(others, forks, strict=True)
    ]
    batch.run()
    assert reserved == 64 * (3 + 2)  # of the forks only what goes on: the first block is shared
    assert first.token_ids == expected[2]
    assert [each.token_ids for each in answers] == [alone(lm, o, Sampling(6)) for o in others]
    for part, again in zip(kept, keys_and_values(batch.cache, slot), strict=True):
        assert torch.equal(part, again)


def keys_and_values(cache: KeyValueCache, slot: int) -> tuple[Tensor, Tensor]:
    """Of the first layer."""
    with cache.extend([slot], [0]) as cached:
        return cached.gather(0, 0)


@pytest.mark.parametrize("chunks", [(150,), (1, 63, 1, 1, 64, 20), (64, 64, 22), (149, 1)])
def test_hidden_states_of_chunks_equal_those_of_one_pass(
    lm: LanguageModel, chunks: Sequence[int]
) -> None:
    """Of two inputs at every tap, whichever way their positions are divided into passes."""
    inputs = [item(150, 6, audio=40), item(150, 7)]
    taps = [qa.Tap.parse(f"lm.{k}") for k in range(4)] + [qa.Tap.parse("lm.norm")]
    whole = lm.forward(inputs, taps, all_rows)
    cache = lm.new_cache()
    slots = [cache.add(), cache.add()]
    parts: dict[Any, list[list[Tensor]]] = {tap: [[], []] for tap in taps}
    for start, end in itertools.pairwise([0, *itertools.accumulate(chunks)]):
        part = [positions(each, start, end) for each in inputs]
        with cache.extend(slots, [end - start] * 2) as cached:
            outputs = lm.forward(part, taps, all_rows, cached)
        for tap, rows in outputs.items():
            for index, each in enumerate(rows):
                parts[tap][index].append(each)
    for tap in taps:
        for index in range(2):
            actual = torch.cat(parts[tap][index]).numpy()
            assert relative_error(actual, whole[tap][index].numpy()) < 1e-5


def positions(item: DecoderInput, start: int, end: int) -> DecoderInput:
    """Some positions of an input, with their audio rows."""
    rest = item.suffix(start, 1096)
    token_ids = rest.token_ids[: end - start]
    rows = None if rest.audio_rows is None else rest.audio_rows[: token_ids.count(1096)]
    return DecoderInput(token_ids, rows)


class ReadsCounted(TorchFunctionMode):
    """Counts calls that would wait for a GPU: those that give numbers to Python."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("tolist", "item", "cpu", "numpy", "nonzero") or (
            name in ("__bool__", "__int__", "__float__", "__index__")
        ):
            self.names.append(name)
        if name in ("__getitem__", "__setitem__") and isinstance(args[1], Tensor):
            assert args[1].dtype is not torch.bool  # which counts its rows
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_a_step_waits_for_the_device_once_and_the_head_reads_a_row_each(
    lm: LanguageModel, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    logits = lm.logits

    def spy(rows: Tensor, *more: Any) -> Tensor:
        counts.append(len(rows))
        return logits(rows, *more)

    monkeypatch.setattr(LanguageModel, "repetition_penalty", penalty)
    batch = GenerationBatch(lm)
    for number in range(3):
        alone(lm, ITEMS[number], SAMPLINGS[number])  # reads weights, whichever test is the first
        batch.join(ITEMS[number], SAMPLINGS[number], stop_ids=NO_STOP)
    monkeypatch.setattr(lm, "logits", spy)
    for _ in range(3):
        with ReadsCounted() as reads:
            batch.step()
        assert reads.names.count("tolist") == 1
        # Random numbers, from generators on the CPU.
        assert sorted(set(reads.names)) == ["__float__", "tolist"]
        assert reads.names.count("__float__") == 2
    assert counts == [3, 3, 3]


def test_a_step_that_fails_frees_all_slots(
    lm: LanguageModel, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = GenerationBatch(lm)
    kept = batch.cache.add()
    going = batch.join(ITEMS[0], SAMPLINGS[0], stop_ids=NO_STOP, slot=kept)
    batch.step()
    bad = DecoderInput((1096, 1, 2), torch.full((1, 96), torch.inf))
    batch.join(bad, Sampling(3), stop_ids=NO_STOP)
    with pytest.raises(NotFiniteError):
        batch.step()
    assert batch.sequences == []
    assert list(batch.cache._blocks) == [kept]  # the caller's
    assert going.ended_by is None
    assert batch.cache.length(kept) == len(ITEMS[0].token_ids)  # as after the step before
    again = batch.join(ITEMS[0], SAMPLINGS[0], stop_ids=NO_STOP, slot=kept)
    monkeypatch.setattr(lm, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.step()
    assert batch.sequences == []
    monkeypatch.undo()
    again = batch.join(ITEMS[0], SAMPLINGS[0], stop_ids=NO_STOP, slot=kept)
    batch.run()
    assert again.token_ids == expected[0]
    batch.cache.release(kept)
    assert batch.cache.reserved_positions == 0


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


# Sessions, which continue a cache.


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of each pass of a language model."""
    counts: list[int] = []
    forward = LanguageModel.forward

    def spy(self: LanguageModel, inputs: Sequence[DecoderInput], *more: Any) -> Any:
        counts.append(sum(len(each.token_ids) for each in inputs))
        return forward(self, inputs, *more)

    monkeypatch.setattr(LanguageModel, "forward", spy)
    return counts


def closed_stream(after: int) -> Callable[[str], None]:
    calls = itertools.count()

    def stream(_: str) -> None:
        if next(calls) == after:
            raise BrokenPipeError

    return stream


def test_a_question_that_is_broken_off_keeps_what_was_processed(
    model: qa.AudioModel, passes: list[int]
) -> None:
    clip = sound(4.0)
    question: dict[str, Any] = {"max_new_tokens": 8}
    session = model.session(clip, **RATE)
    expected = [str(session.ask(each, **question)) for each in ("What?", "Who?")]
    session = model.session(clip, **RATE)
    with pytest.raises(BrokenPipeError):
        session.ask("What?", stream=closed_stream(1), **question)
    passes.clear()
    assert str(session.ask("Who?", **question)) == expected[1]
    assert passes[0] < 10
    assert str(session.ask("What?", **question)) == expected[0]
    passes.clear()
    with pytest.raises(qa.OptionError, match="at most 4096"):
        session.ask("a " * 5000, **question)
    assert passes == []
    assert str(session.ask("What?", **question)) == expected[0]
    assert passes[0] == 1


def test_states_of_generated_tokens_of_a_batch_equal_those_of_each_alone(
    model: qa.AudioModel,
) -> None:
    clips = [sound(seconds, seed) for seed, seconds in enumerate((0.5, 2.3, 0.1))]
    options: dict[str, Any] = {"taps": ["lm.1", "lm.norm"], "generate": 5, **RATE}
    for clip, together in zip(clips, model.activations(clips, **options), strict=True):
        single = model.activations(clip, **options)
        for tap in options["taps"]:
            assert together[tap].spans == single[tap].spans
            np.testing.assert_allclose(together[tap].data, single[tap].data, atol=1e-5)
