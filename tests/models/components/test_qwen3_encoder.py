"""The encoder of Qwen3-ASR and Qwen3-Omni: what looks right and isn't, against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES, Case, TransformersReference
from qwen_audio.audio.log_mel import HOP_SAMPLES
from qwen_audio.errors import CheckpointError, OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.components.qwen3_encoder import conv_2d_as_product, conv_rows
from qwen_audio.models.tap import Stage
from qwen_audio.models.tensors import EMBEDDINGS, LM_HEAD
from reference import relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def asr(tmp_path_factory: pytest.TempPathFactory) -> tuple[qa.AudioModel, Case, Path]:
    case, folder = CASES["qwen3_asr"], tmp_path_factory.mktemp("qwen3_asr")
    case.write(folder)
    return qa.load(folder, dtype="float32"), case, folder


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> tuple[qa.AudioModel, Case, Path]:
    case, folder = CASES["qwen3_omni_moe"], tmp_path_factory.mktemp("qwen3_omni")
    case.write(folder)
    return qa.load(folder, dtype="float32"), case, folder


def test_a_second_is_13_rows_and_the_rest_one_per_begun_8_frames() -> None:
    rows = {0: 0, 1: 1, 8: 1, 9: 2, 96: 12, 97: 13, 100: 13, 101: 14, 800: 104, 801: 105}
    assert {frames: conv_rows(frames) for frames in rows} == rows


def test_a_clip_of_8_005_seconds_is_104_tokens_as_alone_in_transformers(
    asr: tuple[qa.AudioModel, Case, Path],
) -> None:
    """In a batch with a longer one it would be 105: the frame that its end cuts is counted."""
    model, case, folder = asr
    clips = [sound(8.005), sound(9.0)]
    processor = TransformersReference(case, folder).processor
    text = [model.pipeline.tokenizer.render(None)] * 2
    alone = processor(text=text[:1], audio=clips[:1], return_tensors="pt", **RATE)
    batch = processor(text=text, audio=clips, return_tensors="pt", padding=True, **RATE)
    token = model.pipeline.tokenizer.audio_token_id
    assert [int((ids["input_ids"][0] == token).sum()) for ids in (alone, batch)] == [104, 105]
    together = model.activations(clips, taps=["projector"], **RATE)
    assert [len(states["projector"]) for states in together] == [104, 117]


def test_rows_have_the_times_of_their_mel_frames(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    states = asr[0].activations(sound(2.0), taps=["encoder.1"], **RATE)["encoder.1"]
    np.testing.assert_allclose(states.start_seconds[[0, 1, 12, 13, 25]], [0, 0.08, 0.96, 1, 1.96])
    np.testing.assert_allclose(states.end_seconds[[0, 11, 12, 25]], [0.08, 0.96, 1, 2])


@pytest.mark.parametrize("seconds", [0.1, 0.301, 0.5, 0.9])
def test_what_a_clip_is_padded_to_half_a_second_with_is_no_audio(
    asr: tuple[qa.AudioModel, Case, Path], seconds: float
) -> None:
    model, case, folder = asr
    clip, taps = sound(seconds), ["mel", "encoder.2", "audio_tower", "projector", "lm.2"]
    states = model.activations(clip, taps=taps, **RATE)
    frames = clip.size // HOP_SAMPLES
    audio, all_rows = conv_rows(frames), conv_rows(max(frames, 50))
    expected = TransformersReference(case, folder).taps(clip, model.pipeline.tokenizer.render(None))
    for tap in taps:
        rows = states[tap].data
        assert relative_error(rows, expected[tap][: len(rows)]) < 1e-5, tap
        assert len(states[tap].indices("audio")) == (frames if tap == "mel" else audio)
    for tap in ("projector", "lm.2"):
        assert len(states[tap].indices("padding")) == all_rows - audio
        assert len(states[tap]) >= all_rows
    assert states["audio_tower"].index.end_seconds[-1] == pytest.approx(seconds, abs=0.08)


def test_blocks_of_8_seconds_attend_to_themselves(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    family = asr[0].pipeline.checkpoint.family
    assert list(family.attention_blocks(104)) == [104]
    assert list(family.attention_blocks(209)) == [104, 104, 1]
    start, other = sound(8.0), [sound(2.0, seed) for seed in (1, 2)]
    first, second = (
        asr[0].activations(np.concatenate([start, end]), taps=["encoder.2"], **RATE)["encoder.2"]
        for end in other
    )
    # The loudest frame bounds the others from below: compare what it doesn't touch.
    assert relative_error(first.data[:103], second.data[:103]) < 0.05
    assert relative_error(first.data[104:], second.data[104:]) > 0.1


def test_the_head_is_the_embedding_table(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    _, _, folder = asr
    stored = {name for file in folder.glob("*.safetensors") for name in load_file(file)}
    assert not any("lm_head" in name for name in stored)
    checkpoint = Checkpoint(folder)
    assert checkpoint.tensors.without_duplicates([EMBEDDINGS, LM_HEAD]) == [EMBEDDINGS]


def test_positions_are_float32_in_16_bits(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    family: Any = asr[0].pipeline.checkpoint.family
    assert family.positions().positional_embedding.dtype is torch.float32
    assert family.rotary_embedding().inv_freq.dtype is torch.float32


def test_a_prompt_is_the_context_before_the_audio(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    model, _, _ = asr
    tokenizer = model.pipeline.tokenizer
    audio = "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
    system, answer = "<|im_start|>system\n{}<|im_end|>\n", "<|im_start|>assistant\n"
    assert tokenizer.render(None) == system.format("") + audio + answer
    assert tokenizer.render("Names: Ada") == system.format("Names: Ada") + audio + answer
    messages = [
        {"role": "user", "content": [{"type": "audio", "audio": ""}, {"type": "text", "text": "?"}]}
    ]
    with pytest.raises(OptionError, match="drops the text of a user's turn"):
        tokenizer.apply_chat_template(messages)
    session = model.session(sound(0.6), **RATE)
    session.ask(max_new_tokens=2)
    with pytest.raises(OptionError, match="no question that follows"):
        session.ask("And then?", follow_up=True, max_new_tokens=2)
    with pytest.raises(OptionError, match="is empty"):
        model.describe(sound(0.6), prompt="", **RATE)


def test_another_feature_extractor_is_refused(
    asr: tuple[qa.AudioModel, Case, Path], tmp_path: Path
) -> None:
    asr[1].write(tmp_path)
    edit_json(tmp_path / "processor_config.json", feature_extractor__min_length=16_000)
    with pytest.raises(CheckpointError, match="min_length=16000"):
        Checkpoint(tmp_path)


def test_a_forced_aligner_is_refused(asr: tuple[qa.AudioModel, Case, Path], tmp_path: Path) -> None:
    asr[1].write(tmp_path)
    edit_json(tmp_path / "config.json", architectures=["Qwen3ASRForTokenClassification"])
    with pytest.raises(CheckpointError, match="Qwen3ASRForTokenClassification"):
        Checkpoint(tmp_path)


def test_a_convolution_as_a_product_gives_the_same() -> None:
    torch.manual_seed(0)
    for channels in (1, 4):
        conv, images = nn.Conv2d(channels, 4, 3, 2, padding=1), torch.randn(2, channels, 9, 100)
        torch.testing.assert_close(conv_2d_as_product(conv, images), conv(images))


def test_stages_count_the_same_rows(asr: tuple[qa.AudioModel, Case, Path]) -> None:
    family = asr[0].pipeline.checkpoint.family
    assert family.rows(Stage.MEL, 57) == 57
    assert {family.rows(stage, 57) for stage in Stage if stage is not Stage.MEL} == {8}
    assert family.audio_tokens(10) == family.encoder_rows(10) == 7


@pytest.mark.parametrize("seconds", [0.1, 0.9, 1.05])
def test_qwen3_omni_fills_no_clip_shorter_than_a_second(
    omni: tuple[qa.AudioModel, Case, Path], seconds: float
) -> None:
    model, case, folder = omni
    clip, taps = sound(seconds), ["mel", "encoder.0", "encoder.2", "projector", "lm.2"]
    expected = TransformersReference(case, folder).taps(clip, model.pipeline.tokenizer.render(None))
    states = model.activations(clip, taps=taps, **RATE)
    for tap in taps:
        assert relative_error(states[tap].data, expected[tap]) < 1e-5, tap
        assert len(states[tap].indices("padding")) == 0
