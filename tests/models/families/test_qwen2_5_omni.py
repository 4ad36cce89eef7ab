"""What is Qwen2.5-Omni's own; `tests/models/test_families.py` has what all families share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES
from qwen_audio.errors import CheckpointError
from qwen_audio.models import packed_attention
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.registry import open_family
from qwen_audio.models.tap import Stage
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}
TAPS = ["encoder.0", "encoder.2", "projector", "lm.norm"]

HUB_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2_5OmniModel"],
    "enable_audio_output": True,
    "model_type": "qwen2_5_omni",
    "torch_dtype": "bfloat16",
    "thinker_config": {
        "architectures": ["Qwen2OmniNaViTThinkerForConditionalGeneration"],
        "audio_config": {"num_mel_bins": 128, "output_dim": 3584, "n_window": 100},
        "audio_end_token_id": 151648,
        "audio_start_token_id": 151647,
        "audio_token_index": 151646,
        "bos_token_id": 151644,
        "eos_token_id": 151645,
        "ignore_index": -100,
        "init_std": 0.02,
        "model_type": "qwen2_5_omni_thinker",
        "text_config": {
            "hidden_size": 3584,
            "init_std": 0.02,
            "intermediate_size": 18944,
            "max_window_layers": 28,
            "model_type": "qwen2_5_omni_text",
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "rope_scaling": {
                "mrope_section": [16, 24, 24],
                "rope_type": "default",
                "type": "default",
            },
            "rope_theta": 1000000.0,
            "sliding_window": 32768,
            "use_sliding_window": False,
            "vocab_size": 152064,
        },
        "vision_config": {"depth": 32, "out_hidden_size": 3584},
        "vision_start_token_id": 151652,
    },
    "talker_config": {"model_type": "qwen2_5_omni_talker"},
}
"""The fields of the 7B's config.json, as its authors' version of transformers wrote it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("omni")
    CASES["qwen2_5_omni"].write(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> qa.AudioModel:
    return qa.load(folder, dtype="float32")


@pytest.mark.slow
def test_the_thinker_alone_is_the_same_model(
    folder: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    """As its own class saves it, in the layout of files and in that of its modules."""
    thinker = transformers.Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder)
    clip = sound(2.5)
    expected = model.activations(clip, taps=TAPS, **RATE)
    for original in (True, False):
        alone = tmp_path / str(original)
        shutil.copytree(folder, alone)
        (alone / "model.safetensors").unlink()
        thinker.save_pretrained(alone, save_original_format=original)
        settings = json.loads((alone / "config.json").read_text(encoding="utf-8"))
        assert settings["model_type"] == "qwen2_5_omni_thinker"
        states = qa.load(alone, dtype="float32").activations(clip, taps=TAPS, **RATE)
        for tap in TAPS:
            np.testing.assert_array_equal(states[tap].data, expected[tap].data)


def test_the_hubs_config() -> None:
    family = open_family(HUB_CONFIG, "hub")
    dimensions, sizes = family.dimensions, family.sizes
    assert (dimensions.encoder_layers, dimensions.encoder_width) == (32, 1280)
    assert (dimensions.lm_layers, dimensions.lm_width) == (28, 3584)
    assert dimensions.rate_hz(qa.Tap.parse("projector")) == 25
    assert (sizes.attended_rows, sizes.max_positions, sizes.lm_head_dim) == (100, 32768, 128)
    assert family.config.dtype is torch.bfloat16
    assert not family.ties_head  # although Qwen2_5OmniTextConfig would, by default
    assert family.audio_token_id == 151646


def test_a_checkpoint_without_head_is_refused(folder: Path, tmp_path: Path) -> None:
    """What the configuration of the language model says of it, nobody reads."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["thinker.lm_head.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    edit_json(copy / "config.json", thinker_config__text_config__tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match="lacks the language model's head"):
        Checkpoint(copy)
    edit_json(copy / "config.json", thinker_config__tie_word_embeddings=True)
    Checkpoint(copy)


def test_the_thinkers_config_says_what_ends_an_answer(folder: Path, tmp_path: Path) -> None:
    """The hub's generation_config.json says nothing."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit_json(copy / "generation_config.json", eos_token_id=None)
    edit_json(
        copy / "config.json",
        thinker_config__text_config__eos_token_id=None,
        thinker_config__eos_token_id=17,
    )
    assert Checkpoint(copy).tokenizer(chat=False).stop_token_ids() == {17}


def test_only_tensors_of_other_parts_are_ignored(folder: Path, tmp_path: Path) -> None:
    family = Checkpoint(folder).family
    stored = load_file(folder / "model.safetensors")
    ignored = {name for name in stored if name.startswith(family.ignored_names)}
    parts = {".".join(name.split(".")[:2]) for name in ignored}
    assert {"talker.model", "token2wav.code2wav_dit_model", "thinker.visual"} < parts
    assert {name for name in ignored if name.startswith("thinker.audio_tower.")} == {
        "thinker.audio_tower.audio_bos_eos_token.weight"
    }
    copy = shutil.copytree(folder, tmp_path / "copy")
    save_file({**stored, "speaker.x": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"Qwen2\.5-Omni lacks, speaker\.x"):
        Checkpoint(copy)


def test_blocks_of_two_seconds_are_encoded_by_themselves(model: qa.AudioModel) -> None:
    """The same sound makes the same rows in every block that begins with it: positions, too, are
    those of the block."""
    part = sound(2.0, seed=1)
    clip = np.concatenate([part, part, part, part[:8000]])
    for tap, rows in (("encoder.0", 100), ("encoder.2", 100), ("projector", 50)):
        states = model.activations(clip, taps=[tap], **RATE)[tap].data
        second, third = states[rows : 2 * rows], states[2 * rows : 3 * rows]
        np.testing.assert_allclose(second, third, rtol=1e-4, atol=1e-5)


def test_one_attention_call_a_layer(model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the layer would call it for every block: see `run_encoder_layer`."""
    calls: list[tuple[int, ...]] = []
    attention = transformers.AttentionInterface()[packed_attention.ATTENTION]

    def counted(*args: Any, packing: Any, **options: Any) -> Any:
        calls.append(packing.lengths)
        return attention(*args, packing=packing, **options)

    monkeypatch.setitem(
        transformers.AttentionInterface._global_mapping, packed_attention.ATTENTION, counted
    )
    model.activations([sound(5.0), sound(2.5)], taps=["encoder.2"], **RATE)
    assert calls == [(100, 100, 50, 100, 25)] * 2


def test_positions_are_computed_in_float32(folder: Path) -> None:
    """The rotary frequencies stay so, as in transformers' model in bfloat16."""
    model = qa.load(folder, dtype="bfloat16")
    rotary: Any = model.pipeline.lm._rotary
    assert rotary.inv_freq.dtype is torch.float32
    states = model.activations(sound(2.0), taps=["lm.norm"], **RATE)
    assert np.isfinite(states["lm.norm"].data).all()
    family: Any = model.pipeline.checkpoint.family
    positions = family.positions(model.pipeline.modules)
    assert positions.dtype is torch.bfloat16
    exact = family._sinusoids(100)
    assert exact.dtype is torch.float32
    torch.testing.assert_close(positions, exact.to(torch.bfloat16), rtol=0, atol=0)


def test_windows_of_up_to_five_minutes(model: qa.AudioModel) -> None:
    config = model.pipeline.window_config(300.0)
    assert config.window_seconds == 300.0
    with pytest.raises(qa.OptionError, match="300 s at once"):
        model.pipeline.window_config(301.0)
    assert model.spec().window_seconds == 30.0
    assert model.dimensions.times(qa.Tap(Stage.PROJECTOR)).hop_seconds == 0.04


def test_a_quantised_copy_is_refused(folder: Path, tmp_path: Path) -> None:
    """It would lack what is ignored; in memory all matrices of the language model are quantised."""
    with pytest.raises(qa.OptionError, match="parts that aren't read here"):
        qa.quantize_checkpoint(folder, tmp_path / "quantised", quantize="int8")
    formats = Checkpoint(folder, quantize="int8").formats
    assert sum(name.startswith("language_model.model.layers.") for name in formats) == 14


def test_messages_with_video_are_refused(model: qa.AudioModel) -> None:
    content = [{"type": "video", "video": "x.mp4"}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(qa.OptionError, match="neither text nor audio"):
        model.chat([{"role": "user", "content": content}])
