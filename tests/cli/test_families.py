"""A tiny checkpoint of every family through the command line, against the Python API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import CommandResult, run
from families import CASES, Case


class Opened(NamedTuple):
    """A family's checkpoint: its folder, options of commands for it, and the opened model."""

    case: Case
    folder: Path
    options: tuple[str | Path, ...]
    model: qa.AudioModel


@pytest.fixture(scope="module", params=[*CASES.values()], ids=[*CASES])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.model_type)
    case.write(folder)
    options = ("--model", folder, "--dtype", "float32")
    return Opened(case, folder, options, qa.load(folder, dtype="float32"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of each class: two clips of noise, two of a tone."""
    folder = tmp_path_factory.mktemp("clips")
    seconds = np.arange(11_200) / 16_000
    for number in range(2):
        noise = 0.1 * np.random.default_rng(number).standard_normal(9_600)
        tone = 0.3 * np.sin(2 * np.pi * 440 * 1.1**number * seconds)
        for name, samples in (("noise", noise), ("tone", tone)):
            (folder / name).mkdir(exist_ok=True)
            soundfile.write(folder / name / f"{number}.wav", samples, 16_000)
    return folder


def json_lines(done: CommandResult) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_refused(done: CommandResult) -> None:
    """One line on standard error that says what a checkpoint lacks."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("has no language model, and takes no prompts")


@pytest.mark.slow
def test_describe(family: Opened, clips: Path) -> None:
    paths = sorted(clips.glob("*/0.wav"))
    command = ("describe", *paths, "--max-new-tokens", "4", "--json", *family.options)
    done = run(*command)
    if not family.case.language_model:
        check_refused(done)
        return
    rows = json_lines(done)
    assert [row["source"] for row in rows] == [str(path) for path in paths]
    for path, row in zip(paths, rows, strict=True):
        (answer,) = row["answers"]
        expected = family.model.describe(path, max_new_tokens=4)
        assert answer["text"] == str(expected)
        assert answer["token_ids"] == list(expected.answers[0].token_ids)
        assert answer["text"].strip()


@pytest.mark.slow
def test_encode(family: Opened, clips: Path, tmp_path: Path) -> None:
    for tap in ("audio_tower", "lm.1") if family.case.language_model else ("audio_tower",):
        output = tmp_path / f"{tap}.npz"
        (row,) = json_lines(
            run("encode", clips, "--tap", tap, "-o", output, "--json", *family.options)
        )
        expected = family.model.encode(row["sources"], tap=tap)
        with np.load(output) as file:
            assert file["source"].tolist() == [str(path) for path in sorted(clips.glob("*/*.wav"))]
            vectors, spec = file["vectors"], qa.EmbeddingSpec.from_json(str(file["spec"]))
        assert vectors.shape == (4, family.model.dimensions.width(qa.Tap.parse(tap)))
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert len(np.unique(vectors, axis=0)) == 4
        assert spec == family.model.spec(tap=tap)
        assert (spec.model, spec.tap) == (str(family.folder), tap)


@pytest.mark.slow
def test_index_and_search(family: Opened, clips: Path, tmp_path: Path) -> None:
    into = tmp_path / "clips.lance"
    (summary,) = json_lines(run("index", clips, "-o", into, "--json", *family.options))
    assert (summary["added"], summary["rows"], summary["failures"]) == (4, 4, {})
    assert qa.Collection.open(into).spec == family.model.spec(window_seconds=10)
    paths = sorted(clips.glob("*/*.wav"))
    query = paths[-1]
    found = json_lines(run("search", into, query, "--include-self", "--json"))
    vectors = np.asarray(family.model.encode(paths), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = dict(zip(map(str, paths), vectors @ vectors[-1], strict=True))
    assert found[0]["source"] == str(query)
    assert {row["source"] for row in found} == set(similarity)
    for row in found:
        assert row["score"] == pytest.approx(similarity[row["source"]], abs=1e-3)


@pytest.mark.slow
def test_probe(family: Opened, clips: Path, tmp_path: Path) -> None:
    """At every tap, and on sums of the layers that are equally wide."""
    out = tmp_path / "out"
    command = ("probe", clips, "--folds", "2", "--probe", "logistic", "-o", out, "--json")
    scores = {score["tap"]: score for score in json_lines(run(*command, *family.options))}
    taps = [str(tap) for tap in family.model.taps]
    sums = ["weighted encoder"] + ["weighted lm"] * bool(family.case.language_model)
    assert list(scores) == [*taps, *sums]
    assert all(0 <= score["score"] <= 1 for score in scores.values())
    assert scores["mel"]["score"] == 1
    assert (scores["mel"]["recordings"], scores["mel"]["classes"]) == (4, 2)
    for name in sums:
        widths = {family.model.dimensions.width(qa.Tap.parse(t)) for t in scores[name]["weights"]}
        assert len(widths) == 1
        assert sum(scores[name]["weights"].values()) == pytest.approx(1)
    about = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert (about["model"], about["recordings"]) == (str(family.folder), 4)


@pytest.mark.slow
def test_inspect_and_lens(family: Opened, clips: Path) -> None:
    clip = clips / "tone" / "0.wav"
    (trace,) = json_lines(run("inspect", clip, "--json", *family.options))
    (window,) = trace["windows"]
    assert (trace["samples"], window["mel_frames"]) == (11_200, 70)
    done = run("lens", clip, "--span", "last", "--json", *family.options)
    if not family.case.language_model:
        check_refused(done)
        return
    states = family.model.activations(clip, taps=["projector"])["projector"]
    assert window["audio_tokens"] == len(states.indices("audio"))
    assert window["audio_tokens"] + window["padding_tokens"] == len(states.data)
    (lens,) = json_lines(done)
    assert lens["taps"] == ["lm.0", "lm.1", "lm.2"]
    assert {row["tap"] for row in lens["rows"]} == set(lens["taps"])
    next_token = family.model.describe(clip, max_new_tokens=1)
    assert lens["rows"][-1]["word_1"].strip() == str(next_token).strip()
