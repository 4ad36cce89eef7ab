"""Weights in little memory: what is kept, what is streamed, and that no number shows which."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
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

EAR, DECODER = "audio_tower.layers.", "language_model.model.layers."
HEAD = "language_model.lm_head."
CPU = torch.device("cpu")
RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five layers in the ear and six in the decoder: enough to keep some and stream others."""
    return random_checkpoint(
        tmp_path_factory.mktemp("parts"), encoder_layers=5, lm_layers=6, shards=4
    )


@pytest.fixture(scope="module")
def opened(folder: Path) -> Checkpoint:
    return Checkpoint(folder)


@pytest.fixture(scope="module")
def resident(folder: Path) -> qa.AudioModel:
    """A model with room for everything."""
    return qa.load(folder, max_memory="64GB")


def size(opened: Checkpoint | TensorStore, prefix: str, dtype: torch.dtype = torch.float32) -> int:
    """Bytes of the tensors named `prefix…`."""
    shapes = (opened.tensors if isinstance(opened, Checkpoint) else opened).shapes
    numbers = (math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix))
    return sum(numbers) * dtype.itemsize


def singles(opened: Checkpoint) -> int:
    """Bytes of everything that a forward holds beside layers, the head left out."""
    everything = size(opened, "") - size(opened, "language_model.model.embed_tokens.")
    return everything - size(opened, EAR) - size(opened, DECODER) - size(opened, HEAD)


class Watch:
    """Which weights are alive, and how often each part has been read from its files."""

    parts: ModuleStore
    """Whose weights were read last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: Counter[str] = Counter()
        self.most_bytes = self.most_layers = 0
        self._alive: dict[str, weakref.ref[nn.Module]] = {}
        self._begun: dict[str, int] = {}
        self._lock = threading.Lock()
        read, filled = TensorStore.read, ModuleStore._fill

        def watched_read(checkpoint: TensorStore, prefix: str, **options: Any) -> Any:
            with self._lock:
                self.reads[prefix] += 1
                self._begun[prefix] = size(checkpoint, prefix)
            tensors = read(checkpoint, prefix, **options)
            return _Named(tensors, prefix)

        def watched_filled(parts: ModuleStore, build: Any, tensors: Any) -> nn.Module:
            self.modules = parts
            module = filled(parts, build, tensors)
            with self._lock:
                self._begun.pop(tensors.prefix)
                self._alive[tensors.prefix] = weakref.ref(module)
            self.look(parts)
            return module

        monkeypatch.setattr(TensorStore, "read", watched_read)
        monkeypatch.setattr(ModuleStore, "_fill", watched_filled)

    def forget(self) -> None:
        """What is alive now is another model's."""
        self._alive.clear()
        self.most_bytes = self.most_layers = 0

    def alive(self) -> dict[str, int]:
        """The bytes of every part that is held, or on its way, at this moment."""
        with self._lock:
            held = dict(self._begun)
            for prefix, ref in self._alive.items():
                if (module := ref()) is not None:
                    held[prefix] = sum(p.numel() * p.element_size() for p in module.parameters())
        return held

    def look(self, parts: ModuleStore) -> None:
        """Take note of what is alive; called while a layer is in use."""
        held = self.alive()
        self.most_bytes = max(self.most_bytes, sum(held.values()))
        streamed = [name for name in held if "layers." in name and name not in parts._resident]
        self.most_layers = max(self.most_layers, len(streamed))


class _Named(dict[str, torch.Tensor]):
    """Tensors that remember whose they are."""

    def __init__(self, tensors: dict[str, torch.Tensor], prefix: str) -> None:
        super().__init__(tensors)
        self.prefix = prefix


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def layer_of(opened: Checkpoint, stack: str) -> Any:
    """How to build a layer of a stack."""
    if stack == EAR:
        return lambda _: Qwen2AudioEncoderLayer(opened.audio_config)
    return lambda k: Qwen2DecoderLayer(opened.text_config, layer_idx=k)


def threads() -> list[str]:
    """Names of the threads that read weights or audio."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith(("weights", "audio", "prefetch"))]


def no_threads() -> bool:
    """Whether they are gone, soon."""
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads()


# The modules alone.

passes = st.lists(
    st.sampled_from([*((DECODER, depth) for depth in range(7)), (EAR, 2), (EAR, 5), (HEAD, 1)]),
    min_size=1,
    max_size=6,
)


@settings(max_examples=50)
@given(passes=passes, layers=st.floats(2, 10))
def test_whatever_is_asked_for_in_turn_stays_in_the_budget(
    opened: Checkpoint, passes: list[tuple[str, int]], layers: float
) -> None:
    """From room for two decoder layers up to room for all that is asked for here."""
    budget = int(layers * size(opened, f"{DECODER}0."))
    expected = opened.tensors.read("")
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch = Watch(monkeypatch)
        parts = ModuleStore(opened.tensors, CPU, torch.float32, budget)
        for stack, depth in passes:
            if stack == HEAD:
                parts.get(HEAD, lambda: nn.Linear(96, 1104, bias=False))
                continue
            before, seen = watch.reads.copy(), 0
            for k, layer in enumerate(parts.layers(stack, depth, layer_of(opened, stack))):
                watch.look(parts)
                for name, tensor in layer.state_dict().items():
                    assert torch.equal(tensor, expected[f"{stack}{k}.{name}"])
                seen += 1
                del layer
            assert seen == depth
            again = watch.reads - before
            assert all(count == 1 for count in again.values()), "read twice in one pass"
        assert watch.most_bytes <= budget
        assert watch.most_layers <= 2


def test_a_deeper_pass_after_a_shallower_one_stays_in_the_budget(
    opened: Checkpoint, watch: Watch
) -> None:
    """What the first pass could keep is more than the second one can."""
    layer_bytes = size(opened, f"{DECODER}0.")
    parts = ModuleStore(opened.tensors, CPU, torch.float32, int(3.5 * layer_bytes))
    for depth, kept in ((3, 3), (6, 1), (6, 1)):
        for layer in parts.layers(DECODER, depth, layer_of(opened, DECODER)):
            watch.look(parts)
            del layer
        assert len(parts._resident) == kept
    assert watch.most_bytes <= 3.5 * layer_bytes


def test_what_is_kept_is_read_once_and_what_is_streamed_once_a_pass(
    opened: Checkpoint, watch: Watch
) -> None:
    parts = ModuleStore(opened.tensors, CPU, torch.float32, int(4.5 * size(opened, f"{DECODER}0.")))
    for _ in range(3):
        for layer in parts.layers(DECODER, 6, layer_of(opened, DECODER)):
            del layer
    assert [watch.reads[f"{DECODER}{k}."] for k in range(6)] == [1, 1, 3, 3, 3, 3]
    parts.release()
    assert watch.alive() == {}


def test_the_next_layer_is_read_while_one_computes(opened: Checkpoint, watch: Watch) -> None:
    parts = ModuleStore(opened.tensors, CPU, torch.float32, 2 * size(opened, f"{DECODER}0."))
    layers = parts.layers(DECODER, 3, layer_of(opened, DECODER))
    for k in range(3):
        layer = next(layers)
        deadline = time.monotonic() + 5
        while k < 2 and not watch.reads[f"{DECODER}{k + 1}."] and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [watch.reads[f"{DECODER}{n}."] for n in range(3)] == [1] * min(k + 2, 3) + [0] * (
            1 - k
        )
        del layer
    assert next(layers, None) is None
    assert not threads()


@pytest.mark.parametrize("budget", [0, 1.9])
def test_less_than_two_layers_is_an_error_that_says_how_much_more(
    opened: Checkpoint, budget: float
) -> None:
    layer_bytes = size(opened, f"{DECODER}0.")
    parts = ModuleStore(opened.tensors, CPU, torch.float32, int(budget * layer_bytes))
    with pytest.raises(qa.OptionError, match=r"max_memory .* two layers .* in float32: give .* GB"):
        next(parts.layers(DECODER, 6, layer_of(opened, DECODER)))
    assert not threads()


def test_a_pass_that_is_left_ends_its_thread(opened: Checkpoint) -> None:
    parts = ModuleStore(opened.tensors, CPU, torch.float32, 2 * size(opened, f"{DECODER}0."))
    layers: Any = parts.layers(DECODER, 6, layer_of(opened, DECODER))
    next(layers)
    assert threads()
    layers.close()
    assert not threads()


# The whole line.


def budgets(opened: Checkpoint) -> Iterator[int]:
    """From the least that a pass can do with to room for everything."""
    least = 2 * size(opened, f"{DECODER}0.")
    everything = size(opened, "")
    for share in (0, 0.02, 0.15, 0.4, 0.75, 1):
        yield int(least + share * (everything - least))


def small(folder: Path, opened: Checkpoint, budget: int, **options: Any) -> qa.AudioModel:
    """A model that may hold so many bytes of weights."""
    dtype = getattr(torch, options.setdefault("dtype", "float32"))
    return qa.load(folder, max_memory=non_weight_bytes(opened, None, dtype) + budget, **options)


@pytest.fixture
def every_layer(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> list[tuple[str, int]]:
    """Every call of a layer, in order; and a look at what is alive at each."""
    calls: list[tuple[str, int]] = []
    for kind, name in ((Qwen2AudioEncoderLayer, EAR), (Qwen2DecoderLayer, DECODER)):
        forward = kind.forward

        def counted(
            layer: Any, *args: Any, _forward: Any = forward, _name: str = name, **options: Any
        ) -> Any:
            calls.append((_name, len(args[0][0])))
            watch.look(watch.modules)
            return _forward(layer, *args, **options)

        monkeypatch.setattr(kind, "forward", counted)
    return calls


CLIPS = [sound(seconds, seed) for seed, seconds in enumerate((0.7, 2.0, 0.04))]


def test_streamed_numbers_are_the_resident_ones_to_the_last_bit(
    folder: Path,
    opened: Checkpoint,
    resident: qa.AudioModel,
    watch: Watch,
    every_layer: list[tuple[str, int]],
) -> None:
    """Every tap, the states of generated tokens, and what is said; in whatever memory."""
    taps = [str(tap) for tap in resident.taps]
    options: dict[str, Any] = {"taps": taps, "generate": 3, **RATE}
    expected = resident.activations(CLIPS, **options)
    said = resident.describe(CLIPS, max_new_tokens=4, **RATE)
    streamed = []
    for budget in budgets(opened):
        watch.forget()
        model = small(folder, opened, budget)
        found = model.activations(CLIPS, **options)
        for ours, theirs in zip(found, expected, strict=True):
            for tap in taps:
                np.testing.assert_array_equal(ours[tap].data, theirs[tap].data)
        again = model.describe(CLIPS, max_new_tokens=4, **RATE)
        assert [a.answers for a in again] == [a.answers for a in said]
        assert watch.most_bytes <= budget
        streamed.append(watch.most_layers)
    assert streamed[0] == 2
    assert streamed == sorted(streamed, reverse=True)
    assert not threads()


def test_bfloat16_streams_the_same_numbers(folder: Path, opened: Checkpoint) -> None:
    taps = ["encoder.5", "projector", "lm.2", "lm.norm"]
    budget = 2 * size(opened, f"{DECODER}0.", torch.bfloat16)
    model = small(folder, opened, budget, dtype="bfloat16")
    expected = qa.load(folder, dtype="bfloat16", max_memory="64GB")
    for ours, theirs in zip(
        model.activations(CLIPS, taps=taps, **RATE),
        expected.activations(CLIPS, taps=taps, **RATE),
        strict=True,
    ):
        for tap in taps:
            np.testing.assert_array_equal(ours[tap].data, theirs[tap].data)


def test_a_streamed_pass_equals_transformers(folder: Path, opened: Checkpoint) -> None:
    model = small(folder, opened, 2 * size(opened, f"{DECODER}0."))
    reference = Reference(folder)
    taps = [str(tap) for tap in model.taps]
    for clip, frames in zip(CLIPS, model.activations(CLIPS, taps=taps, **RATE), strict=True):
        theirs = reference.taps(clip)
        for tap in taps:
            assert relative_error(frames[tap].data, theirs[tap]) < 1e-5, tap


def test_all_clips_go_through_each_layer_and_none_below_the_tap_is_read(
    folder: Path, opened: Checkpoint, watch: Watch, every_layer: list[tuple[str, int]]
) -> None:
    model = small(folder, opened, 2 * size(opened, f"{DECODER}0."))
    model.encode(CLIPS, tap="lm.4", **RATE)
    assert [stack for stack, _ in every_layer] == [EAR] * 5 + [DECODER] * 4
    frames = {rows for stack, rows in every_layer if stack == EAR}
    assert frames == {35 + 100 + 2}
    layers = {name: n for name, n in watch.reads.items() if name.startswith((EAR, DECODER))}
    assert layers == {f"{EAR}{k}.": 1 for k in range(5)} | {f"{DECODER}{k}.": 1 for k in range(4)}


def test_the_ear_makes_room_for_the_language_model(
    folder: Path, opened: Checkpoint, watch: Watch
) -> None:
    """Kept whole while nothing else is wanted, and let go of where the decoder needs its room."""
    model = small(folder, opened, singles(opened) + size(opened, EAR))
    for _ in range(2):
        model.encode(CLIPS, **RATE)
    kept = model.pipeline.modules._resident
    assert [name for name in kept if name.startswith(EAR)] == [f"{EAR}{k}." for k in range(5)]
    assert all(count == 1 for count in watch.reads.values())
    model.encode(CLIPS, tap="lm.norm", **RATE)
    assert not all(f"{EAR}{k}." in kept for k in range(5))


@pytest.mark.parametrize("memory", ["1MB", "450MB"])
def test_memory_that_holds_no_two_layers_is_one_line(folder: Path, memory: str) -> None:
    model = qa.load(folder, max_memory=memory)
    for call in (model.encode, model.describe):
        with pytest.raises(qa.OptionError, match=f"may take {memory}: give max_memory='") as raised:
            call(CLIPS[0], **RATE)
        message = str(raised.value)
        assert "\n" not in message
        enough = message.partition("max_memory='")[2].partition("'")[0]
        assert (
            getattr(qa.load(folder, max_memory=enough), call.__name__)(CLIPS[0], **RATE) is not None
        )


def test_a_head_that_does_not_fit_is_an_error_too(tmp_path: Path) -> None:
    folder = random_checkpoint(
        tmp_path / "narrow", width=16, encoder_heads=2, lm_width=32, heads=2, kv_heads=1
    )
    opened = Checkpoint(folder)
    budget = size(opened, HEAD) - 1
    assert budget > 2 * size(opened, f"{DECODER}0.")
    model = qa.load(
        folder, max_memory=non_weight_bytes(opened, None, torch.float32) + budget, dtype="float32"
    )
    assert model.encode(CLIPS[0], tap="lm.norm", **RATE).shape == (32,)
    with pytest.raises(qa.OptionError, match=r"^text of .* takes 568MB of memory at the least"):
        model.describe(CLIPS[0], **RATE)


def test_a_pass_that_fails_leaves_no_thread(folder: Path, opened: Checkpoint) -> None:
    model = small(folder, opened, 2 * size(opened, f"{DECODER}0."))
    line = model.pipeline
    mel = line.log_mel(CLIPS[0])

    def fail(tap: qa.Tap, *_: Any) -> None:
        if tap.layer == 2:
            raise ArithmeticError(str(tap))

    def encode(tap: str) -> None:
        try:
            line.encoder.forward([mel], [model.dimensions.tap(tap)], fail)
        except ArithmeticError:
            return
        raise AssertionError("nothing failed")

    encode("encoder.2")
    assert not threads()
    assert model.encode(CLIPS[0], **RATE).shape == (64,)


@pytest.mark.parametrize("layers", [2.0, 3.5, 1000.0])
def test_what_is_free_decides_where_no_memory_is_given(
    folder: Path,
    opened: Checkpoint,
    resident: qa.AudioModel,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    layers: float,
) -> None:
    """Nine tenths of it are taken: layers that do not fit are streamed unasked."""
    budget = int(layers * size(opened, f"{DECODER}0."))
    free = int((non_weight_bytes(opened, None, torch.float32, base_bytes=0) + budget) / 0.9) + 2
    monkeypatch.setattr(model_module, "available_bytes", lambda _: free)
    model = qa.load(folder, dtype="float32")
    for _ in range(2):
        vectors = model.encode(CLIPS, tap="lm.norm", **RATE)
    assert watch.most_bytes <= budget + 2
    assert (watch.reads[f"{DECODER}5."] == 1) == (layers == 1000)
    np.testing.assert_array_equal(vectors, resident.encode(CLIPS, tap="lm.norm", **RATE))
