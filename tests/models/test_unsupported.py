"""What can't be loaded is named, with what to do, when it is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import edit_json, random_checkpoint
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.weights.other_formats import explain_files

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"width": 32, "encoder_layers": 1, "encoder_heads": 2, "lm_width": 48, "lm_layers": 1}
    return random_checkpoint(tmp_path_factory.mktemp("original"), shards=1, **sizes)


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def error_message(folder: Path) -> str:
    """One line that names the folder and says what to do."""
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert ": " in message or "; " in message
    return message


# By config.json.


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "8-bit floats (FP8)"),
        ({"quant_method": "hqq", "quant_config": {}}, "HQQ"),
        ({"quant_method": "torchao"}, "torchao"),
    ],
)
@pytest.mark.parametrize("part", ["", "text_config__"])
def test_quantised_checkpoints(
    part: str, stated: dict[str, Any], expected: str, copy: Path
) -> None:
    edit_json(copy / "config.json", **{f"{part}quantization_config": stated})
    message = error_message(copy)
    assert f"is quantised with {expected}, which can't be read: give the checkpoint" in message
    assert "delete quantization_config from its config.json" in message


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": False, "load_in_4bit": False},
        {"load_in_8bit": True, "load_in_4bit": False},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
    ],
)
def test_a_stated_quantisation_of_nothing(stated: dict[str, Any], copy: Path) -> None:
    """Settings that were left behind: the weights are 32-bit floats."""
    edit_json(copy / "config.json", quantization_config=stated)
    assert Checkpoint(copy).quantization is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("qwen2", "is of type 'qwen2', a language model for text alone; only 'qwen2_audio'"),
        ("qwen2_vl", "is of type 'qwen2_vl', a language model for images and text; only"),
        ("voxtral_realtime", "is of type 'voxtral_realtime'; only"),
        (None, "has a config.json without model_type; only"),
    ],
)
def test_other_models(kind: str | None, expected: str, copy: Path) -> None:
    edit_json(copy / "config.json", model_type=kind)
    message = error_message(copy)
    assert expected in message
    assert message.endswith("such as Qwen/Qwen2-Audio-7B-Instruct (`qwen-audio models` lists them)")


def test_rotary_embeddings_that_differ_with_the_length_of_the_input(copy: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    edit_json(copy / "config.json", text_config__rope_parameters=rope)
    assert "rotary position embeddings of type 'dynamic'" in error_message(copy)
    edit_json(copy / "config.json", text_config__rope_parameters={**rope, "rope_type": "linear"})
    Checkpoint(copy)


# By the names of tensors.


def rewrite(folder: Path, more: dict[str, torch.Tensor], prefix: str = "") -> None:
    tensors = {prefix + name: tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors | more, folder / WEIGHTS, {"format": "pt"})


LAYER = "language_model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    ("prefix", "extra", "expected"),
    [
        ("base_model.model.", "", "saved with a PEFT adapter around the model: it has"),
        ("base_model.model.model.", "", "saved with a PEFT adapter around the model: it has"),
        ("", f"{LAYER}lora_A.default.weight", f"has 1 tensor, {LAYER}lora_A.default.weight; save"),
        ("", f"{LAYER}base_layer.weight", "save model.merge_and_unload() with save_pretrained"),
        ("module.", "", "saved from a wrapper of the model: names of its tensors start with 'modu"),
        ("_orig_mod.", "", "start with '_orig_mod.'"),
        ("pretrained_model.", "v_head.summary.weight", "start with 'pretrained_model.'"),
        ("", "score.weight", "has 1 tensor that Qwen2-Audio lacks, score.weight, such as a head"),
        ("", "lm_head.weight", "under two names, language_model.lm_head.weight and lm_head.weight"),
        (
            "",
            f"{LAYER}qweight",
            f"(quantization_config): it has 1 tensor, {LAYER}qweight; give the",
        ),
        ("", f"{LAYER}weight_scale_inv", "is quantised, but not as its config.json says"),
        ("", "audio_tower.ctc_head.weight", "that Qwen2-Audio lacks, audio_tower.ctc_head.weight"),
        ("", f"{LAYER}more", f"has 1 tensor that Qwen2-Audio lacks, {LAYER}more, such as"),
        (
            "",
            "language_model.model.layers.7.input_layernorm.weight",
            "has 1 tensor that its config lacks, language_model.model.layers.7.input_layernorm",
        ),
    ],
)
def test_names_of_other_tensors(prefix: str, extra: str, expected: str, copy: Path) -> None:
    rewrite(copy, {extra: torch.zeros(1)} if extra else {}, prefix)
    assert expected in error_message(copy)


def test_tensors_that_are_computed_may_be_stored(copy: Path) -> None:
    rewrite(copy, {f"{LAYER.removesuffix('q_proj.')}rotary_emb.inv_freq": torch.zeros(6)})
    Checkpoint(copy)


def test_weights_left_empty_by_deepspeed(copy: Path) -> None:
    rewrite(copy, {"language_model.model.embed_tokens.weight": torch.zeros(0)})
    assert "has shape (0,), but its config requires (1104, 48): DeepSpeed" in error_message(copy)


# By the names of files.


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["pytorch_model.bin"], "pytorch_model.bin holds pickled weights, which can run any code"),
        (["pytorch_model-00001-of-00002.bin", "x.gguf"], "holds pickled weights"),
        (["model.Q4_K_M.gguf"], "model.Q4_K_M.gguf is in llama.cpp's format, GGUF"),
        (["consolidated.safetensors", "params.json"], "consolidated.safetensors is in the format"),
        (["model-00001-of-00002.safetensors"], "is a shard without its index: download the index"),
        (["model.fp16.safetensors"], "model.fp16.safetensors is there, but that is not its name"),
        (["adapter_model.safetensors"], "holds an adapter without its adapter_config.json"),
        (["zero_to_fp32.py", "latest"], "zero_to_fp32.py is the state of a distributed training"),
        (["tf_model.h5"], "tf_model.h5 is in a format that isn't read"),
    ],
)
def test_weights_in_other_formats(
    files: list[str], expected: str, has_config: bool, copy: Path
) -> None:
    (copy / WEIGHTS).unlink()
    if not has_config:
        (copy / "config.json").unlink()
    for name in files:
        (copy / name).write_bytes(b"")
    assert expected in error_message(copy)


def test_files_of_no_known_format() -> None:
    assert explain_files(["README.md", "config.json", "tokenizer.json"]) is None


@pytest.mark.parametrize("base", ["Qwen/Qwen2-Audio-7B", None])
def test_an_adapter_is_no_checkpoint(base: str | None, tmp_path: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": base}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    message = error_message(tmp_path)
    assert f"is an adapter (PEFT) for {base or 'ITS-BASE-MODEL'}, not a whole" in message
    assert f"adapter={str(tmp_path)!r}" in message


@pytest.mark.parametrize("inner", ["checkpoint-500", "snapshots/0123"])
@pytest.mark.parametrize("name", ["config.json", "adapter_config.json"])
def test_the_folder_around_a_checkpoint(name: str, inner: str, tmp_path: Path) -> None:
    (tmp_path / inner).mkdir(parents=True)
    (tmp_path / inner / name).write_text("{}")
    assert f"has no config.json: did you mean {tmp_path / inner}?" in error_message(tmp_path)


def test_a_file_is_no_folder(copy: Path) -> None:
    assert "is a file: give the folder of the checkpoint" in error_message(copy / WEIGHTS)
