"""Quantised weights in the cache: made module by module, whole or not at all, and read alone."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from checkpoints import random_checkpoint
from qwen_audio.errors import CheckpointError, CollectionError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights.option_values import QUANTIZATIONS
from qwen_audio.weights.quantization import quantize_matrix
from qwen_audio.weights.tensor_store import TensorStore
from reference import relative_error, sound

CLIP = sound(0.4)
OPTIONS: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 64, "encoder_layers": 2, "encoder_heads": 2, "lm_width": 128, "lm_layers": 3}
    return random_checkpoint(tmp_path_factory.mktemp("base"), shards=1, **sizes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", tmp_path / "assets")
    return tmp_path / "assets"


def files(cache: Path) -> list[str]:
    """Of the modules that have been quantised, in any folder."""
    return sorted(path.name.removesuffix(".safetensors") for path in cache.rglob("*.safetensors"))


def hidden_states(model: qa.AudioModel, tap: str = "lm.norm") -> Any:
    return np.asarray(model.activations(CLIP, taps=[tap], **OPTIONS)[tap])


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_hidden_states_are_those_of_dequantised_weights(
    base: Path, cache: Path, tmp_path: Path, quantize: str
) -> None:
    opened = Checkpoint(base, quantize=quantize)
    assert opened.quantized is not None
    folder = tmp_path / "dequantised"
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, form in opened.quantized.formats.items():
        tensors[name] = quantize_matrix(tensors[name], form).dequantize(torch.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    dense = qa.load(folder, dtype="float32")
    quantized = qa.load(base, dtype="float32", quantize=quantize)
    for tap in ("encoder.2", "lm.1", "lm.norm"):
        ours, expected = hidden_states(quantized, tap), hidden_states(dense, tap)
        # Where activations are quantised, too, or bfloat16 in the kernels, errors are of 1e-2.
        assert relative_error(ours, expected) < 0.03
        cosines = (ours * expected).sum(-1) / np.linalg.norm(ours, axis=-1)
        assert (cosines / np.linalg.norm(expected, axis=-1)).min() > 0.9995
    streamed = qa.load(
        base,
        dtype="float32",
        quantize=quantize,
        max_memory=quantized.cost("lm.norm").min_memory_bytes + 10_000,
    )
    np.testing.assert_allclose(hidden_states(streamed), hidden_states(quantized), rtol=1e-5)


def test_only_the_modules_of_a_tap_are_quantised_and_each_once(
    base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[tuple[int, int]] = []
    model = qa.load(base, quantize="int4", on_quantize=lambda *bytes_: reported.append(bytes_))
    hidden_states(model, "audio_tower")
    assert files(cache) == []  # the encoder is not quantised
    hidden_states(model, "lm.2")
    layers = [f"language_model.model.layers.{k}" for k in range(3)]
    assert files(cache) == layers[:2]
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})
    assert reported[-1][0] == reported[-1][1] > 0
    model.describe(CLIP, max_new_tokens=2, **OPTIONS)
    assert files(cache) == ["language_model.lm_head", *layers]

    read, prefixes = TensorStore.read_weights, []

    def recording_read(tensors: TensorStore, prefix: str, **options: Any) -> Any:
        prefixes.append(prefix)
        return read(tensors, prefix, **options)

    monkeypatch.setattr(TensorStore, "read_weights", recording_read)
    again = qa.load(base, quantize="int4")
    assert again.describe(CLIP, max_new_tokens=2, **OPTIONS) == model.describe(
        CLIP, max_new_tokens=2, **OPTIONS
    )
    assert not any(prefix.startswith("language_model.model.layers") for prefix in prefixes)


def test_specs_say_how_weights_are_quantised(base: Path, cache: Path) -> None:
    plain = qa.load(base).spec("lm.1")
    assert "quantization" not in plain.settings
    specs = {name: qa.load(base, quantize=name).spec("lm.1") for name in QUANTIZATIONS}
    assert {name: spec.quantization for name, spec in specs.items()} == QUANTIZATIONS
    assert len({plain.fingerprint, *(spec.fingerprint for spec in specs.values())}) == 4
    model = qa.load(base, quantize="int4")
    assert QUANTIZATIONS["int4"] in repr(model)
    assert pickle.loads(pickle.dumps(model)).spec("lm.1") == specs["int4"]


@pytest.mark.slow
def test_a_collection_is_searched_with_the_quantisation_it_was_made_with(
    base: Path, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "c.lance"
    qa.Collection.create(path, qa.load(base, quantize="int8"), tap="lm.1")
    assert qa.Collection.open(path).model.quantization == "int8"
    with pytest.raises(CollectionError, match=r"load with .*quantize='int8'"):
        qa.Collection.open(path, qa.load(base)).index([])


def test_less_memory_is_needed_and_estimated(base: Path, cache: Path) -> None:
    plain, quantized = (qa.load(base, dtype="float32", quantize=q) for q in (None, "int4-g128"))
    for tap in ("audio_tower", "lm.3", None):
        assert quantized.cost(tap).min_memory_bytes < plain.cost(tap).min_memory_bytes
        assert quantized.cost(tap).read_bytes < plain.cost(tap).read_bytes
    hidden_states(quantized)
    resident = quantized.pipeline.modules._resident
    for prefix, module in resident.items():
        if ".layers." in prefix:
            tensors = [*module.parameters(), *held_tensors(module)]
            held = sum(each.nbytes for each in tensors)
            estimate = quantized.pipeline.modules._weight_bytes(prefix)
            # Rows are filled up to blocks of 64; oneDNN's layout adds sums of columns, and compiled
            # products have zero points in 8 bits where torch's kernel takes 16.
            assert estimate <= held * 1.02
            assert held < 1.3 * estimate + 4096


def held_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    """Tensors that the layers of a module hold as attributes, or in their matrices."""
    return [
        part
        for layer in module.modules()
        for value in vars(layer).values()
        for part in (value.parts() if hasattr(value, "parts") else [value])
        if isinstance(part, torch.Tensor)
    ]


def test_an_adapter_is_quantised_with_the_weights(base: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    transformers_model = Qwen2AudioForConditionalGeneration.from_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", transformers_model)
    adapted = qa.load(base, dtype="float32", adapter=adapter, quantize="int8")
    plain = qa.load(base, dtype="float32", quantize="int8")
    expected = hidden_states(qa.load(base, dtype="float32", adapter=adapter))
    ours, without = hidden_states(adapted), hidden_states(plain)
    assert relative_error(ours, expected) < 0.2 < relative_error(without, expected)


@pytest.mark.parametrize("quantize", ["int3", "", 4, ["int4"]])
def test_other_quantisations_are_refused(base: Path, quantize: Any) -> None:
    with pytest.raises(OptionError, match=r"quantize=.*int8, int4, int4-g128"):
        qa.load(base, quantize=quantize)


def test_a_full_disk_is_said_and_nothing_is_left(
    base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = qa.load(base, quantize="int4")
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(CheckpointError, match=r"can't be written .*No space left.*HF_HOME"):
            hidden_states(model)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(CheckpointError, match="1000 bytes free: free disk space"):
            hidden_states(model)
    hidden_states(model)


def test_a_file_is_there_whole_or_not_at_all(
    base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the second file is written, as by Ctrl+C; the next start goes on from there."""
    from safetensors.torch import save_file as save

    written: list[Path] = []

    def stopped(tensors: Any, path: Path, **options: Any) -> None:
        written.append(path)
        if len(written) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save(tensors, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", stopped)
        with pytest.raises(KeyboardInterrupt):
            hidden_states(qa.load(base, quantize="int4"), "lm.2")
    assert files(cache) == ["language_model.model.layers.0"]
    killed = (
        written[0].parent / "x.safetensors.1.unfinished"
    )  # of a process that could not clean up
    killed.write_bytes(b"half")
    os.utime(killed, (time.time() - 7200,) * 2)
    hidden_states(qa.load(base, quantize="int4"), "lm.2")
    names = [path.name for path in written[0].parent.iterdir()]
    assert sorted(names) == [f"language_model.model.layers.{k}.safetensors" for k in range(2)]


def test_a_damaged_file_is_named(base: Path, cache: Path) -> None:
    model = qa.load(base, quantize="int4")
    hidden_states(model, "lm.1")
    (file,) = cache.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"layers.0.safetensors .*delete the file"):
        hidden_states(qa.load(base, quantize="int4"), "lm.1")


def test_other_weights_are_quantised_anew(base: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor * 1.1 for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for checkpoint in (base, folder):
        hidden_states(qa.load(checkpoint, quantize="int4"), "lm.1")
    assert len({file.parent for file in cache.rglob("*.safetensors")}) == 2
