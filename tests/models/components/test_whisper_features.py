"""Spectrograms against transformers' extractor, which pads every clip to 30 s."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import Qwen2AudioEncoderConfig, WhisperFeatureExtractor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from qwen_audio.audio.log_mel import LogMel, mel_frame_count
from qwen_audio.errors import CheckpointError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.components.whisper_features import (
    build_feature_extractor,
    chunked_log_mel,
    conv_frame_count,
)
from qwen_audio.models.tap import Stage

BINS = [80, 128]


@functools.cache
def extractor(bins: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=bins)


def check(samples: np.ndarray[Any, Any], bins: int) -> LogMel:
    """Equal to the padded spectrogram, and enough of it."""
    samples = samples.astype(np.float32)
    actual = chunked_log_mel(samples, extractor(bins))
    expected = extractor(bins)(
        samples, sampling_rate=16_000, return_tensors="np", return_attention_mask=True
    )
    padded = expected["input_features"][0]
    assert padded.shape == (bins, 3000)
    frames = actual.input_features.shape[1]
    assert actual.valid_frames == expected["attention_mask"].sum()
    assert min(actual.valid_frames + 1, 3000) <= frames <= actual.valid_frames + 2
    # The last encoder frame is made of mel frames 2j−2 … 2j+2.
    last = 2 * (conv_frame_count(actual.valid_frames) - 1)
    assert frames == min(last + 2, 2999) + 1
    np.testing.assert_allclose(actual.input_features, padded[:, :frames], atol=1e-5, rtol=0)
    return actual


lengths = st.one_of(
    st.integers(640, 2000),
    st.integers(640, 480_000),
    st.builds(
        lambda hops, off: min(max(160 * hops + off, 640), 480_000),
        st.integers(4, 3000),
        st.integers(-2, 2),
    ),
)


@settings(max_examples=30)
@pytest.mark.slow
@given(lengths, st.sampled_from(BINS), st.integers(0, 99))
@example(640, 80, 0)
@example(641, 128, 0)
@example(479_679, 80, 0)
@example(479_840, 80, 0)
@example(479_841, 128, 0)
@example(480_000, 128, 0)
def test_frames_equal_the_extractors(length: int, bins: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    level = 10 ** random.uniform(-4, 0)
    check(level * random.standard_normal(length), bins)


@settings(max_examples=20)
@given(lengths, st.integers(1, 700), st.sampled_from(BINS))
@example(640, 1, 80)
@example(479_520, 40, 80)
def test_a_peak_at_the_very_end_sets_the_maximum(length: int, loud: int, bins: int) -> None:
    """The extractor clamps 8 decades below the loudest frame, which may be the last or beyond."""
    random = np.random.default_rng(length)
    samples = 1e-7 * random.standard_normal(length)
    samples[-loud:] = random.uniform(-1, 1, samples[-loud:].shape)
    check(samples, bins)


@pytest.mark.parametrize("length", [640, 800, 5_000, 16_000, 479_999, 480_000])
@pytest.mark.parametrize("bins", BINS)
def test_silence(length: int, bins: int) -> None:
    actual = check(np.zeros(length), bins)
    np.testing.assert_allclose(actual.input_features, -1.5)


def test_chunks_of_a_longer_window_are_spectrograms_by_themselves() -> None:
    """Also where one is much louder than another: each is clamped relative to its own maximum."""
    samples = np.random.default_rng(0).standard_normal(500_000).astype(np.float32)
    samples[480_000:] *= 1e-6
    mel, first, second = (
        chunked_log_mel(part, extractor(80)) for part in (samples, *np.split(samples, [480_000]))
    )
    assert mel.valid_frames == first.valid_frames + second.valid_frames == 3125
    assert first.input_features.shape[1] == 3000
    np.testing.assert_array_equal(
        mel.input_features, np.concatenate([first.input_features, second.input_features], axis=1)
    )


def test_a_click_in_silence() -> None:
    for position in (0, 1, 159, 160, 8_000, 15_999):
        samples = np.zeros(16_000)
        samples[position] = 1
        check(samples, 80)


@pytest.mark.parametrize(
    ("samples", "counts"),
    [
        (480_000, (3000, 1500, 750)),
        (479_999, (3000, 1500, 750)),
        (479_840, (2999, 1500, 750)),
        (16_000, (100, 50, 25)),
        (640, (4, 2, 1)),
        (639, (4, 2, 1)),
        (480, (3, 2, 1)),
        (320, (2, 1, 0)),
        (160, (1, 1, 0)),
        (1, (1, 1, 0)),
    ],
)
def test_counts(samples: int, counts: tuple[int, int, int]) -> None:
    mel, rows = mel_frame_count(samples), Checkpoint().family.rows
    stages = (Stage.MEL, Stage.ENCODER, Stage.PROJECTOR)
    assert tuple(rows(stage, mel) for stage in stages) == counts


def test_counts_equal_transformers() -> None:
    encoder = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(d_model=8, encoder_layers=0))
    lengths: Any = torch.arange(1, 3001)
    expected = encoder._get_feat_extract_output_lengths(lengths)
    family = Checkpoint().family
    for mel, frames, tokens in zip(range(1, 3001), *(t.tolist() for t in expected), strict=True):
        assert (family.rows(Stage.ENCODER, mel), family.audio_tokens(mel)) == (frames, tokens)


@pytest.mark.parametrize(("frames", "valid"), [(4, 0), (4, 5), (0, 0), (4, -1)])
def test_log_mel_validates_its_frames(frames: int, valid: int) -> None:
    with pytest.raises(ValueError, match="valid frames"):
        LogMel(np.zeros((80, frames), np.float32), valid)


def test_repr_shows_shapes() -> None:
    log_mel = LogMel(np.zeros((80, 101), np.float32), 100)
    assert repr(log_mel) == "LogMel(80 bins × 101 frames, 100 of them audio)"


def test_equivalent_extractor_is_accepted() -> None:
    for bins in BINS:
        settings = extractor(bins).to_dict()
        assert (
            build_feature_extractor(settings, bins, "a.json", "Qwen2-Audio").to_dict() == settings
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sampling_rate", 22_050), ("hop_length", 320), ("n_fft", 512), ("chunk_length", 10)),
        *(("dither", 0.1), ("feature_size", 64)),
    ],
)
def test_different_extractor_is_rejected(name: str, value: float) -> None:
    with pytest.raises(CheckpointError, match=rf"a\.json has {name}={value}") as caught:
        build_feature_extractor({"feature_size": 80, name: value}, 80, "a.json", "X")
    assert "\n" not in str(caught.value)
