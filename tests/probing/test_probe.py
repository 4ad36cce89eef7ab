"""probe, end to end: scores, controls, the cache, failures, and transformers' numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from labelled import RATE, write_manifest, write_tones
from qwen_audio.probing.labels import read_labels
from qwen_audio.probing.probes import Features
from qwen_audio.probing.readouts import Readout, plan_readouts
from qwen_audio.probing.scoring import score_all
from qwen_audio.probing.tasks import make_task
from recordings import write_broken_files
from reference import Reference


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    write_manifest(folder / "labels.csv", write_tones(folder))
    return folder


@pytest.fixture(scope="module")
def model() -> qa.AudioModel:
    return qa.load(dtype="float32", device="cpu")


def test_a_row_for_each_target_tap_pooling_span_and_probe(
    tones: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "taps": ["mel", "encoder.1", "audio_tower", "lm.1", "lm.-1"],
        "spans": ["audio", "last"],
        "cache": tmp_path / "cache",
        "folds": 4,
    }
    scores = qa.probe(tones / "labels.csv", model, **options)
    mean, last = 5, 2
    mixes = 1 + 2  # the ear; the language model, over audio and at the last position
    assert len(scores) == 3 * ((mean + last) * 2 + mixes)
    assert not scores.duplicated(["target", "tap", "span", "pooling", "probe"]).any()
    pitch = scores[(scores.target == "pitch") & (scores.probe == "logistic")]
    assert pitch[pitch.tap == "encoder.1"].score.item() > 0.9
    assert (pitch.metric == "accuracy").all()
    assert pitch.baseline.iloc[0] == pytest.approx(1 / 3)
    level = scores[(scores.target == "level") & (scores.probe == "ridge")]
    assert (level.metric == "r2").all()
    assert level[level.tap == "audio_tower"].score.item() > 0.2
    assert set(scores[scores.target == "level"].probe) == {"ridge", "knn"}
    assert scores.at_chance.all()
    assert (scores.low <= scores.score).all()
    assert (scores.recordings == 24).all()
    (weights,) = pitch[pitch.tap == "weighted ear"].weights
    assert list(weights) == ["encoder.1", "audio_tower"]
    assert sum(weights.values()) == pytest.approx(1)
    assert scores.attrs["about"]["model"] == "embedded"
    assert scores.attrs["about"]["prompt"].endswith("Describe the music:")

    files = sorted((tmp_path / "cache").iterdir())
    again = qa.probe(tones / "labels.csv", model, **options)
    assert sorted((tmp_path / "cache").iterdir()) == files  # nothing was heard again
    assert again.drop(columns="weights").equals(scores.drop(columns="weights"))
    options["taps"] = ["mel", "encoder.2"]
    options["spans"] = ["audio"]
    qa.probe(tones / "labels.csv", model, targets=["pitch"], **options)
    (new,) = set((tmp_path / "cache").iterdir()) - set(files)
    assert new.stat().st_size < 24 * 384 * 4 + 20_000  # of one tap alone


def test_scores_are_those_of_transformers_hidden_states(tones: Path, checkpoint: Path) -> None:
    labels = read_labels(tones / "labels.csv", targets=["pitch", "level"])
    model, reference = qa.load(checkpoint, dtype="float32", device="cpu"), Reference(checkpoint)
    theirs = [
        reference.taps(soundfile.read(source.uri, dtype="float32")[0]) for source in labels.sources
    ]
    readouts = list(plan_readouts(model))
    tasks = [make_task(t, labels.groups, None, None, 4, 0) for t in labels.targets]

    def load(readout: Readout) -> Features:
        rows = [taps[str(readout.tap)] for taps in theirs]
        if readout.tap.in_language_model:  # the prompt around the audio is the same for all
            tokens = [len(taps["projector"]) for taps in theirs]
            rows = [r[1 : 1 + n] for r, n in zip(rows, tokens, strict=True)]
        return np.stack([r.astype(np.float64).mean(0) for r in rows]).astype(np.float32)

    expected = {(s.target, s.tap, s.probe): s for s in score_all(tasks, readouts, load)}
    ours = qa.probe(tones / "labels.csv", model, targets=["pitch", "level"], folds=4)
    assert len(ours) == len(expected)
    for row in ours.itertuples():
        # R² has all the digits of the least squares that it comes from, and rounding is in them.
        near = 1e-6
        same = expected[row.target, row.tap, row.probe]
        assert row.score == pytest.approx(same.score, abs=near), (row.target, row.tap, row.probe)


def test_a_control_that_knows_the_labels_is_found_out(tones: Path, model: qa.AudioModel) -> None:
    labels = read_labels(tones / "labels.csv", targets=["pitch"])
    random = np.random.default_rng(0)
    codes = np.unique([str(v) for v in labels.targets[0].values], return_inverse=True)[1]
    known = (np.eye(3)[codes] + 0.1 * random.standard_normal((24, 3))).astype(np.float32)
    readouts = list(plan_readouts(model, ["mel"]))
    for shuffle, honest in ((lambda answers, _seed: answers, False), (None, True)):
        given = {} if shuffle is None else {"shuffle": shuffle}
        task = make_task(labels.targets[0], labels.groups, None, None, 4, 0, **given)
        for score in score_all([task], readouts, lambda _: known):
            assert score.score > 0.9
            assert score.at_chance is honest


def test_repeated_recordings_stay_together_and_missing_labels_are_told(
    tones: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    rows = write_tones(tmp_path, 12)
    for k in range(6):
        (tmp_path / f"{k:02}.wav").write_bytes((tmp_path / f"{k + 6:02}.wav").read_bytes())
    rows[0]["bright"] = None
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    scores = qa.probe(manifest, model, taps=["mel"], folds=2, targets=["bright"])
    assert scores.attrs["notes"] == [
        "bright: 11 of 12 have a label",
        "6 recordings repeat others, and were kept in the same fold",
    ]
    assert (scores.groups == 6).all()


def test_what_cannot_be_heard_raises_or_is_left_out(model: qa.AudioModel, tmp_path: Path) -> None:
    bad = write_broken_files(tmp_path)
    rows = [{**row, "source": str(tmp_path / row["source"])} for row in write_tones(tmp_path, 12)]
    rows += [{"source": str(path), "pitch": "low", "level": -3.0, "bright": 1} for path in bad]
    options: dict[str, Any] = {"taps": ["mel"], "folds": 2, "targets": ["pitch"]}
    scores = qa.probe(rows, model, errors="leave_out", **options)
    assert (scores.recordings == 12).all()
    assert set(scores.attrs["failures"]) == {str(path) for path in bad}
    with pytest.raises(qa.AudioError):
        qa.probe(rows, model, **options)
    rows[12]["source"] = str(tmp_path / "gone.wav")
    with pytest.raises(qa.AudioError, match=r"gone.wav can't be read"):
        qa.probe(rows[:13], model, **options)


def test_splits_that_were_given(tones: Path, model: qa.AudioModel, tmp_path: Path) -> None:
    rows = [
        {**row, "source": str(tones / row["source"]), "split": "test" if k > 15 else "train"}
        for k, row in enumerate(write_tones(tmp_path, 24))
    ]
    scores = qa.probe(rows, model, taps=["encoder.1"], targets=["pitch"])
    assert (scores.folds == 1).all()
    assert (scores.control_low < scores.control).all()
    with pytest.raises(qa.OptionError, match="beside given splits"):
        qa.probe(rows, model, taps=["mel"], targets=["pitch"], folds=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": ["svm"]}, "use a list of logistic, ridge, knn"),
        ({"probes": ["ridge"], "targets": ["pitch"]}, "don't apply to pitch, which is classes"),
        ({"probes": ["logistic"], "targets": ["level"]}, "which is a quantity"),
        ({"folds": 9}, "has 8 recordings in 8 groups, fewer than the 9 folds"),
        ({"targets": ["key"]}, "no column 'key'"),
        ({"taps": "mel"}, "are lists"),
        ({"seed": -1}, "seed=-1: use a whole number from 0"),
        ({"seed": 2**32}, "use a whole number from 0"),
    ],
)
def test_mistakes_are_said_before_anything_is_heard(
    tones: Path, model: qa.AudioModel, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((qa.OptionError, TypeError), match=message):
        qa.probe(tones / "labels.csv", model, cache=tmp_path / "cache", **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_missing_extra_is_an_error_that_names_it(
    tones: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(qa.MissingExtraError, match=r"\[probe\]"):
        qa.probe(tones / "labels.csv", model)


def test_rate_of_the_tones() -> None:
    assert RATE == 16_000  # what the reference is given is not resampled
