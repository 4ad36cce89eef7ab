"""Cached keys and values count as memory: at the 7B's dimensions, and in small models."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from qwen_audio.inference import cost, memory_budget
from qwen_audio.inference.generation import CachedContext, GenerationBatch
from qwen_audio.inference.memory_budget import MemoryBudget
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from qwen_audio.models.kv_cache import KeyValueCache, block_positions
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
BASE = 460_000_000
GIGABYTE = 10**9
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def seven_b() -> Any:
    """What a budget reads of Qwen2-Audio-7B's checkpoint: its configuration, no weights."""
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    text |= {"num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 156_032}
    family = Qwen2Audio({"text_config": {"model_type": "qwen2", **text}}, "7B")
    requirements = family.tensor_requirements()
    return SimpleNamespace(
        name="7B",
        quantization=None,
        weight_bytes=lambda name, dtype: math.prod(requirements[name].shape) * dtype.itemsize,
        family=family,
        dimensions=family.dimensions,
        required_tensors=lambda tap: {
            name: requirement
            for name, requirement in requirements.items()
            if tap is None or (requirement.tap is not None and requirement.tap <= tap)
        },
    )


def budget_of(checkpoint: Any, device: torch.device, max_memory: float | None) -> MemoryBudget:
    modules: Any = SimpleNamespace(device=device, dtype=torch.bfloat16, max_bytes=0)
    limit = None if max_memory is None else round(max_memory * GIGABYTE)
    return MemoryBudget(checkpoint, modules, limit, BASE)


def weight_bytes(checkpoint: Any) -> int:
    shapes = [
        t.shape for n, t in checkpoint.required_tensors(None).items() if "embed_tokens" not in n
    ]
    return 2 * sum(int(np.prod(shape)) for shape in shapes)


def test_a_position_of_the_7b_takes_half_a_megabyte(seven_b: Any) -> None:
    assert cost.cache_position_bytes(seven_b, torch.bfloat16) == 2 * 32 * 4096 * 2 == 524_288


@pytest.mark.parametrize(
    ("device", "memory_gigabytes", "positions"),
    [
        (CPU, None, 5_376),  # 2.8 GB
        (GPU, None, 36_864),  # 19.3 GB
        (CPU, 64, 5_376),
        (CPU, 4, 1_280),  # layers are streamed: one window at a time
        (GPU, 80, 36_864),
        (GPU, 24, None),  # as many as fit beside the weights
    ],
)
def test_texts_of_the_7b(
    seven_b: Any, device: torch.device, memory_gigabytes: float | None, positions: int | None
) -> None:
    """Weights, activations and cache together take no more than they may."""
    budget = budget_of(seven_b, device, memory_gigabytes)
    settings = (seven_b, None, torch.bfloat16, device, BASE)
    cached = budget.max_positions
    assert 1_280 <= cached <= 36_864
    assert positions in (None, cached)
    budget.divide(None)
    if memory_gigabytes is not None:
        modules: Any = budget._modules
        other = cost.non_weight_bytes(*settings, cached, budget.max_frames)
        assert modules.max_bytes + other == memory_gigabytes * GIGABYTE
        if memory_gigabytes > 16:
            assert modules.max_bytes >= weight_bytes(seven_b)
    assert (
        cost.non_weight_bytes(*settings, cached) - cost.non_weight_bytes(*settings, 0)
        == cached * 524_288
    )


@pytest.mark.parametrize(
    ("memory_gigabytes", "frames"), [(2, 3_000), (4, 3_700), (8, 6_500), (16, 12_000), (80, 18_000)]
)
def test_batches_grow_with_the_memory_of_a_gpu(
    seven_b: Any, memory_gigabytes: float, frames: int
) -> None:
    """On a CPU they don't: larger ones are no faster there."""
    budget = budget_of(seven_b, GPU, memory_gigabytes)
    assert budget.max_frames == pytest.approx(frames, rel=0.02)
    assert budget_of(seven_b, CPU, memory_gigabytes).max_frames == 3_000
    least, most = (
        cost.non_weight_bytes(seven_b, None, torch.bfloat16, GPU, BASE, 0, count)
        for count in (3_000, budget.max_frames)
    )
    assert most - least <= memory_gigabytes * GIGABYTE / 8


@pytest.mark.parametrize(
    ("tap", "positions"),
    [("audio_tower", 0), ("lm.8", 0), ("lm.norm", 0), (None, 1_000), (None, 8_000)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_enough_memory_for_a_gpu_stays_enough(
    seven_b: Any, tap: str | None, positions: int, dtype: torch.dtype
) -> None:
    """From the least on: larger batches never take what two layers need."""
    settings = (seven_b, qa.Tap.parse(tap) if tap else None, dtype, GPU, BASE)
    cached = max(positions, 1_280)
    minimum = cost.min_memory_bytes(*settings, cached)
    weights = minimum - cost.non_weight_bytes(*settings, cached)
    for limit in (minimum, *(round(minimum * factor) for factor in (1.05, 1.5, 2, 4, 8))):
        modules: Any = SimpleNamespace(device=GPU, dtype=dtype, max_bytes=0)
        MemoryBudget(seven_b, modules, limit, BASE).divide(settings[1], positions)
        assert modules.max_bytes >= weights


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize(("seconds", "prompt"), [(30, 30), (5, 30), (0.1, 30), (0.1, 800), (30, 8)])
def test_batches_of_the_7b_fit_its_cache(
    seven_b: Any, device: torch.device, seconds: float, prompt: int
) -> None:
    """600 clips of 0.1 s are a batch of audio; with their answers they are 90 GB."""
    audio = max(1, int(25 * seconds))
    for memory_gigabytes in (4, 24, None):
        budget = budget_of(seven_b, device, memory_gigabytes)
        count = budget.max_frames // max(2, int(50 * seconds))
        block = block_positions(device)
        sizes = (audio + prompt, -(-(audio + prompt + 256) // block) * block)
        batches = list(budget.batches([sizes] * count, lambda size: size))
        assert sum(map(len, batches)) == count
        for batch in batches:
            assert len(batch) * sizes[1] <= budget.max_positions
            assert len(batch) == 1 or len(batch) * sizes[0] <= budget.max_frames * 5 / 8
    if seconds == 5:
        assert len(batches) == 1  # of twelve clips, on a GPU of 72


def test_an_hour_of_the_7b_keeps_what_fits(seven_b: Any) -> None:
    """120 windows: all of their keys and values would be 50 GB."""
    budget = budget_of(seven_b, CPU, None)
    owner, size = object(), 750 + 30 + 256
    contexts = [CachedContext(owner) for _ in range(120)]
    for _ in range(2):
        for context in contexts:
            budget.make_room(size, context)
            # Of no layers: it counts positions, and takes no memory.
            cache, slot = context.take((), lambda: KeyValueCache(0, 1, 1, torch.bfloat16, CPU))
            cache.reserve({slot: size})
            context.keep(cache, slot, (0,) * size)
            budget.keep(context)
            kept = sum(map(len, contexts))
            assert kept <= budget.max_positions
            assert kept * 524_288 <= 2.9 * GIGABYTE
    assert [len(context) > 0 for context in contexts].count(True) == 4
    assert len(contexts[0])  # those asked first are kept, as they are asked first again
    other = CachedContext(object())
    budget.make_room(size, other)
    assert len(contexts[0]) == 0  # those of another session go first


# Small models, with so little room that it matters.


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> int:
    """Three windows of a second with their answers: a block of 64 positions each."""
    positions = 200
    monkeypatch.setattr(cost, "cached_batch_positions", lambda *_: positions)
    return positions


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that each batch of texts takes memory for, its answers included."""
    counts: list[int] = []
    run, step = GenerationBatch.run, GenerationBatch.step

    def spy_run(self: GenerationBatch, *options: Any) -> None:
        counts.append(0)
        run(self, *options)

    def spy_step(self: GenerationBatch) -> Any:
        stepped = step(self)
        counts[-1] = max(counts[-1], self.cache.reserved_positions)
        return stepped

    monkeypatch.setattr(GenerationBatch, "run", spy_run)
    monkeypatch.setattr(GenerationBatch, "step", spy_step)
    return counts


CLIPS = [sound(seconds, seed) for seed, seconds in enumerate((1.0, 0.2, 0.5, 1.3, 0.1, 0.04))]


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> dict[str, Any]:
    model = qa.load(checkpoint)
    long = np.concatenate([sound(1.0, seed) for seed in range(5)])
    states = model.activations(CLIPS, taps=["lm.-1"], generate=5, **RATE)
    return {
        "texts": model.describe(CLIPS, max_new_tokens=5, **RATE),
        "rows": [rows["lm.-1"].data for rows in states],
        "long": long,
        "windows": model.describe(long, max_new_tokens=5, window_seconds=1, **RATE),
        "What?": model.describe(long, prompt="What?", max_new_tokens=5, window_seconds=1, **RATE),
    }


def test_texts_are_made_in_batches_that_fit(
    checkpoint: Path, expected: dict[str, Any], cached: list[int], small_cache: int
) -> None:
    model = qa.load(checkpoint)
    assert model.describe(CLIPS, max_new_tokens=5, **RATE) == expected["texts"]
    assert 1 < len(cached) < len(CLIPS)
    assert max(cached) <= small_cache
    cached.clear()
    states = model.activations(CLIPS, taps=["lm.-1"], generate=5, **RATE)
    for rows, whole in zip(states, expected["rows"], strict=True):
        np.testing.assert_allclose(rows["lm.-1"].data, whole, atol=1e-5)
    assert 1 < len(cached) < len(CLIPS)
    assert max(cached) <= small_cache


def test_prompts_that_are_longer_than_audio(
    checkpoint: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes of the language model are bounded by positions, not by audio alone."""
    lengths: list[int] = []
    model = qa.load(checkpoint)
    forward = model.pipeline.lm.forward

    def spy(inputs: Any, *arguments: Any, **options: Any) -> Any:
        lengths.append(sum(len(item.token_ids) for item in inputs))
        return forward(inputs, *arguments, **options)

    monkeypatch.setattr(model.pipeline.lm, "forward", spy)
    monkeypatch.setattr(memory_budget, "batch_positions", lambda _: 70)
    vectors = model.encode(CLIPS, tap="lm.norm", span="last", **RATE)
    assert 1 < len(lengths) < len(CLIPS)
    assert max(lengths) <= 70
    monkeypatch.undo()
    np.testing.assert_allclose(
        vectors, model.encode(CLIPS, tap="lm.norm", span="last", **RATE), atol=1e-5
    )
    assert expected


@pytest.mark.slow
def test_a_session_keeps_what_fits_and_answers_the_same(
    checkpoint: Path, expected: dict[str, Any], small_cache: int
) -> None:
    model = qa.load(checkpoint)
    sessions = [model.session(expected["long"], window_seconds=1, **RATE) for _ in range(2)]
    kept: list[list[int]] = []
    for session in (*sessions, sessions[0]):
        for prompt, texts in ((None, "windows"), ("What?", "What?")):
            assert session.ask(prompt, max_new_tokens=5) == expected[texts]
            kept.append([sum(len(s.context) for s in each._states) for each in sessions])
            assert sum(kept[-1]) <= small_cache
    assert [bool(first) for first, _ in kept[1::2]] == [True, False, True]  # used last
    del session
    sessions.clear()
    assert not list(model.pipeline.memory._kept)  # dropped with their session


def test_follow_ups_of_windows_whose_cache_was_dropped(
    checkpoint: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def conversation() -> list[str]:
        model = qa.load(checkpoint, chat=True)
        session = model.session(expected["long"], window_seconds=1, **RATE)
        return [session.ask(p, follow_up=True, max_new_tokens=4) for p in ("What?", "And?")]

    whole = conversation()
    monkeypatch.setattr(cost, "cached_batch_positions", lambda *_: 150)
    assert conversation() == whole


def test_a_long_answer_takes_memory_from_weights_or_is_refused(checkpoint: Path) -> None:
    free = qa.load(checkpoint, dtype="float32")
    position = cost.cache_position_bytes(free.pipeline.checkpoint, torch.float32)
    least = free.cost("text").min_memory_bytes
    tight = qa.load(checkpoint, dtype="float32", max_memory=least + 740 * position)
    assert tight.cost("text").cache_bytes == 1_280 * position
    memory, modules = tight.pipeline.memory, tight.pipeline.modules
    memory.divide(None)
    weights = modules.max_bytes
    memory.divide(None, 2_000)
    assert modules.max_bytes == weights - 720 * position
    clip, options = sound(0.1), {"prompt": "What?", **RATE}
    with pytest.raises(qa.OptionError, match="or fewer max_new_tokens: prompt, audio and answer"):
        tight.describe(clip, max_new_tokens=2_000, **options)
    with pytest.raises(qa.OptionError, match="or fewer max_new_tokens"):
        tight.activations(clip, taps=["lm.1"], generate=2_000, **options)


def test_kept_caches_make_room_for_other_taps(checkpoint: Path) -> None:
    free = qa.load(checkpoint, dtype="float32")
    tight = qa.load(checkpoint, dtype="float32", max_memory=free.cost("text").min_memory_bytes)
    session = tight.session(CLIPS[0], **RATE)
    session.ask(max_new_tokens=3)
    assert len(session._states[0].context) > 30
    for tap in ("lm.norm", "mel"):
        tight.encode(CLIPS[0], tap=tap, **RATE)
        memory = tight.pipeline.memory
        used = memory._kept_bytes() + tight.pipeline.modules.max_bytes
        other = cost.non_weight_bytes(
            tight.pipeline.checkpoint, tight.dimensions.tap(tap), torch.float32, CPU, BASE
        )
        assert used + other == tight.pipeline.max_memory
    assert session.ask(max_new_tokens=3) == free.describe(CLIPS[0], max_new_tokens=3, **RATE)
