"""What is Whisper's own; `tests/models/test_families.py` has what all families share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import qwen_audio as qa
from families import CASES
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Stage
from reference import relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper")
    CASES["whisper"].write(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> qa.AudioModel:
    return qa.load(folder, dtype="float32")


def test_rows_are_those_of_a_clip_padded_to_30_s(folder: Path, model: qa.AudioModel) -> None:
    """The last hidden state of transformers' encoder, without the rows of silence; of the clip cut
    it would be another."""
    clip = sound(1.5)
    encoder = transformers.WhisperModel.from_pretrained(folder).eval().encoder
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(clip, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        expected = encoder(features).last_hidden_state[0].numpy()
    frames = model.activations(clip, taps=["audio_tower"], **RATE)["audio_tower"]
    assert frames.data.shape == (75, 32)
    assert frames.start_seconds[1] == pytest.approx(0.02)
    assert relative_error(frames.data, expected[:75]) < 1e-5
    silence = np.zeros(16_000, np.float32)
    longer = model.activations(np.concatenate([clip, silence]), taps=["audio_tower"], **RATE)
    assert relative_error(longer["audio_tower"].data[:75], expected[:75]) < 1e-5


def test_a_short_clip_costs_as_much_as_a_long_one(model: qa.AudioModel) -> None:
    family = model.pipeline.checkpoint.family
    assert family.encoder_rows(100) == family.encoder_rows(3000) == 1500
    assert family.sizes.attended_rows == 1500
    assert family.rows(Stage.AUDIO_TOWER, 100) == 50


def test_what_needs_a_language_model_says_that_there_is_none(model: qa.AudioModel) -> None:
    clip = sound(0.5)
    assert [str(tap) for tap in model.taps] == [
        *("mel", "encoder.0", "encoder.1", "encoder.2", "audio_tower")
    ]
    for tap in ("projector", "lm.0", "lm.norm"):
        with pytest.raises(qa.TapError, match="its last one is audio_tower"):
            model.encode(clip, tap=tap, **RATE)
    for call in (
        lambda: model.describe(clip, **RATE),
        lambda: model.chat([{"role": "user", "content": "Hello?"}]),
        lambda: model.lens(clip, **RATE),
        lambda: model.session(clip, **RATE),
        lambda: model.inspect(clip, prompt="What?", **RATE),
        lambda: model.check_parity(prompt="What?"),
        lambda: model.cost(),
        lambda: model.fetch(),
    ):
        with pytest.raises(qa.QwenAudioError, match="has no language model"):
            call()


def test_views_and_similarities_without_a_language_model(model: qa.AudioModel) -> None:
    clips = [sound(1.0, 1), sound(1.0, 2)]
    view = model.view(clips[0], depth=True, **RATE)
    assert view.depth_taps == tuple(map(str, model.taps))
    assert model.layer_similarity(clips, **RATE).taps == tuple(map(str, model.taps))


def test_shapes_and_costs_without_a_language_model(folder: Path) -> None:
    model = qa.load(folder, dtype="float32", max_memory="4GB")
    trace = model.inspect(sound(1.5), **RATE)
    assert (trace.prompt, trace.text) == (None, None)
    assert [tap.rows for tap in trace.taps] == [150, 75, 75, 75, 75]
    assert (trace.windows[0].audio_tokens, trace.windows[0].positions) == (0, 0)
    assert model.cost("audio_tower").cache_bytes == 0


def test_files_of_other_classes(folder: Path, model: qa.AudioModel, tmp_path: Path) -> None:
    """The model without a head, its encoder, and classification of audio name it differently."""
    expected = model.activations(sound(0.5), taps=["audio_tower"], **RATE)["audio_tower"].data
    config = transformers.WhisperConfig.from_pretrained(folder)
    classifier = transformers.WhisperForAudioClassification(config)
    extra = {
        name: tensor
        for name, tensor in classifier.state_dict().items()
        if not name.startswith("encoder.")
    }
    stored = load_file(folder / "model.safetensors")
    inner = {name.removeprefix("model."): tensor for name, tensor in stored.items()}
    encoder = {name: tensor for name, tensor in inner.items() if name.startswith("encoder.")}
    for number, tensors in enumerate((inner, encoder, {**encoder, **extra})):
        copy = shutil.copytree(folder, tmp_path / str(number))
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        rows = qa.load(copy, dtype="float32").activations(sound(0.5), taps=["audio_tower"], **RATE)
        np.testing.assert_array_equal(rows["audio_tower"].data, expected)


def test_a_quantised_copy_is_refused(folder: Path, tmp_path: Path) -> None:
    """It would lack the decoder; quantised in memory, the encoder is as that of other families."""
    with pytest.raises(qa.OptionError, match="Whisper has parts that aren't read here"):
        qa.quantize_checkpoint(folder, tmp_path / "quantised", quantize="int8")
    assert "int8" in (Checkpoint(folder, quantize="int8").quantization or "")
