"""Weights in limited memory: which are resident, which streamed, and that results are equal."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

import qwen_audio as qa
from checkpoints import random_checkpoint
from qwen_audio.api import model as model_module
from qwen_audio.inference.cost import non_weight_bytes
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights.module_store import ModuleStore
from qwen_audio.weights.tensor_store import TensorStore
from reference import Reference, relative_error, sound

ENCODER, DECODER = "audio_tower.layers.", "language_model.model.layers."
HEAD = "language_model.lm_head."
CPU = torch.device("cpu")
RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five encoder and six decoder layers: enough for some to be resident and others streamed."""
    return random_checkpoint(
        tmp_path_factory.mktemp("modules"), encoder_layers=5, lm_layers=6, shards=4
    )


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(folder)


@pytest.fixture(scope="module")
def resident(folder: Path) -> qa.AudioModel:
    """A model with all weights in memory."""
    return qa.load(folder, max_memory="64GB")


def byte_count(
    checkpoint: Checkpoint | TensorStore, prefix: str, dtype: torch.dtype = torch.float32
) -> int:
    """Bytes of the tensors named `prefix…`."""
    shapes = (checkpoint.tensors if isinstance(checkpoint, Checkpoint) else checkpoint).shapes
    counts = (math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    return sum(counts) * dtype.itemsize


def non_layer_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of all modules of a pass except the layers and the head."""
    everything = byte_count(checkpoint, "") - byte_count(
        checkpoint, "language_model.model.embed_tokens."
    )
    return (
        everything
        - byte_count(checkpoint, ENCODER)
        - byte_count(checkpoint, DECODER)
        - byte_count(checkpoint, HEAD)
    )


class WeightMonitor:
    """Records which weights are in memory, and how often each module is read from its files.

    Attributes:
        reads: number of reads by prefix.
        peak_bytes: of all weights in memory, those being read included.
        peak_streamed_layers: most streamed layers in memory together.
        modules: the store whose weights were read last.
    """

    modules: ModuleStore

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: Counter[str] = Counter()
        self.peak_bytes = self.peak_streamed_layers = 0
        self._filled: dict[str, weakref.ref[nn.Module]] = {}
        self._being_read: dict[str, int] = {}
        self._lock = threading.Lock()
        read, fill = TensorStore.read_weights, ModuleStore._fill

        def recording_read(tensors: TensorStore, prefix: str, **options: Any) -> Any:
            with self._lock:
                self.reads[prefix] += 1
                self._being_read[prefix] = byte_count(tensors, prefix)
            return _TensorsWithPrefix(read(tensors, prefix, **options), prefix)

        def recording_fill(
            modules: ModuleStore, build: Any, prefix: str, tensors: Any
        ) -> nn.Module:
            self.modules = modules
            module = fill(modules, build, prefix, tensors)
            with self._lock:
                self._being_read.pop(tensors.prefix)
                self._filled[tensors.prefix] = weakref.ref(module)
            self.record(modules)
            return module

        monkeypatch.setattr(TensorStore, "read_weights", recording_read)
        monkeypatch.setattr(ModuleStore, "_fill", recording_fill)

    def reset(self) -> None:
        """Start anew, for another model."""
        self._filled.clear()
        self.peak_bytes = self.peak_streamed_layers = 0

    def live_bytes(self) -> dict[str, int]:
        """Bytes of every module that is in memory or being read now."""
        with self._lock:
            live = dict(self._being_read)
            for prefix, ref in self._filled.items():
                if (module := ref()) is not None:
                    live[prefix] = sum(p.numel() * p.element_size() for p in module.parameters())
        return live

    def record(self, modules: ModuleStore) -> None:
        """Update the peaks; called while a layer is in use."""
        live = self.live_bytes()
        self.peak_bytes = max(self.peak_bytes, sum(live.values()))
        streamed = [name for name in live if "layers." in name and name not in modules._resident]
        self.peak_streamed_layers = max(self.peak_streamed_layers, len(streamed))


class _TensorsWithPrefix(dict[str, Any]):
    """Weights, and the prefix that they were read by."""

    def __init__(self, tensors: Mapping[str, Any], prefix: str) -> None:
        super().__init__(tensors)
        self.prefix = prefix


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> WeightMonitor:
    return WeightMonitor(monkeypatch)


def layer_builder(checkpoint: Checkpoint, stack: str) -> Any:
    """Function that builds layer k of a stack."""
    if stack == ENCODER:
        return lambda _: Qwen2AudioEncoderLayer(checkpoint.family.audio_config)
    return lambda k: Qwen2DecoderLayer(checkpoint.family.text_config, layer_idx=k)


def threads() -> list[str]:
    """Names of running threads that read weights or audio."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("weights", "audio", "prefetch"))]


# ModuleStore alone.

passes = st.lists(
    st.sampled_from(
        [*((DECODER, depth) for depth in range(7)), (ENCODER, 2), (ENCODER, 5), (HEAD, 1)]
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=30)
@given(passes=passes, layers=st.floats(2, 10))
def test_any_sequence_of_passes_stays_within_the_budget(
    checkpoint: Checkpoint, passes: list[tuple[str, int]], layers: float
) -> None:
    """For budgets from two decoder layers up to everything that is needed here."""
    budget = int(layers * byte_count(checkpoint, f"{DECODER}0."))
    expected = checkpoint.tensors.read("")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monitor = WeightMonitor(monkeypatch)
        modules = ModuleStore(checkpoint.tensors, CPU, torch.float32, budget)
        for stack, depth in passes:
            if stack == HEAD:
                modules.get(HEAD, lambda: nn.Linear(96, 1104, bias=False))
                continue
            reads_before, layer_count = monitor.reads.copy(), 0
            for k, layer in enumerate(
                modules.layers(stack, depth, layer_builder(checkpoint, stack))
            ):
                monitor.record(modules)
                for name, tensor in layer.state_dict().items():
                    assert torch.equal(tensor, expected[f"{stack}{k}.{name}"])
                layer_count += 1
                del layer
            assert layer_count == depth
            reads = monitor.reads - reads_before
            assert all(count == 1 for count in reads.values()), "read twice in one pass"
        assert monitor.peak_bytes <= budget
        assert monitor.peak_streamed_layers <= 2


def test_a_deeper_pass_after_a_shallower_one_stays_within_the_budget(
    checkpoint: Checkpoint, monitor: WeightMonitor
) -> None:
    """More layers can be resident in the first pass than in the second."""
    layer_bytes = byte_count(checkpoint, f"{DECODER}0.")
    modules = ModuleStore(checkpoint.tensors, CPU, torch.float32, int(3.5 * layer_bytes))
    for depth, resident_count in ((3, 3), (6, 1), (6, 1)):
        for layer in modules.layers(DECODER, depth, layer_builder(checkpoint, DECODER)):
            monitor.record(modules)
            del layer
        assert len(modules._resident) == resident_count
    assert monitor.peak_bytes <= 3.5 * layer_bytes


def test_resident_layers_are_read_once_and_streamed_ones_once_a_pass(
    checkpoint: Checkpoint, monitor: WeightMonitor
) -> None:
    modules = ModuleStore(
        checkpoint.tensors, CPU, torch.float32, int(4.5 * byte_count(checkpoint, f"{DECODER}0."))
    )
    for _ in range(3):
        for layer in modules.layers(DECODER, 6, layer_builder(checkpoint, DECODER)):
            del layer
    assert [monitor.reads[f"{DECODER}{k}."] for k in range(6)] == [1, 1, 3, 3, 3, 3]
    modules.release()
    assert monitor.live_bytes() == {}


def test_the_next_layer_is_read_while_one_computes(
    checkpoint: Checkpoint, monitor: WeightMonitor
) -> None:
    modules = ModuleStore(
        checkpoint.tensors, CPU, torch.float32, 2 * byte_count(checkpoint, f"{DECODER}0.")
    )
    layers = modules.layers(DECODER, 3, layer_builder(checkpoint, DECODER))
    for k in range(3):
        layer = next(layers)
        deadline = time.monotonic() + 5
        while k < 2 and not monitor.reads[f"{DECODER}{k + 1}."] and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [monitor.reads[f"{DECODER}{n}."] for n in range(3)] == [1] * min(k + 2, 3) + [0] * (
            1 - k
        )
        del layer
    assert next(layers, None) is None
    assert not threads()


@pytest.mark.parametrize("budget", [0, 1.9])
def test_memory_for_less_than_two_layers_is_an_error_with_the_bytes_lacking(
    checkpoint: Checkpoint, budget: float
) -> None:
    layer_bytes = byte_count(checkpoint, f"{DECODER}0.")
    modules = ModuleStore(checkpoint.tensors, CPU, torch.float32, int(budget * layer_bytes))
    with pytest.raises(qa.OptionError, match=r"max_memory .* two layers .* in float32: give .* GB"):
        next(modules.layers(DECODER, 6, layer_builder(checkpoint, DECODER)))
    assert not threads()


def test_an_abandoned_pass_ends_its_thread(checkpoint: Checkpoint) -> None:
    modules = ModuleStore(
        checkpoint.tensors, CPU, torch.float32, 2 * byte_count(checkpoint, f"{DECODER}0.")
    )
    layers: Any = modules.layers(DECODER, 6, layer_builder(checkpoint, DECODER))
    next(layers)
    assert threads()
    layers.close()
    assert not threads()


# Whole models.


def budgets(checkpoint: Checkpoint) -> Iterator[int]:
    """From the smallest that a pass works with to all weights."""
    smallest = 2 * byte_count(checkpoint, f"{DECODER}0.")
    everything = byte_count(checkpoint, "")
    for fraction in (0, 0.02, 0.15, 0.4, 0.75, 1):
        yield int(smallest + fraction * (everything - smallest))


def limited_model(
    folder: Path, checkpoint: Checkpoint, budget: int, **options: Any
) -> qa.AudioModel:
    """A model with `budget` bytes for weights."""
    dtype = getattr(torch, options.setdefault("dtype", "float32"))
    return qa.load(folder, max_memory=non_weight_bytes(checkpoint, None, dtype) + budget, **options)


@pytest.fixture
def layer_calls(monkeypatch: pytest.MonkeyPatch, monitor: WeightMonitor) -> list[tuple[str, int]]:
    """(stack, rows) of every call of a layer, in order; updates the monitor at each."""
    calls: list[tuple[str, int]] = []
    for kind, name in ((Qwen2AudioEncoderLayer, ENCODER), (Qwen2DecoderLayer, DECODER)):
        forward = kind.forward

        def recording_forward(
            layer: Any, *args: Any, _forward: Any = forward, _name: str = name, **options: Any
        ) -> Any:
            calls.append((_name, len(args[0][0])))
            monitor.record(monitor.modules)
            return _forward(layer, *args, **options)

        monkeypatch.setattr(kind, "forward", recording_forward)
    return calls


CLIPS = [sound(seconds, seed) for seed, seconds in enumerate((0.7, 2.0, 0.04))]


@pytest.mark.slow
def test_streamed_results_equal_resident_ones_bit_for_bit(
    folder: Path,
    checkpoint: Checkpoint,
    resident: qa.AudioModel,
    monitor: WeightMonitor,
    layer_calls: list[tuple[str, int]],
) -> None:
    """Every tap, generated tokens included, and every answer, for any budget."""
    taps = [str(tap) for tap in resident.taps]
    options: dict[str, Any] = {"taps": taps, "generate": 3, **RATE}
    expected = resident.activations(CLIPS, **options)
    expected_answers = resident.describe(CLIPS, max_new_tokens=4, **RATE)
    streamed_layers = []
    for budget in budgets(checkpoint):
        monitor.reset()
        model = limited_model(folder, checkpoint, budget)
        activations = model.activations(CLIPS, **options)
        for actual, reference in zip(activations, expected, strict=True):
            for tap in taps:
                np.testing.assert_array_equal(actual[tap].data, reference[tap].data)
        answers = model.describe(CLIPS, max_new_tokens=4, **RATE)
        assert [a.answers for a in answers] == [a.answers for a in expected_answers]
        # While audio is encoded, no keys and values are cached yet.
        assert monitor.peak_bytes <= budget + model.cost("text").cache_bytes
        streamed_layers.append(monitor.peak_streamed_layers)
    assert streamed_layers[0] == 2
    assert streamed_layers == sorted(streamed_layers, reverse=True)
    assert not threads()


@pytest.mark.slow
def test_streamed_bfloat16_results_equal_resident_ones(
    folder: Path, checkpoint: Checkpoint
) -> None:
    taps = ["encoder.5", "projector", "lm.2", "lm.norm"]
    budget = 2 * byte_count(checkpoint, f"{DECODER}0.", torch.bfloat16)
    model = limited_model(folder, checkpoint, budget, dtype="bfloat16")
    expected = qa.load(folder, dtype="bfloat16", max_memory="64GB")
    for actual, reference in zip(
        model.activations(CLIPS, taps=taps, **RATE),
        expected.activations(CLIPS, taps=taps, **RATE),
        strict=True,
    ):
        for tap in taps:
            np.testing.assert_array_equal(actual[tap].data, reference[tap].data)


@pytest.mark.slow
def test_a_streamed_pass_equals_transformers(folder: Path, checkpoint: Checkpoint) -> None:
    model = limited_model(folder, checkpoint, 2 * byte_count(checkpoint, f"{DECODER}0."))
    reference = Reference(folder)
    taps = [str(tap) for tap in model.taps]
    for clip, actual in zip(CLIPS, model.activations(CLIPS, taps=taps, **RATE), strict=True):
        expected = reference.taps(clip)
        for tap in taps:
            assert relative_error(actual[tap].data, expected[tap]) < 1e-5, tap


def test_each_layer_processes_all_clips_at_once_and_layers_after_the_tap_are_not_read(
    folder: Path, checkpoint: Checkpoint, monitor: WeightMonitor, layer_calls: list[tuple[str, int]]
) -> None:
    model = limited_model(folder, checkpoint, 2 * byte_count(checkpoint, f"{DECODER}0."))
    model.encode(CLIPS, tap="lm.4", **RATE)
    assert [stack for stack, _ in layer_calls] == [ENCODER] * 5 + [DECODER] * 4
    row_counts = {rows for stack, rows in layer_calls if stack == ENCODER}
    assert row_counts == {35 + 100 + 2}
    layer_reads = {
        name: n for name, n in monitor.reads.items() if name.startswith((ENCODER, DECODER))
    }
    assert layer_reads == {f"{ENCODER}{k}.": 1 for k in range(5)} | {
        f"{DECODER}{k}.": 1 for k in range(4)
    }


def test_the_encoder_is_evicted_for_the_language_model(
    folder: Path, checkpoint: Checkpoint, monitor: WeightMonitor
) -> None:
    """Resident while nothing else is needed, and evicted where the decoder needs its memory."""
    weights = non_layer_bytes(checkpoint) + byte_count(checkpoint, ENCODER)
    cache = qa.load(folder, max_memory=1).cost("text").cache_bytes  # of texts, not of taps
    model = limited_model(folder, checkpoint, weights - cache)
    for _ in range(2):
        model.encode(CLIPS, **RATE)
    resident = model.pipeline.modules._resident
    assert [name for name in resident if name.startswith(ENCODER)] == [
        f"{ENCODER}{k}." for k in range(5)
    ]
    assert all(count == 1 for count in monitor.reads.values())
    model.encode(CLIPS, tap="lm.norm", **RATE)
    assert not all(f"{ENCODER}{k}." in resident for k in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["1MB", "450MB"])
def test_too_little_memory_is_an_error_that_names_enough(folder: Path, memory: str) -> None:
    model = qa.load(folder, max_memory=memory)
    for name, options in (("encode", RATE), ("describe", {"max_new_tokens": 2, **RATE})):
        with pytest.raises(
            qa.OptionError, match=f"only {memory} may be used: give max_memory='"
        ) as raised:
            getattr(model, name)(CLIPS[0], **options)
        message = str(raised.value)
        assert "\n" not in message
        enough = message.partition("max_memory='")[2].partition("'")[0]
        streamed = qa.load(folder, max_memory=enough)
        assert getattr(streamed, name)(CLIPS[0], **options) is not None


def test_a_head_that_does_not_fit_is_an_error_too(tmp_path: Path) -> None:
    folder = random_checkpoint(
        tmp_path / "narrow", width=16, encoder_heads=2, lm_width=32, heads=2, kv_heads=1
    )
    checkpoint = Checkpoint(folder)
    budget = byte_count(checkpoint, HEAD) - 1
    assert budget > 2 * byte_count(checkpoint, f"{DECODER}0.")
    model = qa.load(
        folder,
        max_memory=non_weight_bytes(checkpoint, None, torch.float32) + budget,
        dtype="float32",
    )
    assert model.encode(CLIPS[0], tap="lm.norm", **RATE).shape == (32,)
    with pytest.raises(qa.OptionError, match=r"^text of .* needs at least 568MB of memory"):
        model.describe(CLIPS[0], **RATE)


def test_a_pass_that_fails_leaves_no_thread(folder: Path, checkpoint: Checkpoint) -> None:
    model = limited_model(folder, checkpoint, 2 * byte_count(checkpoint, f"{DECODER}0."))
    pipeline = model.pipeline
    mel = pipeline.log_mel(CLIPS[0])

    def fail(tap: qa.Tap, *_: Any) -> None:
        if tap.layer == 2:
            raise ArithmeticError(str(tap))

    def encode(tap: str) -> None:
        try:
            pipeline.encoder.forward([mel], [model.dimensions.tap(tap)], fail)
        except ArithmeticError:
            return
        raise AssertionError("nothing failed")

    encode("encoder.2")
    assert not threads()
    assert model.encode(CLIPS[0], **RATE).shape == (64,)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2.0, 3.5, 1000.0])
def test_without_max_memory_the_available_memory_is_the_limit(
    folder: Path,
    checkpoint: Checkpoint,
    resident: qa.AudioModel,
    monitor: WeightMonitor,
    monkeypatch: pytest.MonkeyPatch,
    layers: float,
) -> None:
    """90 % of it are used: layers that don't fit are streamed."""
    budget = int(layers * byte_count(checkpoint, f"{DECODER}0."))
    other = non_weight_bytes(checkpoint, qa.Tap.parse("lm.norm"), torch.float32, base_bytes=0)
    available = int((other + budget) / 0.9) + 2
    monkeypatch.setattr(model_module, "available_bytes", lambda _: available)
    model = qa.load(folder, dtype="float32")
    for _ in range(2):
        vectors = model.encode(CLIPS, tap="lm.norm", **RATE)
    assert monitor.peak_bytes <= budget + 2
    assert (monitor.reads[f"{DECODER}5."] == 1) == (layers == 1000)
    np.testing.assert_array_equal(vectors, resident.encode(CLIPS, tap="lm.norm", **RATE))


def test_generating_a_token_looks_no_weights_up(
    resident: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model in memory: neither sizes of tensors, nor threads and buffers to read them."""
    names: list[str] = []

    class RecordedShapes(dict[str, tuple[int, ...]]):
        def items(self) -> Any:
            names.extend(self)
            return super().items()

    tensors = resident.pipeline.checkpoint.tensors
    resident.describe(sound(0.1), max_new_tokens=1, **RATE)
    monkeypatch.setattr(tensors, "shapes", RecordedShapes(tensors.shapes))
    monkeypatch.setattr("qwen_audio.weights.module_store.ReadBuffer", None)
    monkeypatch.setattr("qwen_audio.weights.module_store.WorkerThreads", None)
    calls: Counter[int] = Counter()

    def count(_: str) -> None:
        calls[len(calls)] = len(names)

    resident.describe(sound(0.1), max_new_tokens=4, stream=count, **RATE)
    assert len(set(calls.values())) == 1  # what costs are looked up for, once a question
