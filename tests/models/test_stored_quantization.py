"""Checkpoints that are stored quantised: the numbers of transformers with the same weights.

The layouts of tests/quantized_checkpoints.py have been compared with files of compressed-tensors
0.20 and bitsandbytes 0.50, and with the packing of gptqmodel 7.7.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from adapters import write_adapter
from checkpoints import edit_json, random_checkpoint
from hub_server import Hub, serve, use_hub
from quantized_checkpoints import METHODS, quantize_checkpoint
from qwen_audio.cli.tables import parity_tables
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from reference import Reference, relative_error, sound

CLIP = sound(0.4)
LAYER = "language_model.model.layers.0.self_attn.q_proj."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 32, "encoder_layers": 1, "encoder_heads": 2, "lm_width": 64, "lm_layers": 2}
    return random_checkpoint(tmp_path_factory.mktemp("base"), shards=1, **sizes)


@pytest.fixture(scope="module")
def stored(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """For the name of a method a checkpoint that is stored so; each is made once. Beside it is the
    same in float32: see `quantize_checkpoint`."""

    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("stored") / "quantised"
        inner = name in ("awq", "nf4", "bnb 8")
        quantize_checkpoint(base, folder, METHODS[name], inner=inner)
        return folder

    return make


@pytest.fixture
def copy(stored: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The same, to be changed."""
    return lambda name: Path(shutil.copytree(stored(name), tmp_path / name))


def dense(folder: Path) -> Path:
    return folder.with_name(f"{folder.name} dense")


def hidden_states(model: qa.AudioModel, tap: str = "lm.norm") -> np.ndarray:
    return np.asarray(model.activations(CLIP, taps=[tap], sampling_rate=16_000)[tap].data)


@pytest.mark.parametrize("name", METHODS)
def test_the_weights_of_every_layout(name: str, stored: Callable[[str], Path]) -> None:
    folder = stored(name)
    opened = Checkpoint(folder)
    assert opened.quantization == METHODS[name].spec
    read = opened.tensors.read("", dtype=torch.float32)
    expected = load_file(dense(folder) / "model.safetensors")
    assert read.keys() == expected.keys()
    for tensor, weight in expected.items():
        assert relative_error(read[tensor].numpy(), weight.numpy()) < 1e-7, tensor


@pytest.mark.parametrize("name", ["gptq", "bnb 8", "nf4 nested"])
def test_hidden_states_are_those_of_transformers(
    name: str, stored: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stored(name)
    expected = Reference(dense(folder)).taps(CLIP)["lm.norm"]
    model = qa.load(folder, dtype="float32")
    assert model.spec("lm.1").quantization == METHODS[name].spec
    # This processor's kernels: some take activations in bfloat16 or in 8 bits.
    assert relative_error(hidden_states(model), expected) < 0.05
    # As on a processor without such kernels: products in the dtype asked for.
    monkeypatch.setattr("qwen_audio.weights.quantized_linear.int4_instructions", lambda: None)
    monkeypatch.setattr("qwen_audio.weights.quantized_linear.int4_block_rows", lambda: 0)
    monkeypatch.setattr("qwen_audio.weights.quantized_linear._has_vnni", lambda: False)
    monkeypatch.setattr("qwen_audio.weights.quantized_linear._MAX_KERNEL_ROWS", 0)
    least = model.cost("lm.norm").min_memory_bytes
    for memory in (None, least + 10_000):  # resident and streamed
        exact = qa.load(folder, dtype="float32", max_memory=memory)
        assert relative_error(hidden_states(exact), expected) < 1e-5
    # The parity report gives transformers the same weights, dequantised.
    *_, note = parity_tables(model.check_parity(qa.Waveform(CLIP)))
    is_exact = "nf4" in name
    assert str(note).startswith("  Equal" if is_exact else "  The difference that products of qu")
    advice = "quantize='int4'" if "nf4" in name else "choose a shallower tap"
    with pytest.raises(OptionError, match=f"or more, (or )?(use )?{advice}"):
        qa.load(folder, max_memory=least // 2).activations(
            CLIP, taps=["lm.1"], sampling_rate=16_000
        )
    # No product takes nf4, so that it takes the memory of the computation's dtype.
    plain = qa.load(dense(folder), dtype="float32")
    assert (least < plain.cost("lm.norm").min_memory_bytes) != is_exact
    assert model.cost("lm.norm").read_bytes < plain.cost("lm.norm").read_bytes


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve() as running:
        use_hub(running, tmp_path / "home", monkeypatch)
        yield running


@pytest.mark.slow
def test_on_a_hub_only_the_parts_of_a_tap_are_downloaded(
    stored: Callable[[str], Path], hub: Hub
) -> None:
    folder = stored("gptq")
    hub.repos["owner/quantised"] = folder
    model = qa.load("owner/quantised", dtype="float32")
    assert model.quantization == "gptq-int4-g32"
    model.fetch("lm.1")
    missing = model.cost("lm.2").download_bytes
    parts = load_file(folder / "model.safetensors").items()
    assert missing == sum(
        part.nbytes for name, part in parts if "layers.1." in name and "language" in name
    )
    states = hidden_states(model, "lm.2")
    assert relative_error(states, hidden_states(qa.load(dense(folder)), "lm.2")) < 0.05
    assert model.cost("lm.2").download_bytes == 0


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("gptq", {"bits": 3}, "GPTQ in a way that can't be read, as bits is 3, not 4"),
        ("gptq", {"desc_act": True}, "its columns are ordered by activation (desc_act, act-order)"),
        ("gptq", {"checkpoint_format": "marlin"}, "format is 'marlin', not 'gptq' or 'gptq_v2'"),
        ("gptq", {"dynamic": {"+:.*down.*": {"bits": 8}}}, "modules have settings of their own"),
        ("gptq", {"group_size": 48}, "64 × 64 weights, no whole number of groups of 48"),
        ("awq", {"version": "gemv"}, "AWQ in a way that can't be read, as version is 'gemv'"),
        ("nf4", {"bnb_4bit_quant_storage": "bfloat16"}, "bnb_4bit_quant_storage is 'bfloat16'"),
        ("ct 4", {"config_groups": {}}, "config.json has no config_groups"),
        ("ct 4", {"quantization_status": "frozen"}, "quantization_status is 'frozen'"),
        ("ct 4", {"kv_cache_scheme": {"num_bits": 8}}, "it has a kv_cache_scheme"),
        ("ct 4", {"format": "marlin-24"}, "format is 'marlin-24'"),
        ("ct 4", {"config_groups__group_0__targets": ["re:("]}, "target 're:(' is no pattern"),
        ("ct 4", {"config_groups__group_0__targets": ["re:.*head"]}, "no config_group is for lang"),
        ("ct 4", {"config_groups__group_0__weights__type": "float"}, "type of weights is 'float'"),
        ("ct 4", {"config_groups__group_0__weights__strategy": "block"}, "strategy is 'block'"),
        ("ct 4", {"config_groups__group_0__weights__actorder": "group"}, "(actorder)"),
        (
            "ct 8",
            {"config_groups__group_0__input_activations": {"num_bits": 8, "dynamic": False}},
            "it has scales of input_activations",
        ),
    ],
)
def test_settings_that_cannot_be_read(
    name: str, settings: dict[str, Any], expected: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(name)
    changes = {f"quantization_config__{key}": value for key, value in settings.items()}
    edit_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert expected in str(caught.value)
    assert str(caught.value).endswith(": give the checkpoint that it was made from")


def change(folder: Path, name: str, value: torch.Tensor | None) -> None:
    """Change, or remove, a tensor."""
    tensors = load_file(folder / "model.safetensors")
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("name", "part", "value", "expected"),
    [
        ("gptq", "q_proj.g_idx", torch.arange(64).int() % 2, "its groups are not of neighbouring"),
        ("gptq rows", "o_proj.bias", torch.ones(64), "it has a bias, which Qwen2-Audio's layer"),
        ("ct 4", "q_proj.weight_shape", torch.tensor([64, 32]), "it is of shape [64, 32]"),
        ("ct 8", "q_proj.weight_zero_point", torch.ones(64, 1).char(), "its 8-bit values are not"),
        ("bnb 8", "q_proj.weight_format", torch.tensor(1).byte(), "its weights are in the layout"),
        (
            "nf4",
            "q_proj.weight.quant_state.bitsandbytes__nf4",
            torch.tensor([1, 2]).byte(),
            "its quant_state is not JSON",
        ),
        ("nf4", "q_proj.weight.absmax", torch.ones(3), "it has fewer scales than blocks"),
        ("nf4 nested", "q_proj.weight.nested_absmax", torch.ones(0), "it has fewer scales than"),
    ],
)
def test_content_that_cannot_be_read(
    name: str, part: str, value: torch.Tensor, expected: str, copy: Callable[[str], Path]
) -> None:
    folder = copy(name)
    is_inner = "model.language_model.norm.weight" in load_file(folder / "model.safetensors")
    prefix = "model.language_model." if is_inner else "language_model.model."
    change(folder, f"{prefix}layers.0.self_attn.{part}", value)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder).tensors.read("language_model.model.layers.0.")
    assert f"weight is quantised in a way that can't be read, as {expected}" in str(caught.value)
    assert str(caught.value).endswith(": give the checkpoint that it was made from")


def test_parts_that_are_missing_or_of_another_kind(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy("gptq")
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    change(folder, f"{LAYER}qzeros", None)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor, .*q_proj\.qzeros: config"):
        Checkpoint(folder)
    change(folder, f"{LAYER}qzeros", torch.zeros(2, 8))
    with pytest.raises(CheckpointError, match="qzeros is stored as F32, but its quantisation has"):
        Checkpoint(folder)
    settings = json.loads((whole / "config.json").read_text())["quantization_config"]
    edit_json(whole / "config.json", quantization_config=None)
    with pytest.raises(CheckpointError, match=r"is quantised, but not as its config\.json says"):
        Checkpoint(whole)
    edit_json(whole / "config.json", text_config__quantization_config=settings)
    assert Checkpoint(whole).quantization == "gptq-int4-g32"


def test_they_are_not_quantised_again_and_not_adapted(
    stored: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, nf4 = stored("awq"), stored("nf4")
    with pytest.raises(OptionError, match=r"is stored quantised \(awq-int4-g32\): leave quantize"):
        Checkpoint(folder, quantize="int4")
    adapter = write_adapter(tmp_path / "adapter", Reference(dense(nf4)).model)
    with pytest.raises(CheckpointError, match=r"adapter can't be merged into it: give the check"):
        Checkpoint(folder, adapter=adapter)
    # nf4 is dequantised first.
    merged = Checkpoint(nf4, adapter=adapter).tensors.read("", dtype=torch.float32)
    for name, weight in Checkpoint(dense(nf4), adapter=adapter).tensors.read("").items():
        assert relative_error(merged[name].numpy(), weight.numpy()) < 1e-6, name
    assert Checkpoint(nf4, quantize="int8").quantization == "int8"
