"""Occlusion: windows, fades, scores one by one, and speech that is found in music."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes.study.speech_in_music import inside, made_clips

import qwen_audio as qa
from qwen_audio.analysis.occlusion import occluded, occlusion_starts
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.scored_clips import answer_tokens, encode_mels
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


def test_windows_cover_a_clip() -> None:
    starts = occlusion_starts(96_000, 8_000, 4_000)
    assert len(starts) == 23
    assert starts == list(range(0, 88_001, 4_000))
    assert occlusion_starts(17_000, 8_000, 4_000) == [0, 4_000, 8_000, 9_000]
    assert occlusion_starts(8_000, 8_000, 4_000) == [0]


def test_what_is_removed_is_silent_and_the_rest_is_kept() -> None:
    samples = np.ones(16_000, np.float32)
    silenced = occluded(samples, 4_000, 8_000)
    assert (silenced[:4_000] == 1).all()
    assert (silenced[12_000:] == 1).all()
    assert (silenced[4_400:11_600] == 0).all()
    assert np.abs(np.diff(silenced)).max() < 0.005  # no click
    assert (samples == 1).all()
    assert silenced[4_000] > 0.99  # from and to the sound as it is
    assert silenced[11_999] > 0.99
    assert (occluded(samples, 0, 160) == occluded(samples[::-1].copy(), 0, 160)).all()


def test_effects_are_those_of_windows_one_by_one(model: qa.AudioModel) -> None:
    clip = sound(0.9)
    found = model.occlusion(clip, "What?", answers=("a", "b"), window_seconds=0.4, **RATE)
    prompt_text = model.pipeline.tokenizer.render("What?")
    choices = answer_tokens(model.pipeline, prompt_text, ("a", "b"))

    def scores(samples: np.ndarray) -> np.ndarray:
        rows = encode_mels(model.pipeline, [model.pipeline.log_mel(samples)])
        return model.pipeline.score(prompt_text, rows, choices)[0].log_probability

    np.testing.assert_allclose(found.heard, scores(clip), atol=1e-5)
    assert found.start_seconds.tolist() == [0, 0.25, 0.5]
    for start, pair, effect in zip(
        found.start_seconds, found.log_probabilities, found.effect, strict=True
    ):
        alone = scores(occluded(clip, round(start * 16_000), 6_400))
        np.testing.assert_allclose(pair, alone, atol=1e-5)
        assert effect == pytest.approx(found.difference - (alone[0] - alone[1]), abs=2e-5)
    edges, means = found.map()
    np.testing.assert_allclose(edges, [0, 0.25, 0.4, 0.5, 0.65, 0.9])
    first, second, third = found.effect
    np.testing.assert_allclose(
        means, [first, (first + second) / 2, second, (second + third) / 2, third]
    )


def test_the_effect_on_a_single_answer(model: qa.AudioModel) -> None:
    options: dict[str, Any] = {"window_seconds": 0.4, **RATE}
    pair = model.occlusion(sound(0.9), "What?", answers=("a", "b"), **options)
    found = model.occlusion(sound(0.9), "What?", answers=["a"], **options)
    assert found.heard == pytest.approx(pair.heard[:1], abs=1e-5)

    def log_odds(log_probability: Any) -> Any:
        share = np.exp(log_probability)
        return np.log(share / (1 - share))

    assert found.difference == pytest.approx(log_odds(pair.heard[0]), abs=1e-5)
    np.testing.assert_allclose(
        found.effect, found.difference - log_odds(pair.log_probabilities[:, 0]), atol=1e-5
    )
    assert list(found.table()[0]) == [
        "start_seconds", "end_seconds", "effect", "log_probability_first"
    ]  # fmt: skip
    assert repr(found).startswith("Occlusion('a': -")
    titles = {axes.get_title(loc="left") for axes in qa.plot(found).axes}
    assert "Red: speaks for 'a'; blue: against it" in titles


def test_tables_and_facts(tmp_path: Path) -> None:
    pairs = np.array([[-1.0, -2.0], [-3.0, -0.5]])
    starts, envelope = np.array([0.0, 0.25]), np.zeros((2, 3), np.float32)
    found = qa.Occlusion(
        "a", "p", ("Yes", "No"), starts, 0.5, (-1.0, -4.0), pairs, envelope, 0.75, "float32"
    )
    assert found.difference == 3
    assert found.effect.tolist() == [2, 5.5]
    assert (found.peak_seconds, found.facts()["peak_seconds"]) == (0.5, 0.5)
    assert found.table()[1] == {
        "start_seconds": 0.25,
        "end_seconds": 0.75,
        "effect": 5.5,
        "log_probability_first": -3.0,
        "log_probability_second": -0.5,
    }
    with np.load(found.save(tmp_path / "a.npz")) as saved:
        assert saved["map_edges_seconds"].tolist() == [0, 0.25, 0.5, 0.75]
        assert saved["map"].tolist() == [2, 3.75, 5.5]
        assert saved["effect"].tolist() == [2, 5.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": ()}, "answers=.*give a text, such as"),
        ({"answers": "Yes"}, "answers='Yes': give a text, such as"),
        ({"answers": ("Yes", "Yes")}, "choice 'Yes' is given twice: leave one out"),
        ({"answers": ("Yes", " ")}, "give a text, such as"),
        ({"window_seconds": 0.001}, "window_seconds=0.001: use 0.01 s or more"),
        ({"hop_seconds": 0.6}, "hop_seconds=0.6 is longer than window_seconds=0.5"),
        ({"window_seconds": 2.0}, "window_seconds=2, but the clip lasts 0.60 s: use shorter"),
    ],
)
def test_invalid_options(model: qa.AudioModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        model.occlusion(sound(0.6), "What?", **RATE, **options)
    assert "\n" not in str(caught.value)


def test_recordings_of_several_windows(model: qa.AudioModel) -> None:
    with pytest.raises(AudioError, match=r"is longer than a window of 30 s, and occlusion is of"):
        model.occlusion(sound(30.5), **RATE)


@pytest.mark.slow
def test_peaks_are_in_the_speech() -> None:
    """Of two clips in music; recipes/study/speech_in_music.py counts those of twenty."""
    clips = made_clips(2)
    assert inside(qa.load(dtype="float32"), clips) == [True, True]
    again = made_clips(2)
    assert all(
        np.array_equal(one.waveform.samples, other.waveform.samples)
        for one, other in zip(clips, again, strict=True)
    )
