"""Cost estimates compared with measured bytes, arithmetic and memory."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import qwen_audio as qa
from checkpoints import edit_json, random_checkpoint
from forked import run_forked
from qwen_audio.inference import cost as cost_module
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tensors import EMBEDDINGS
from qwen_audio.weights import safetensors_file as shards
from reference import Reference, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def in_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bfloat16, as released."""
    folder = random_checkpoint(tmp_path_factory.mktemp("bfloat16"), seed=5)
    for file in folder.glob("*.safetensors"):
        save_file({name: t.bfloat16() for name, t in load_file(file).items()}, file)
    edit_json(folder / "config.json", dtype="bfloat16")
    return folder


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Of every tensor, so far."""
    counts: dict[str, int] = {}
    for name in ("_read_values", "_read_buffered"):  # into new memory, into a reused buffer
        reading = getattr(shards, name)

        def counting(*given: Any, reading: Any = reading, **options: Any) -> torch.Tensor:
            tensor: torch.Tensor = reading(*given, **options)
            of = next(value for value in given if isinstance(value, str))
            counts[of] = counts.get(of, 0) + tensor.nbytes
            return tensor

        monkeypatch.setattr(shards, name, counting)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_estimated_bytes_are_read(
    stored: str, dtype: str, checkpoint: Path, in_bfloat16: Path, bytes_read: dict[str, int]
) -> None:
    """For any compute dtype: the dtype of storage decides."""
    folder = checkpoint if stored == "float32" else in_bfloat16
    size = 4 if stored == "float32" else 2
    for tap in qa.load(folder).taps:
        model = qa.load(folder, dtype=dtype)
        bytes_read.clear()
        plan = model.cost(tap)
        assert bytes_read == {}
        model.encode(sound(0.5), tap=tap, **RATE)
        rows = bytes_read.pop(EMBEDDINGS, 0)
        assert rows == (6 * 96 * size if tap.in_language_model else 0)
        assert sum(bytes_read.values()) == plan.read_bytes
        assert plan.download_bytes == 0
        assert plan.tap == str(tap)
    model.describe(sound(0.5), max_new_tokens=2, **RATE)
    bytes_read.pop(EMBEDDINGS)
    assert sum(bytes_read.values()) == model.cost(None).read_bytes
    assert model.cost(None).tap is None


def test_estimates_grow_with_depth(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    plans = [model.cost(tap) for tap in (*model.taps, None)]
    for field in ("tensors", "parameters", "read_bytes", "peak_memory_bytes", "gflop_per_second"):
        values = [getattr(plan, field) for plan in plans]
        assert values == sorted(values), field
    assert (plans[0].read_bytes, plans[0].gflop_per_second) == (0, 0)
    assert model.cost("lm.-1") == model.cost("lm.3")


def test_bfloat16_halves_memory_but_not_bytes_read(checkpoint: Path) -> None:
    opened = Checkpoint(checkpoint)
    for tap in (*opened.dimensions.taps(), None):
        single = estimate_cost(opened, tap, torch.float32)
        half = estimate_cost(opened, tap, torch.bfloat16)
        runtime = estimate_cost(
            opened, opened.dimensions.tap("mel"), torch.float32
        ).peak_memory_bytes
        assert (half.peak_memory_bytes - runtime) * 2 == single.peak_memory_bytes - runtime
        assert (half.min_memory_bytes - runtime) * 2 == single.min_memory_bytes - runtime
        assert half.cache_bytes * 2 == single.cache_bytes
        fields = ("cache_bytes", "peak_memory_bytes", "min_memory_bytes")
        memory = {name: getattr(half, name) for name in fields}
        assert dataclasses.replace(single, **memory) == half


def test_a_memory_limit_limits_the_estimate(checkpoint: Path) -> None:
    free = qa.load(checkpoint, max_memory="64GB")
    limit = free.cost("lm.norm").peak_memory_bytes - 1_000_000
    limited = qa.load(checkpoint, max_memory=limit)
    assert limited.cost("mel") == free.cost("mel")
    assert limited.cost("lm.norm").peak_memory_bytes == limit
    none = qa.load(checkpoint, max_memory="1MB").cost("lm.norm")
    assert none.peak_memory_bytes == none.min_memory_bytes > 1_000_000


def test_text_needs_the_whole_model(checkpoint: Path) -> None:
    model = qa.load(checkpoint)
    assert model.cost() == model.cost("text") == model.cost(None)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_minimum_memory_is_sufficient_and_necessary(
    checkpoint: Path, dtype: str, bytes_read: dict[str, int]
) -> None:
    free = qa.load(checkpoint, dtype=dtype)
    for tap in (*free.taps, None):

        def run(model: Any, tap: Any = tap) -> Any:
            if tap is None:
                return model.describe(sound(0.5), max_new_tokens=2, **RATE)
            return model.encode(sound(0.5), tap=tap, **RATE)

        least = free.cost(tap).min_memory_bytes
        expected = run(free)
        tight = qa.load(checkpoint, dtype=dtype, max_memory=least)
        np.testing.assert_array_equal(run(tight), expected)
        bytes_read.clear()
        with pytest.raises(qa.OptionError, match=r"needs at least \d+MB of memory, but only"):
            run(qa.load(checkpoint, dtype=dtype, max_memory=least - 1))
        assert bytes_read == {}  # refused before anything is read


@pytest.mark.slow
def test_taps_in_any_order_with_little_memory(checkpoint: Path) -> None:
    """Shallow taps leave more for weights than deep ones do."""
    free = qa.load(checkpoint, dtype="float32")
    tight = qa.load(checkpoint, dtype="float32", max_memory=free.cost("lm.norm").min_memory_bytes)
    for tap in ("lm.norm", "audio_tower", "lm.1", "encoder.1", "mel", "lm.norm", "audio_tower"):
        np.testing.assert_array_equal(
            tight.encode(sound(0.5), tap=tap, **RATE), free.encode(sound(0.5), tap=tap, **RATE)
        )


# Arithmetic.

GEOMETRIES: dict[str, dict[str, int]] = {
    "grouped-query": {},
    "wide": {"width": 128, "lm_width": 256, "heads": 8, "kv_heads": 8, "mel_bins": 128},
    "narrow encoder": {"width": 32, "encoder_heads": 2, "lm_width": 192, "kv_heads": 1},
}


def gflop(work: Any) -> float:
    """GFLOP that torch counts during a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


@pytest.mark.slow
@pytest.mark.parametrize("name", GEOMETRIES)
def test_estimated_flops_equal_torchs_count(name: str, tmp_path: Path) -> None:
    """30 s of audio through transformers' own modules, whose eager attention is two products.
    Torch counts the half of a causal one that is masked, too; plans have three decimals."""
    folder = random_checkpoint(tmp_path / "c", **GEOMETRIES[name])
    model, reference = qa.load(folder), Reference(folder)
    reference.model.set_attn_implementation("eager")
    config = Checkpoint(folder).family.text_config
    tower, lm = reference.tower, reference.model.model.language_model
    frames = torch.randn(1, model.dimensions.mel_bins, 3000)
    rows = torch.randn(1, 750, config.hidden_size)
    with torch.no_grad():
        encoder_gflop = gflop(lambda: tower(frames)) / 30
        projector = gflop(lambda: reference.model.model.multi_modal_projector(tower(frames)[0]))
        decoder = gflop(lambda: lm(inputs_embeds=rows)) / 30
    masked = config.num_hidden_layers * 2 * 750 * 750 * config.hidden_size / 1e9 / 30
    assert model.cost("audio_tower").gflop_per_second == pytest.approx(
        encoder_gflop, rel=0.02, abs=1e-3
    )
    assert model.cost("projector").gflop_per_second == pytest.approx(
        projector / 30, rel=0.02, abs=1e-3
    )
    expected = projector / 30 + decoder - masked
    assert model.cost("lm.norm").gflop_per_second == pytest.approx(expected, rel=0.02, abs=1e-3)
    layers = [model.cost(f"lm.{k}").gflop_per_second for k in range(4)]
    steps = [later - earlier for earlier, later in itertools.pairwise(layers)]
    assert steps == pytest.approx([(decoder - masked) / 3] * 3, rel=0.02, abs=1e-3)
    assert model.cost("lm.0").gflop_per_second == model.cost("projector").gflop_per_second


@pytest.mark.slow
def test_estimated_flops_are_computed(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same count over this package's own pass, in bfloat16, where attention is two products.
    Torch can't count products whose weights are packed."""
    monkeypatch.setattr("qwen_audio.weights.module_store.prepack_linears", lambda module: module)
    model = qa.load(checkpoint, dtype="bfloat16")
    clip = sound(30.0)
    for tap in ("encoder.0", "encoder.1", "encoder.3", "audio_tower", "projector"):
        done = gflop(lambda: model.encode(clip, tap=tap, **RATE)) / 30
        assert model.cost(tap).gflop_per_second == pytest.approx(done, rel=0.02, abs=6e-4), tap


# Memory.


@pytest.mark.slow
@pytest.mark.parametrize(("tap", "dtype"), [("audio_tower", "float32"), ("lm.norm", "bfloat16")])
def test_estimated_memory_is_near_the_peak(
    tap: str, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What a full batch adds to a process of its own, by the kernel's count of its peak.

    The bounds are wide: processors that repack weights, or lack bfloat16, need copies of them.
    """
    folder = tmp_path_factory.getbasetemp() / "medium"
    if not folder.exists():
        random_checkpoint(
            folder, width=384, encoder_heads=6, encoder_layers=6, lm_width=512, heads=8, lm_layers=6
        )
    program = f"""
import numpy as np
import qwen_audio as qa
model = qa.load({str(folder)!r}, dtype={dtype!r}, max_memory="8GB")
clips = [np.random.default_rng(k).normal(size=80_000).astype(np.float32) / 10 for k in range(12)]
model.encode(clips, tap={tap!r}, sampling_rate=16_000)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
cost = model.cost({tap!r})
print(int(peak.split()[1]) * 1024, cost.peak_memory_bytes, model.pipeline.base_bytes)
"""
    peak, estimate, base = map(int, run_forked(program).split())
    assert base > 100_000_000
    taken, estimated = peak - base, estimate - base
    assert taken / 3 <= estimated <= 3 * taken + 100_000_000


@pytest.mark.slow
def test_the_process_is_measured(process_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory in use counts, as much of it as is touched."""
    assert cost_module.process_bytes() == process_memory
    monkeypatch.undo()
    before = cost_module.process_bytes()
    block = np.ones(25_000_000, np.float64)
    assert 150_000_000 < cost_module.process_bytes() - before < 400_000_000
    assert block.sum() == 25_000_000


def test_weights_that_were_read_are_not_counted_twice(checkpoint: Path) -> None:
    model = qa.load(checkpoint, dtype="float32", max_memory="64GB")
    before = model.cost("lm.norm")
    model.encode(sound(0.5), tap="lm.norm", **RATE)
    assert model.cost("lm.norm") == before
