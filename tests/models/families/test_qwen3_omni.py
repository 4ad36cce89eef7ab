"""What is Qwen3-Omni's own; `tests/models/test_families.py` has what all families share."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import close_session
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from families import CASES
from hub_server import serve, use_hub
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.inference.cost import estimate_cost
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.least_weights import least_weight_bytes
from qwen_audio.inference.reducers import all_rows
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.components.experts import Experts, stack_experts
from qwen_audio.models.registry import open_family
from qwen_audio.models.tap import Tap
from qwen_audio.models.tensors import DECODER_LAYERS
from qwen_audio.weights.quantization import QuantizedMatrix
from reference import relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
LAYER = f"{DECODER_LAYERS}0."
TAPS = ["encoder.0", "encoder.2", "projector", "lm.norm"]

HUB_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
    "dtype": "bfloat16",
    "enable_audio_output": True,
    "model_type": "qwen3_omni_moe",
    "thinker_config": {
        "audio_config": {"num_mel_bins": 128, "output_dim": 2048, "n_window_infer": 800},
        "audio_end_token_id": 151670,
        "audio_start_token_id": 151669,
        "audio_token_id": 151675,
        "model_type": "qwen3_omni_moe_thinker",
        "text_config": {
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 768,
            "max_position_embeddings": 65536,
            "mlp_only_layers": [],
            "model_type": "qwen3_omni_moe_text",
            "moe_intermediate_size": 768,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "rope_scaling": {
                "interleaved": True,
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
                "type": "default",
            },
            "rope_theta": 1000000,
            "shared_expert_intermediate_size": 0,
            "vocab_size": 152064,
        },
        "vision_config": {"depth": 27, "out_hidden_size": 2048},
        "vision_start_token_id": 151652,
    },
    "talker_config": {},
}
"""Fields of the released config.json, as its authors' version of transformers wrote it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("omni")
    CASES["qwen3_omni_moe"].write(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> qa.AudioModel:
    return qa.load(folder, dtype="float32")


def test_the_hubs_config() -> None:
    family = open_family(HUB_CONFIG, "hub")
    dimensions, sizes = family.dimensions, family.sizes
    assert (dimensions.encoder_layers, dimensions.encoder_width) == (32, 1280)
    assert (dimensions.lm_layers, dimensions.lm_width) == (48, 2048)
    assert dimensions.rate_hz(Tap.parse("projector")) == 13
    assert (sizes.attended_rows, sizes.max_positions, sizes.lm_head_dim) == (104, 65536, 128)
    assert sizes.lm_ffn_width == 8 * 768
    assert family.config.dtype is torch.bfloat16
    assert family.audio_token_id == 151675
    requirements = family.tensor_requirements()
    expert = requirements["language_model.model.layers.47.mlp.experts.127.down_proj.weight"]
    assert expert.shape == (2048, 768)
    assert expert.rows_per_second == 13 * 8 / 128
    assert requirements["language_model.model.layers.0.mlp.gate.weight"].rows_per_second == 13


@pytest.mark.slow
def test_the_thinker_alone_is_the_same_model(
    folder: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    thinker = transformers.Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(folder)
    clip, alone = sound(2.5), tmp_path / "alone"
    expected = model.activations(clip, taps=TAPS, **RATE)
    shutil.copytree(folder, alone)
    (alone / "model.safetensors").unlink()
    thinker.save_pretrained(alone)
    assert Checkpoint(alone).family.config.model_type == "qwen3_omni_moe_thinker"
    states = qa.load(alone, dtype="float32").activations(clip, taps=TAPS, **RATE)
    for tap in TAPS:
        np.testing.assert_array_equal(states[tap].data, expected[tap].data)


@pytest.fixture(scope="module", params=["Thinker", ""])
def stacked(
    folder: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As transformers writes its own modules, of the thinker alone or in the whole model."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("stacked") / "model")
    (copy / "model.safetensors").unlink()
    model_class = getattr(transformers, f"Qwen3OmniMoe{request.param}ForConditionalGeneration")
    model_class.from_pretrained(folder).save_pretrained(
        copy, save_original_format=False, max_shard_size="250KB"
    )
    return Path(copy)


def test_stacked_experts_are_the_same_model(stacked: Path, model: qa.AudioModel) -> None:
    index = json.loads((stacked / "model.safetensors.index.json").read_text(encoding="utf-8"))
    names = [name for name in index["weight_map"] if ".experts." in name]
    assert {name.rpartition(".")[2] for name in names} == {"gate_up_proj", "down_proj"}
    clip = sound(1.0)
    copy = qa.load(stacked, dtype="float32")
    expected = model.activations(clip, taps=["lm.1", "lm.2"], **RATE)
    copy.pipeline.memory.divide = lambda *_: None  # type: ignore[method-assign]
    modules = copy.pipeline.modules
    for max_bytes in (10**9, modules._weight_bytes(LAYER)):
        modules.release()
        modules.max_bytes = max_bytes
        states = copy.activations(clip, taps=["lm.1", "lm.2"], **RATE)
        assert (LAYER in modules._resident) is (max_bytes == 10**9)
        for tap in states:
            np.testing.assert_array_equal(states[tap].data, expected[tap].data)


@pytest.mark.parametrize("sends_ranges", [True, False])
def test_an_expert_is_fetched_by_itself(
    stacked: Path,
    model: qa.AudioModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sends_ranges: bool,
) -> None:
    name = f"{LAYER}mlp.experts.3."
    with serve() as hub:
        hub.repos["owner/Omni"], hub.sends_ranges = stacked, sends_ranges
        use_hub(hub, tmp_path, monkeypatch)
        tensors = Checkpoint("owner/Omni").tensors
        tensors.missing_bytes([f"{name}{matrix}_proj.weight" for matrix in ("gate", "down")])
        hub.clear_log()  # of headers
        fetched = tensors.read(name)
    close_session()
    expected = model.pipeline.checkpoint.tensors.read(name)
    for each, tensor in expected.items():
        torch.testing.assert_close(fetched[each], tensor, rtol=0, atol=0)
    if sends_ranges:
        assert hub.bytes_sent.total() == sum(tensor.nbytes for tensor in expected.values())


def test_stacked_experts_of_another_number_are_refused(folder: Path, tmp_path: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    copy = shutil.copytree(folder, tmp_path / "copy")
    ours = {n: t for n, t in stored.items() if "thinker.model.layers.0.mlp.experts." in n}
    stacked = {name: each.clone() for name, each in stack_experts(ours).items()}
    others = {name: each for name, each in stored.items() if name not in ours}
    save_file({**others, **stacked}, copy / "model.safetensors", {"format": "pt"})
    Checkpoint(copy)
    name = "thinker.model.layers.0.mlp.experts.gate_up_proj"
    stacked[name] = torch.cat([stacked[name], stacked[name][:, :1]], dim=1)  # 24½ rows each
    save_file({**others, **stacked}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"experts\.0\.\w+_proj.* has shape .*requires"):
        Checkpoint(copy)


def test_images_and_the_parts_that_speak_are_not_read(folder: Path, tmp_path: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    copy = shutil.copytree(folder, tmp_path / "copy")
    others = ("talker.model.layers.0.mlp.experts.0.up_proj.weight", "code2wav.decoder.0.bias")
    more = {name: torch.zeros(1) for name in others}
    save_file({**stored, **more}, copy / "model.safetensors", {"format": "pt"})
    family = Checkpoint(copy).family
    ignored = {name for name in stored if name.startswith(family.ignored_names)}
    assert {name.rsplit("visual.")[0] for name in ignored} == {"thinker."}
    needed = sum(t.nbytes for n, t in stored.items() if n not in ignored)
    read = estimate_cost(Checkpoint(copy), None, torch.float32).read_bytes
    table = stored["thinker.model.embed_tokens.weight"].nbytes  # of which rows are read
    assert read == needed - table
    save_file({**stored, "thinker.speaker.x": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"Qwen3-Omni lacks, thinker\.speaker\.x"):
        Checkpoint(copy)


def test_a_row_goes_through_its_experts_alone() -> None:
    """As transformers' stacked ones, to which unchosen experts add nothing."""
    from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
        Qwen3OmniMoeThinkerTextExperts,
        Qwen3OmniMoeThinkerTextMLP,
    )

    config = open_family(HUB_CONFIG, "hub").text_config
    config.hidden_size, config.moe_intermediate_size, config.num_experts = 8, 6, 5
    torch.manual_seed(0)
    experts = Experts(5, lambda: Qwen3OmniMoeThinkerTextMLP(config, 6))
    experts.build_all()
    stacked = Qwen3OmniMoeThinkerTextExperts(config)
    ours = {f"mlp.experts.{name}": tensor for name, tensor in experts.state_dict().items()}
    stacked.load_state_dict(
        {name.removeprefix("mlp.experts."): t for name, t in stack_experts(ours).items()}
    )
    rows, chosen = torch.randn(7, 8), torch.stack([torch.randperm(4)[:2] for _ in range(7)])
    weights = torch.rand(7, 2)
    torch.testing.assert_close(experts(rows, chosen, weights), stacked(rows, chosen, weights))
    for parameter in experts[4].parameters():
        parameter.data.fill_(torch.nan)
    assert experts(rows, chosen, weights).isfinite().all()


@pytest.mark.parametrize("quantize", [None, pytest.param("int8", marks=pytest.mark.slow)])
def test_a_streamed_layer_reads_the_experts_that_rows_are_routed_to(
    folder: Path, quantize: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [qa.load(folder, dtype="float32", quantize=quantize) for _ in range(2)]
    modules = models[1].pipeline.modules
    for each in models:
        each.pipeline.fetch_weights(None)
        each.pipeline.memory.divide = lambda *_: None  # type: ignore[method-assign]
    layer, expert, experts = (
        modules._weight_bytes(f"{LAYER}{end}") for end in ("", "mlp.experts.0.", "mlp.experts.")
    )
    modules.max_bytes = 2 * (layer - experts + expert)
    read: Counter[str] = Counter()
    original = modules._read

    def counting(prefix: str, buffer: Any = None, without: str = "") -> Any:
        weights = original(prefix, buffer, without)
        for name, each in weights.items():
            parts = each.parts() if isinstance(each, QuantizedMatrix) else [each]
            read[prefix + name] += sum(part.nbytes for part in parts)
        return weights

    monkeypatch.setattr(modules, "_read", counting)
    for ids in ((7,), (7, 8, 9)):
        read.clear()
        item, tap = [DecoderInput(ids)], Tap.parse("lm.2")
        resident, streamed = (each.pipeline.lm.forward(item, [tap], all_rows) for each in models)
        torch.testing.assert_close(streamed[tap], resident[tap], rtol=0, atol=0)
        for k in range(2):
            own = {n: size for n, size in read.items() if n.startswith(f"{DECODER_LAYERS}{k}.")}
            numbers = {int(n.split(".experts.")[1].split(".")[0]) for n in own if "experts" in n}
            assert 2 <= len(numbers) <= 2 * len(ids)  # two for each row
            assert sum(own.values()) == layer - experts + len(numbers) * expert


def test_the_least_memory_holds_one_expert_of_a_layer(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    requirements = checkpoint.required_tensors(None)
    sizes = {n: 4 * math.prod(r.shape) for n, r in requirements.items() if n.startswith(LAYER)}
    held = sum(size for n, size in sizes.items() if "experts" not in n or ".experts.0." in n)
    least = least_weight_bytes(checkpoint, Tap.parse("lm.1"), torch.float32)
    assert least == max(2 * held, least_weight_bytes(checkpoint, Tap.parse("lm.0"), torch.float32))
    model = qa.load(folder, dtype="float32")
    modules = model.pipeline.modules
    modules.max_bytes = 2 * held
    item, tap = [DecoderInput((7,))], Tap.parse("lm.1")
    model.pipeline.lm.forward(item, [tap], all_rows)
    modules.max_bytes -= 1
    with pytest.raises(OptionError, match="two layers"):
        model.pipeline.lm.forward(item, [tap], all_rows)


@pytest.mark.slow
def test_experts_are_quantised_and_what_chooses_them_is_not(folder: Path) -> None:
    model = qa.load(folder, dtype="float32", quantize="int8")
    formats = model.pipeline.checkpoint.formats
    assert "language_model.model.layers.1.mlp.experts.5.up_proj.weight" in formats
    assert not any(name.endswith("mlp.gate.weight") for name in formats)
    clip = sound(2.0)
    taps = ["lm.1", "lm.2"]
    quantised = model.activations(clip, taps=taps, **RATE)
    exact = qa.load(folder, dtype="float32").activations(clip, taps=taps, **RATE)
    for tap in taps:
        assert 0 < relative_error(quantised[tap].data, exact[tap].data) < 0.05
