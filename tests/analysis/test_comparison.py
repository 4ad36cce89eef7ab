"""Cosines by depth and time: equal to plain NumPy, and sure of what they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from recordings import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.slow
def test_it_is_the_cosine_of_what_encode_gives(checkpoint: Path, tmp_path: Path) -> None:
    model = qa.load(checkpoint)
    clips = [sound(2.0, 16_000, seed=1)[0], sound(3.0, 16_000, seed=2)[0]]
    one, two = model.activations(clips, taps=model.taps, **RATE)
    compared = qa.Comparison.of(((one[tap], two[tap]) for tap in one), columns=10)
    assert compared.taps == tuple(map(str, model.taps))
    assert compared.by_time.shape == (len(model.taps), 10)
    assert compared.column_seconds == pytest.approx(0.2)
    for tap, cosine in zip(compared.taps, compared.cosines, strict=True):
        a, b = model.encode(clips, tap=tap, **RATE)
        assert cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-4)
    a, b = (frames["encoder.1"].data[:10] for frames in (one, two))
    by_hand = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    assert compared.by_time[2][0] == pytest.approx(np.mean(by_hand), abs=1e-5)
    compared.save(tmp_path / "compared.csv")
    lines = (tmp_path / "compared.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 10 * len(model.taps)
    same = qa.Comparison.of((frames, frames) for frames in one.values())
    assert same.by_time == pytest.approx(1.0, abs=1e-5)


def test_what_makes_no_pair_is_an_error(checkpoint: Path) -> None:
    frames = qa.load(checkpoint).activations(sound(1.0, 16_000)[0], taps=["mel", "lm.0"], **RATE)
    with pytest.raises(qa.OptionError, match=r"mel can't be compared with lm\.0"):
        qa.Comparison.of([(frames["mel"], frames["lm.0"])])
    with pytest.raises(qa.OptionError, match="nothing to compare"):
        qa.Comparison.of([])
    with pytest.raises(qa.OptionError, match="columns=0"):
        qa.Comparison.of([(frames["mel"], frames["mel"])], columns=0)


def test_recordings_are_compared_window_by_window(checkpoint: Path) -> None:
    """As their whole hidden states are; the longer one goes on in the means only."""
    model = qa.load(checkpoint)
    one, two = sound(2.0, 16_000, seed=1)[0], sound(3.3, 16_000, seed=2)[0]
    options: dict[str, Any] = {"window_seconds": 1.0, **RATE}
    taps = ["mel", "encoder.1", "lm.1"]
    found = model.compare(one, two, taps=taps, columns=10, **options)
    states = model.activations([one, two], taps=taps, **options)
    expected = qa.Comparison.of(((states[0][tap], states[1][tap]) for tap in taps), columns=10)
    np.testing.assert_allclose(found.cosines, expected.cosines, atol=1e-5)
    np.testing.assert_allclose(found.by_time, expected.by_time, atol=1e-5)
    assert found.names == ("array (32000,)", "array (52800,)")
    assert found.column_seconds == pytest.approx(0.2)
    scaled = found.by_time_scaled
    np.testing.assert_array_equal(scaled.argmax(1), found.by_time.argmax(1))
    np.testing.assert_allclose([scaled.min(1), scaled.max(1)], [[0] * 3, [1] * 3])
    with pytest.raises(qa.OptionError, match="two recordings, not lists"):
        model.compare([one], two, **RATE)  # type: ignore[arg-type]
    with pytest.raises(qa.OptionError, match="only the language model"):
        model.compare(one, two, taps=["mel"], prompt="What?", **RATE)
    with pytest.raises(qa.AudioError, match="no such file"):
        model.compare(Path("none.wav"), two)
