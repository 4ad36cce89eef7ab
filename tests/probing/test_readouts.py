from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.errors import AudioError, OptionError, TapError
from qwen_audio.probing.readouts import plan_readouts, read_out
from recordings import sound


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32", device="cpu")


def test_one_pass_gives_what_encode_gives_one_by_one(model: qa.AudioModel) -> None:
    clips = [qa.Waveform(sound(seconds, 16_000, seed=7)[0]) for seconds in (0.7, 2.6)]
    readouts = plan_readouts(
        model,
        None,
        ["mean", "max", "mean+std", "last"],
        ["audio", "prompt", "last", "all"],
        prompt="Is it loud?",
        window_seconds=1.0,
    )
    ear, lm = (
        len([t for t in model.taps if not t.in_language_model]),
        model.dimensions.lm_layers + 2,
    )
    assert len(readouts) == ear * 2 * 4 + lm * (3 * 4 + 1)
    results = list(read_out(model, iter(clips), readouts))
    for readout, spec in readouts.items():
        expected = model.encode(
            clips,
            tap=readout.tap,
            pooling=readout.pooling,
            span=readout.span,
            prompt="Is it loud?" if readout.tap.in_language_model else None,
            window_seconds=1.0,
        )
        assert spec.pooling == readout.pooling
        for result, vector in zip(results, expected, strict=True):
            assert isinstance(result, dict)
            np.testing.assert_allclose(result[readout], vector, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_heard_keeps_its_place(model: qa.AudioModel, tmp_path: Path) -> None:
    clip = qa.Waveform(sound(1.0, 16_000)[0])
    readouts = plan_readouts(model, ["mel"])
    first, second, third = read_out(model, [clip, tmp_path / "none.wav", clip], readouts)
    assert isinstance(second, AudioError)
    assert isinstance(first, dict)
    assert isinstance(third, dict)
    (readout,) = readouts
    np.testing.assert_array_equal(first[readout], third[readout])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": ["mel"], "spans": ["prompt"]}, "span='prompt' at tap mel"),
        ({"spans": ["nothing"]}, "span='nothing': use one of"),
        ({"poolings": ["median"]}, "pooling='median': use one of"),
        ({"poolings": ["none"]}, r"one of mean, max, mean\+std, last, which give"),
        ({"poolings": []}, "nothing to read"),
        ({"taps": []}, "nothing to read"),
        ({"taps": ["mel"], "prompt": "Why?"}, "only the language model"),
        ({"window_seconds": 99.0}, "window_seconds=99"),
    ],
)
def test_mistakes(model: qa.AudioModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        plan_readouts(model, **options)
    with pytest.raises(TapError):
        plan_readouts(model, ["encoder.9"])
