"""probe end to end: scores, controls, the cache, failures, and equality with transformers."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from labelled_recordings import RATE, read_rows, write_manifest, write_tones
from qwen_audio.audio import source_content
from qwen_audio.audio.source import Source
from qwen_audio.probing.features import FeatureSpec, plan_features
from qwen_audio.probing.labels import read_labels
from qwen_audio.probing.probes import FeatureMatrix
from qwen_audio.probing.scoring import score_all
from qwen_audio.probing.statistics import labels_at_chance
from qwen_audio.probing.tasks import make_task, make_tasks
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


@pytest.mark.slow
def test_a_row_for_each_target_tap_pooling_span_and_probe(
    tones: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "taps": ["mel", "encoder.1", "audio_tower", "lm.1", "lm.-1"],
        "spans": ["audio", "last"],
        "cache": tmp_path / "cache",
        "folds": 2,
    }
    scores = qa.probe(tones / "labels.csv", model, **options)
    mean, last = 5, 2
    sums = 1 + 2  # encoder; language model, over audio and at the last position
    assert len(scores) == 3 * ((mean + last) * 2 + sums)
    assert not scores.duplicated(["target", "tap", "span", "pooling", "probe"]).any()
    pitch = scores[(scores.target == "pitch") & (scores.probe == "logistic")]
    assert pitch[pitch.tap == "encoder.1"].score.item() > 0.9
    assert (pitch.metric == "accuracy").all()
    assert pitch.baseline.iloc[0] == pytest.approx(1 / 3)
    level = scores[(scores.target == "level") & (scores.probe == "ridge")]
    assert (level.metric == "r2").all()
    assert level[level.tap == "audio_tower"].score.item() > 0.2
    assert set(scores[scores.target == "level"].probe) == {"ridge", "knn"}
    assert scores.control_at_chance.all()
    assert (scores.low <= scores.score).all()
    assert (scores.recordings == 24).all()
    (weights,) = pitch[pitch.tap == "weighted encoder"].weights
    assert list(weights) == ["encoder.1", "audio_tower"]
    assert sum(weights.values()) == pytest.approx(1)
    assert scores.attrs["about"]["model"] == "embedded"
    assert scores.attrs["about"]["prompt"].endswith("Describe the music:")

    files = sorted((tmp_path / "cache").iterdir())
    again = qa.probe(tones / "labels.csv", model, targets=["pitch"], **options)
    assert sorted((tmp_path / "cache").iterdir()) == files  # nothing was encoded again
    of_pitch = scores[scores.target == "pitch"].reset_index(drop=True)
    assert again.drop(columns="weights").equals(of_pitch.drop(columns="weights"))
    options["taps"] = ["mel", "encoder.2"]
    options["spans"] = ["audio"]
    qa.probe(tones / "labels.csv", model, targets=["pitch"], **options)
    (new,) = set((tmp_path / "cache").iterdir()) - set(files)
    assert new.stat().st_size < 24 * 384 * 4 + 20_000  # of encoder.2 only


@pytest.mark.slow
def test_scores_from_transformers_hidden_states_are_equal(tones: Path, checkpoint: Path) -> None:
    labels = read_labels(tones / "labels.csv", targets=["pitch", "level"])
    model, reference = qa.load(checkpoint, dtype="float32", device="cpu"), Reference(checkpoint)
    hidden_states = [
        reference.taps(soundfile.read(source.uri, dtype="float32")[0]) for source in labels.sources
    ]
    taps = ["mel", "encoder.1", "encoder.2", "projector", "lm.1", "lm.norm"]
    features = list(plan_features(model, taps))
    tasks = [make_task(t, labels.groups, None, None, 2, 0) for t in labels.targets]

    def load(feature: FeatureSpec) -> FeatureMatrix:
        rows = [taps[str(feature.tap)] for taps in hidden_states]
        if feature.tap.in_language_model:  # the prompt around the audio is the same for all
            tokens = [len(taps["projector"]) for taps in hidden_states]
            rows = [r[1 : 1 + n] for r, n in zip(rows, tokens, strict=True)]
        return np.stack([r.astype(np.float64).mean(0) for r in rows]).astype(np.float32)

    expected = {
        (s.target, s.tap, s.probe): s
        for s in score_all(tasks, features, load, model.dimensions.width)
    }
    ours = qa.probe(tones / "labels.csv", model, taps=taps, targets=["pitch", "level"], folds=2)
    assert len(ours) == len(expected)
    for row in ours.itertuples():
        # R² isn't quantised as accuracy is, so rounding shows in it.
        reference_score = expected[row.target, row.tap, row.probe]
        assert row.score == pytest.approx(reference_score.score, abs=1e-6), (
            row.target,
            row.tap,
            row.probe,
        )


def test_a_control_with_unshuffled_labels_is_not_at_chance(
    tones: Path, model: qa.AudioModel
) -> None:
    labels = read_labels(tones / "labels.csv", targets=["pitch"])
    random = np.random.default_rng(0)
    codes = np.unique([str(v) for v in labels.targets[0].values], return_inverse=True)[1]
    vectors = (np.eye(3)[codes] + 0.1 * random.standard_normal((24, 3))).astype(np.float32)
    features = list(plan_features(model, ["mel"]))
    for shuffle, at_chance in ((lambda y, _seed: y, False), (None, True)):
        options = {} if shuffle is None else {"shuffle": shuffle}
        task = make_task(labels.targets[0], labels.groups, None, None, 4, 0, **options)
        for score in score_all([task], features, lambda _: vectors, lambda _: 3):
            assert score.score > 0.9
            assert score.control_at_chance is at_chance


def test_layers_of_another_width_are_in_no_sum(tones: Path, model: qa.AudioModel) -> None:
    labels = read_labels(tones / "labels.csv", targets=["pitch"])
    task = make_task(labels.targets[0], labels.groups, None, ["logistic"], 2, 0)
    features = list(plan_features(model, ["encoder.0", "encoder.1", "audio_tower", "projector"]))
    widths = {"encoder.0": 3, "encoder.1": 3, "audio_tower": 12, "projector": 5}
    random = np.random.default_rng(0)
    vectors = {tap: random.random((24, width), np.float32) for tap, width in widths.items()}
    scores = score_all(
        [task], features, lambda f: vectors[str(f.tap)], lambda tap: widths[str(tap)]
    )
    assert [score.tap for score in scores] == [*widths, "weighted encoder"]
    assert set(scores[-1].weights or ()) == {"encoder.0", "encoder.1"}


def test_duplicate_recordings_share_a_fold_and_missing_labels_are_noted(
    tones: Path, model: qa.AudioModel, tmp_path: Path
) -> None:
    rows = write_tones(tmp_path, 12)
    for k in range(6):
        (tmp_path / f"{k:02}.wav").write_bytes((tmp_path / f"{k + 6:02}.wav").read_bytes())
    rows[0]["bright"] = None
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    scores = qa.probe(manifest, model, taps=["mel"], folds=2, targets=["bright"])
    assert scores.attrs["notes"] == [
        "bright: two whole numbers, so classes; tasks={'bright': 'quantity'} for a quantity",
        "bright: 11 of 12 recordings have a label",
        "6 duplicates of other recordings, in the same fold as these",
    ]
    assert (scores.groups == 6).all()


def test_undecodable_files_raise_or_are_left_out(model: qa.AudioModel, tmp_path: Path) -> None:
    broken = write_broken_files(tmp_path)
    rows = [{**row, "source": str(tmp_path / row["source"])} for row in write_tones(tmp_path, 12)]
    rows += [{"source": str(path), "pitch": "low", "level": -3.0, "bright": 1} for path in broken]
    options: dict[str, Any] = {"taps": ["mel"], "folds": 2, "targets": ["pitch"]}
    scores = qa.probe(rows, model, errors="leave_out", **options)
    assert (scores.recordings == 12).all()
    assert set(scores.attrs["failures"]) == {str(path) for path in broken}
    assert not any("on_damage" in reason for reason in scores.attrs["failures"].values())
    with pytest.raises(qa.AudioError):
        qa.probe(rows, model, **options)
    rows[12]["source"] = str(tmp_path / "gone.wav")
    with pytest.raises(qa.AudioError, match=r"gone.wav can't be found"):
        qa.probe(rows[:13], model, **options)


def test_given_splits(tones: Path, model: qa.AudioModel, tmp_path: Path) -> None:
    rows = [
        {**row, "source": str(tones / row["source"]), "split": "test" if k > 15 else "train"}
        for k, row in enumerate(write_tones(tmp_path, 24))
    ]
    scores = qa.probe(rows, model, taps=["encoder.1"], targets=["pitch"])
    assert (scores.folds == 1).all()
    assert (scores.control_low < scores.control).all()
    with pytest.raises(qa.OptionError, match="and given splits exclude each other"):
        qa.probe(rows, model, taps=["mel"], targets=["pitch"], folds=3)


def test_local_files_are_hashed_once_and_decoded_once(
    model: qa.AudioModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: Counter[str] = Counter()
    decoded: Counter[str] = Counter()
    hash_file = source_content._hash

    def counted_hash(source: Source, audio: Any) -> str:
        hashed[source.uri] += 1
        return hash_file(source, audio)

    def counted_load(value: Any, **options: Any) -> Any:
        decoded[value] += 1
        return qa.load_waveform(value, **options)

    monkeypatch.setattr(source_content, "_hash", counted_hash)
    monkeypatch.setattr(source_content, "_CHANGED_RESOLUTION_NS", 0)
    monkeypatch.setattr(source_content, "load_waveform", counted_load)
    rows = write_tones(tmp_path, 12)
    rows.append({**rows[0], "source": "copy.wav"})
    shutil.copy(tmp_path / "00.wav", tmp_path / "copy.wav")
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    for row in rows:
        os.utime(tmp_path / row["source"], ns=(7, 7))  # not just now
    options: dict[str, Any] = {"taps": ["mel"], "folds": 2, "cache": tmp_path / "cache"}
    qa.probe(manifest, model, targets=["pitch"], **options)
    paths = [str(tmp_path / row["source"]) for row in rows]
    assert hashed == dict.fromkeys(paths, 1)
    assert decoded == dict.fromkeys(paths[:-1], 1)  # the copy's vectors are those of its content
    qa.probe(manifest, model, targets=["bright"], **options)
    assert hashed == dict.fromkeys(paths, 2)
    assert decoded.total() == 12


def test_a_file_that_changes_after_it_was_identified(
    model: qa.AudioModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No vector is in the cache under another content's hash."""
    rows = [{**row, "source": str(tmp_path / row["source"])} for row in write_tones(tmp_path, 12)]
    changing, other = (tmp_path / row["source"] for row in rows[:2])
    original = changing.read_bytes()

    def change_first(audio: Any, **options: Any) -> Any:
        if audio == str(changing) and changing.read_bytes() == original:
            shutil.copy(other, changing)
        return qa.load_waveform(audio, **options)

    options: dict[str, Any] = {"taps": ["mel"], "targets": ["pitch"], "errors": "leave_out"}
    options |= {"folds": 2, "cache": tmp_path / "cache"}
    with monkeypatch.context() as patches:
        patches.setattr(source_content, "load_waveform", change_first)
        scores = qa.probe(rows, model, **options)
    ((source, reason),) = scores.attrs["failures"].items()
    assert source == str(changing)
    assert "has changed since it was first read: start again" in reason
    changing.write_bytes(original)
    scores = qa.probe(rows, model, **options)
    assert scores.attrs["failures"] == {}
    assert not any("duplicate" in note for note in scores.attrs["notes"])
    options["cache"] = tmp_path / "another"
    assert qa.probe(rows, model, **options).equals(scores)


@pytest.mark.slow
def test_labels_with_rare_ones_and_labels_that_are_read(tones: Path, model: qa.AudioModel) -> None:
    rows = [
        {**row, "source": str(tones / row["source"]), "tags": [row["pitch"], "bright"][: 1 + k % 2]}
        for k, row in enumerate(read_rows(tones / "labels.csv"))
    ]
    rows[3]["tags"] = ["odd", "low"]
    rows[4]["pitch"] = "ultrasonic"
    dataset = read_labels(rows, targets=["tags", "pitch"], tasks={"pitch": "classes"})
    options: dict[str, Any] = {"taps": ["mel", "encoder.1", "encoder.2"], "folds": 3}
    scores = qa.probe(dataset, model, min_count=4, **options)
    assert scores.attrs["notes"] == [
        "tags: lists, so labels",
        "tags: 1 of 5 labels left out, with fewer than 4 recordings in 3 groups: odd (1 recording)",
        "pitch: 1 of 4 classes left out, with fewer than 4 recordings in 3 groups: "
        "ultrasonic (1 recording)",
    ]
    tags = scores[scores.target == "tags"]
    assert set(tags.probe) == {"logistic", "knn"}
    assert set(tags.tap) == {"mel", "encoder.1", "encoder.2", "weighted encoder"}
    assert (tags.task + tags.metric == "labelsmAP").all()
    assert (tags.classes == 4).all()
    assert tags.control_at_chance.all()
    assert (tags.baseline < 0.5).all()
    assert tags[tags.tap == "encoder.1"].score.min() > 0.8
    assert (scores[scores.target == "pitch"].recordings == 23).all()
    with pytest.raises(qa.OptionError, match="targets has no effect on labels that are read"):
        qa.probe(dataset, model, targets=["tags"], **options)


def test_controls_of_labels_that_are_not_shuffled_are_not_at_chance() -> None:
    random = np.random.default_rng(0)
    true = random.random((60, 4)) < 0.3
    leaking = true + 0.3 * random.standard_normal((60, 4))
    assert labels_at_chance([true[:30], true[30:]], list(random.random((2, 30, 4))), 0)
    assert not labels_at_chance([true[:30], true[30:]], [leaking[:30], leaking[30:]], 0)


def test_classes_that_given_splits_never_train_on_are_noted(tones: Path) -> None:
    rows = [{"source": f"{k}.wav", "x": x} for k, x in enumerate("aabbcabc")]
    rows = [{**row, "split": "test" if k > 3 else "train"} for k, row in enumerate(rows)]
    (task,), notes = make_tasks(read_labels(rows), None, None, None, None, 0)
    assert task.classes == ("a", "b", "c")
    assert notes[1:] == ["x: tested in a fold that doesn't train on them: c"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": ["svm"]}, "use a list of logistic, ridge, knn"),
        ({"probes": ["ridge"], "targets": ["pitch"]}, "none applies to pitch, which is classes"),
        ({"probes": ["logistic"], "targets": ["level"]}, "which is a quantity"),
        (
            {"folds": 9},
            "pitch: fewer than two .* use folds=8.*the other columns only: targets=.'level'.",
        ),
        ({"folds": 1}, "folds=1: use a whole number from 2"),
        ({"min_count": 0}, "min_count=0: use a whole number from 1"),
        ({"min_count": 9, "targets": ["level"]}, r"no effect on quantities \(level\)"),
        (
            {"probes": ["ridge"]},
            "2 columns can't be probed: .* to pitch, .* to bright, .*only: targets=.'level'.$",
        ),
        ({"targets": ["key"]}, "no column 'key'"),
        ({"taps": "mel"}, "are lists"),
        ({"seed": -1}, "seed=-1: use a whole number from 0"),
        ({"seed": 2**32}, "use a whole number from 0"),
    ],
)
def test_option_errors_come_before_any_encoding(
    tones: Path, model: qa.AudioModel, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((qa.OptionError, TypeError), match=message):
        qa.probe(tones / "labels.csv", model, cache=tmp_path / "cache", **options)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_missing_extra_is_named(
    tones: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(qa.MissingExtraError, match=r"\[probe\]"):
        qa.probe(tones / "labels.csv", model)


def test_rate_of_the_tones() -> None:
    assert RATE == 16_000  # the reference doesn't resample
