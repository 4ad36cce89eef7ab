from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.errors import AudioError, OptionError, TapError
from qwen_audio.probing.features import extract_features, plan_features
from recordings import sound


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32", device="cpu")


@pytest.mark.slow
def test_one_pass_equals_encode(model: qa.AudioModel) -> None:
    clips = [qa.Waveform(sound(seconds, 16_000, seed=7)[0]) for seconds in (0.7, 2.6)]
    features = plan_features(
        model,
        None,
        ["mean", "max", "mean+std", "last"],
        ["audio", "prompt", "last", "all"],
        prompt="Is it loud?",
        window_seconds=1.0,
    )
    encoder_taps, lm_taps = (
        len([t for t in model.taps if not t.in_language_model]),
        model.dimensions.lm_layers + 2,
    )
    assert len(features) == encoder_taps * 2 * 4 + lm_taps * (3 * 4 + 1)
    results = list(extract_features(model, iter(clips), features))
    for feature, spec in features.items():
        expected = model.encode(
            clips,
            tap=feature.tap,
            pooling=feature.pooling,
            span=feature.span,
            prompt="Is it loud?" if feature.tap.in_language_model else None,
            window_seconds=1.0,
        )
        assert spec.pooling == feature.pooling
        for result, vector in zip(results, expected, strict=True):
            assert isinstance(result, dict)
            np.testing.assert_allclose(result[feature], vector, rtol=1e-5, atol=1e-5)


def test_errors_are_yielded_in_the_order_of_recordings(
    model: qa.AudioModel, tmp_path: Path
) -> None:
    clip = qa.Waveform(sound(1.0, 16_000)[0])
    features = plan_features(model, ["mel"])
    first, second, third = extract_features(model, [clip, tmp_path / "none.wav", clip], features)
    assert isinstance(second, AudioError)
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    (feature,) = features
    np.testing.assert_array_equal(first[feature], third[feature])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": ["mel"], "spans": ["prompt"]}, "span='prompt' at tap mel"),
        ({"spans": ["nothing"]}, "span='nothing': use one of"),
        ({"poolings": ["median"]}, "pooling='median': use one of"),
        ({"poolings": ["none"]}, r"one of mean, max, mean\+std, last, which give one vector"),
        ({"poolings": []}, "no features"),
        ({"taps": []}, "no features"),
        ({"taps": ["mel"], "prompt": "Why?"}, "only the language model"),
        ({"window_seconds": 99.0}, "window_seconds=99"),
    ],
)
def test_option_errors(model: qa.AudioModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        plan_features(model, **options)
    with pytest.raises(TapError):
        plan_features(model, ["encoder.9"])
