"""Families whose processor in transformers normalises a whole recording: its windows are parts of
that spectrogram, frame by frame, and so are the rows of windows that hold whole blocks."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import qwen_audio as qa
from families import CASES, TransformersReference
from recordings import write_wav
from reference import relative_error, sound

TOLERANCE = 1e-5
RATE: dict[str, Any] = {"sampling_rate": 16_000}
BLOCK_SECONDS = {"voxtral": 30, "qwen2_5_omni": 2, "qwen3_asr": 8, "qwen3_omni_moe": 8}
"""What encoders attend to, by family."""


class Pair(NamedTuple):
    """A family's checkpoint, here and in transformers."""

    block_seconds: float
    model: qa.AudioModel
    reference: TransformersReference


@pytest.fixture(scope="module", params=BLOCK_SECONDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    case, folder = CASES[request.param], tmp_path_factory.mktemp(request.param)
    case.write(folder)
    model = qa.load(folder, dtype="float32")
    return Pair(BLOCK_SECONDS[request.param], model, TransformersReference(case, folder))


def recording(block_seconds: float, blocks: float = 2.4) -> np.ndarray:
    """Loud in the second block alone: so that the first by itself has another floor."""
    samples = 3e-4 * sound(blocks * block_seconds)
    loud = slice(round(1.3 * block_seconds * 16_000), round(1.5 * block_seconds * 16_000))
    samples[loud] *= 3000
    return samples


def encoder_taps(model: qa.AudioModel) -> list[str]:
    return [str(tap) for tap in model.taps if not tap.in_language_model]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2.0, 2.4])
def test_rows_of_whole_blocks_equal_those_of_the_recording(pair: Pair, blocks: float) -> None:
    file = write_wav(recording(pair.block_seconds, blocks), 16_000)
    clip, taps = qa.load_waveform(file).samples, encoder_taps(pair.model)
    prompt_text = pair.model.pipeline.tokenizer.render(None)
    expected = pair.reference.taps(clip, prompt_text)
    for audio, rate in ((clip, RATE), (file, {})):
        seconds: Any = {"window_seconds": pair.block_seconds, **rate}
        states = pair.model.activations(audio, taps=taps, **seconds)
        for tap in taps:
            assert relative_error(states[tap].data, expected[tap]) < TOLERANCE, tap
    alone = clip[: pair.block_seconds * 16_000]  # its first window, as a recording of its own
    rows = pair.model.activations(alone, taps=["mel"], window_seconds=pair.block_seconds, **RATE)
    assert relative_error(rows["mel"].data, expected["mel"][: len(rows["mel"])]) > 0.05


@pytest.mark.slow
def test_frames_of_any_windows_are_those_of_the_recording(pair: Pair) -> None:
    """Of overlapping ones, ones that end within a block, and a last one that begins early."""
    for size in (64_000, 64_161, 64_500):
        clip = recording(1.7, 4.1 / 1.7)[:size]
        (expected,) = pair.model.activations([clip], taps=["mel"], window_seconds=30, **RATE)
        whole = expected["mel"].data
        for window, hop in ((2.0, 0.5), (0.83, None), (1.0, 0.3), (0.6, 0.33)):
            options: dict[str, Any] = {"window_seconds": window, "hop_seconds": hop, **RATE}
            rows = pair.model.activations(clip, taps=["mel"], **options)["mel"]
            starts = np.round(rows.start_seconds * 100, 6)
            is_aligned = starts == np.round(starts)  # a last window may begin between frames
            assert is_aligned.mean() > 0.5
            numbers = starts[is_aligned].astype(int)
            within = numbers < len(whole)
            found = rows.data[is_aligned][within]
            assert relative_error(found, whole[numbers[within]]) < TOLERANCE
            assert within.mean() > 0.9


@pytest.mark.slow
def test_every_way_through_the_model_takes_the_recording(pair: Pair, tmp_path: Path) -> None:
    """Pooled vectors, those of windows, and those of a collection."""
    model, path, taps = pair.model, tmp_path / "a.wav", ["mel"]
    # The last window holds half a second, up to which Qwen3-ASR would pad.
    path.write_bytes(write_wav(recording(1.0, 2.6), 16_000))
    options: dict[str, Any] = {"tap": "mel", "window_seconds": 1.0}
    rows = model.activations(path, taps=taps, window_seconds=30)["mel"].data.astype(np.float64)
    expected = [rows[start : start + 100].mean(axis=0) for start in (0, 100, 200)]
    assert relative_error(model.encode(path, **options), rows.mean(axis=0)) < TOLERANCE
    (windows,) = model.encode_each([path], per="window", **options)
    assert relative_error(np.asarray(windows), np.stack(expected)) < TOLERANCE
    collection = qa.Collection.create(tmp_path / "c.lance", model, float32=True, **options)
    collection.index(path)
    stored = np.stack(collection.table.to_pandas().sort_values("window")["vector"].tolist())
    unit = [mean / np.linalg.norm(mean) for mean in expected]
    assert relative_error(stored, np.stack(unit)) < TOLERANCE
    assert collection.verify().problems == ()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_ablation_takes_the_recording_as_heard(pair: Pair, tmp_path: Path) -> None:
    """Its windows are those that `score` is given; other sounds are recordings of their own."""
    path, other, model = tmp_path / "a.wav", sound(1.0, 5), pair.model
    path.write_bytes(write_wav(recording(1.0, 2.6), 16_000))
    asked: dict[str, Any] = {"answers": ["Yes"], "others": [qa.Waveform(other)]}
    found = model.audio_ablation(path, "What?", window_seconds=1.0, **asked)
    scores = model.score(path, "What?", choices=["Yes"], window_seconds=1.0)
    assert found.windows == scores.windows
    heard = found.log_probability[:, 0]
    np.testing.assert_allclose(heard, scores.log_probability[:, 0], atol=1e-5)
    assert len(heard) == 3
    of_other, of_cut = (
        model.score(samples, "What?", choices=["Yes"], **RATE).log_probability[0, 0]
        for samples in (other, qa.load_waveform(path).samples[:16_000])
    )
    assert found.log_probability[0, 4] == pytest.approx(of_other, abs=1e-5)
    assert abs(heard[0] - of_cut) > 1e-4  # cut out of the file, it has another floor


def test_measuring_takes_the_memory_of_half_a_minute(pair: Pair) -> None:
    peaks = []
    for seconds in (60, 180):
        new_peak = pair.model.pipeline.new_peak
        assert new_peak is not None
        peak = new_peak()
        tracemalloc.start()
        for _ in range(seconds):
            peak.add(np.zeros(16_000, np.float32))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peak.finish() == -10.0
    assert peaks[1] < 1.1 * peaks[0]
