"""Qwen3-ASR in the layout of its authors' code; what else is its own is in
`components/test_qwen3_encoder.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
TAPS = ["encoder.0", "encoder.2", "projector", "lm.norm"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model as transformers writes it, and as the first checkpoints are."""
    ours = tmp_path_factory.mktemp("transformers")
    CASES["qwen3_asr"].write(ours)
    folder = tmp_path_factory.mktemp("copies") / "authors"
    shutil.copytree(ours, folder)
    settings = json.loads((ours / "config.json").read_text(encoding="utf-8"))
    rotary = settings["text_config"].pop("rope_parameters")
    scaling = {"mrope_section": [8, 4, 4], "mrope_interleaved": True, "interleaved": True}
    thinker = {
        "audio_config": {
            **settings["audio_config"],
            "model_type": "qwen3_asr_audio_encoder",
            "max_source_positions": 1500,
            "conv_chunksize": 500,
        },
        "text_config": {
            **settings["text_config"],
            "model_type": "qwen3_asr_text",
            "rope_theta": rotary["rope_theta"],
            "rope_scaling": {**scaling, "rope_type": "default", "type": "default"},
            "num_experts": 128,
            "mlp_only_layers": [],
        },
        "audio_token_id": settings["audio_token_id"],
        "dtype": "float32",
        "model_type": "qwen3_asr",
    }
    config = {
        "architectures": ["Qwen3ASRForConditionalGeneration"],
        "model_type": "qwen3_asr",
        "support_languages": ["English"],
        "thinker_config": thinker,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names = {
        "model.language_model.": "model.",
        "model.audio_tower.": "audio_tower.",
        "model.multi_modal_projector.linear_1.": "audio_tower.proj1.",
        "model.multi_modal_projector.linear_2.": "audio_tower.proj2.",
    }
    stored = load_file(folder / "model.safetensors")
    for old, new in names.items():
        stored = {
            f"thinker.{name.replace(old, new)}" if name.startswith(old) else name: tensor
            for name, tensor in stored.items()
        }
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    (folder / "processor_config.json").unlink()
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return ours, folder


def test_the_layout_of_the_authors_is_the_same_model(folders: tuple[Path, Path]) -> None:
    clip, states = sound(2.5), []
    for folder in folders:
        model = qa.load(folder, dtype="float32")
        states.append(model.activations(clip, taps=TAPS, **RATE))
    for tap in TAPS:
        np.testing.assert_array_equal(states[0][tap].data, states[1][tap].data)


@pytest.mark.slow
def test_its_parity_report_holds(folders: tuple[Path, Path]) -> None:
    assert qa.load(folders[1], dtype="float32").check_parity().holds


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("thinker_config__classify_num", 5000, "classify_num=5000"),
        ("thinker_config__text_config__rope_scaling__rope_type", "yarn", "rope_type='yarn'"),
        ("thinker_config__audio_config__n_window", 100, "n_window=100"),
        ("thinker_config__text_config", [], "lacks 330 tensors"),
        ("thinker_config", [], r"thinker_config=\[\]"),
    ],
)
def test_what_is_not_supported_is_named(
    folders: tuple[Path, Path], tmp_path: Path, key: str, value: Any, expected: str
) -> None:
    copy = shutil.copytree(folders[1], tmp_path / "copy")
    edit_json(copy / "config.json", **{key: value})
    with pytest.raises(CheckpointError, match=expected):
        Checkpoint(copy)
