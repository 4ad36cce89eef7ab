"""Views: rows, columns, sections, depth, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from reference import Reference, relative_error, sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.slow
def test_a_view_has_the_rows_of_the_tap(embedded: qa.AudioModel) -> None:
    clip = sound(6.0)
    for tap in ("mel", "encoder.2", "audio_tower", "lm.2"):
        frames = embedded.activations(clip, taps=[tap, "mel"], **RATE)
        view = embedded.view(clip, tap=tap, **RATE)
        assert view.frames_per_column == 1
        rows = frames[tap].data[frames[tap].indices("audio")]
        assert relative_error(view.rows, rows) < 1e-5
        assert view.hop_seconds == pytest.approx(frames[tap].hop_seconds)
        assert view.log_mel is not None
        assert relative_error(view.log_mel, 40 * frames["mel"].data - 40) < 1e-5
        same = qa.View.of(frames[tap], log_mel=frames["mel"], mel_hz=embedded.mel_hz)
        np.testing.assert_allclose(same.rows, view.rows, atol=1e-3)
        np.testing.assert_allclose(same.boundaries, view.boundaries)
    assert view.duration_seconds == 6
    assert view.envelope is not None
    assert view.envelope[1].max() == clip.max()


@pytest.mark.slow
def test_long_recordings_are_averaged_to_a_thousand_columns(embedded: qa.AudioModel) -> None:
    clip = sound(65.0)
    frames = embedded.activations(clip, taps=["encoder.1"], **RATE)["encoder.1"]
    view = embedded.view(clip, tap="encoder.1", **RATE)
    assert view.rows.shape == (1000, embedded.dimensions.encoder_width)
    assert view.frames_per_column == pytest.approx(3.25)
    whole = qa.View.of(frames)
    assert relative_error(view.rows, whole.rows) < 0.1  # groups lie in one column or the next
    coarse = embedded.view(clip, tap="encoder.1", columns=13, **RATE)
    means = frames.data.reshape(13, -1, frames.data.shape[1]).mean(1)
    assert relative_error(coarse.rows, means) < 0.02
    assert coarse.start_seconds[-1] == pytest.approx(60)


@pytest.mark.slow
def test_a_change_of_sound_is_a_section_boundary(embedded: qa.AudioModel) -> None:
    time = np.arange(8 * 16_000) / 16_000
    tone = np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * 4 * time)) / 4
    noise = np.random.default_rng(0).standard_normal(time.size) / 8
    clip = np.where(time < 5, tone, noise).astype(np.float32)
    for tap in ("mel", "encoder.1", "audio_tower"):
        view = embedded.view(clip, tap=tap, kernel_seconds=3.0, **RATE)
        assert np.abs(view.boundaries - 5).min() < 0.15, tap
        assert len(view.boundaries) <= 3


@pytest.mark.slow
def test_depth_has_the_quartiles_of_norms_at_every_tap(
    pair: tuple[qa.AudioModel, Reference],
) -> None:
    model, reference = pair
    clip = sound(2.0)
    view = model.view(clip, depth=True, **RATE)
    assert view.depth_taps == tuple(map(str, model.taps))
    assert view.depth_norms is not None
    taps = reference.taps(clip)
    for tap, quartiles in zip(view.depth_taps, view.depth_norms, strict=True):
        norms = np.linalg.norm(taps[tap], axis=1)
        if tap.startswith("lm."):  # audio alone: a marker before it, another and the words after it
            norms = norms[1:-5]
        np.testing.assert_allclose(quartiles, np.percentile(norms, [25, 50, 75]), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 1}, "columns=1"),
        ({"kernel_seconds": 0.04}, "kernel_seconds=0.04"),
        ({"kernel_seconds": 7.0}, "kernel_seconds=7"),
        ({"prompt": "What?"}, "only the language model"),
        ({"window_seconds": 31.0}, "window_seconds"),
    ],
)
def test_invalid_view_options(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.view(sound(5.0), **options, **RATE)


@pytest.mark.parametrize("seconds", [0.04, 0.1, 0.5])
def test_the_shortest_clips_have_a_view(embedded: qa.AudioModel, seconds: float) -> None:
    view = embedded.view(sound(seconds), **RATE)
    assert view.similarity.shape == (len(view.rows),) * 2
    assert len(view.boundaries) == 0 or seconds > 0.1


def test_a_view_is_saved(embedded: qa.AudioModel, tmp_path: Path) -> None:
    view = embedded.view(sound(2.0), **RATE)
    with np.load(view.save(tmp_path / "view.npz")) as archive:
        np.testing.assert_array_equal(archive["similarity"], view.similarity)
        assert json.loads(str(archive["facts"]))["tap"] == "audio_tower"
    with view.save(tmp_path / "view.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(view.rows)
    assert rows[0]["novelty"] == ""
    for bad, message in (("x.txt", "use .npz"), ("no/x.npz", "no folder"), (".", "use .npz")):
        with pytest.raises(qa.OptionError, match=message):
            view.save(tmp_path / bad)
