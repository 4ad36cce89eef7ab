"""`qwen-audio classify`: labels, tables, pictures, and what is wrong with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.cli.classify import read_classes

EXAMPLES = Path("examples").absolute()
LABELS = "guitar\tA solo acoustic guitar plays\tA solo electric guitar plays\ndrums\tDrums play\n"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text(LABELS + "\nSomeone is speaking\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_it_gives_the_probabilities_of_python(labels: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    files = [EXAMPLES / f"{name}.flac" for name in ("guitar", "speech")]
    options = ("--labels", labels, "--window", "4", "--dtype", "float32")
    done = run("classify", *files, tmp_path / "no.wav", *options, "-o", output)
    assert done.returncode == 1  # the missing one
    first, second, written = done.stdout.splitlines()
    assert first.startswith(f"{files[0]}: guitar 0.")
    assert second.startswith(f"{files[1]}: Someone is speaking 1.000 (mass ")
    assert written == f"{output}: 2 recordings"
    assert "1 of 3 files failed" in done.stderr
    # One line for all windows and recordings, however many have little probability.
    assert done.stderr.count("the model gives all choices together") == 1
    assert "; without a space before them (--leading-space) " in done.stderr
    classes = {
        "guitar": ["A solo acoustic guitar plays", "A solo electric guitar plays"],
        "drums": "Drums play",
        "Someone is speaking": "Someone is speaking",
    }
    with pytest.warns(qa.ScoreWarning):
        expected = qa.load(dtype="float32").classify(files, classes, window_seconds=4)
    with output.open(encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["source"] for row in rows] == [str(files[0])] * 2 + [str(files[1])] * 2
    for row, wanted in zip(rows, expected.rows(), strict=True):
        assert row["label"] == wanted["label"]
        assert float(row["drums"]) == pytest.approx(wanted["drums"], abs=1e-5)


@pytest.mark.slow
def test_json_and_the_batch_as_prior(labels: Path) -> None:
    files = [EXAMPLES / f"{name}.flac" for name in ("guitar", "djembe", "speech")]
    done = run("classify", *files, "--labels", labels, "--prior", "batch", "--json", "--quiet")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["label"] for line in lines] == ["guitar", "drums", "Someone is speaking"]
    for line in lines:
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["windows"][0]["probabilities"].keys() == line["probabilities"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "html", "npz", "json"])
def test_outputs(labels: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    done = run("classify", EXAMPLES / "djembe.flac", "--labels", labels, "-o", output)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 200


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\n", (), "1 class: give two or more to choose from"),
        ("a\nb\na\n", (), "'a' is there twice: leave one out"),
        ("a\tx\nb\tx\n", (), "choice 'x' is given twice: leave one out"),
        (None, (), "can't be read (No such file or directory)"),
        ("a\nb\n", ("--temperature", "0"), "--temperature 0.0: use a number above 0"),
        ("a\nb\n", ("--prior", "batch"), "--prior batch of 1 recording"),
        ("a\nb\n", ("--theme", "dark"), "--theme is for plots"),
        ("a\nb\n", ("-o", "x.txt"), "the suffix decides the format"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, text: str | None, options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "labels.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    done = run("classify", EXAMPLES / "djembe.flac", "--labels", path, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_choices_that_begin_another_name_the_option(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"a": ["Drum"], "b": "Drum beat"}', encoding="utf-8")
    done = run("classify", EXAMPLES / "djembe.flac", "--labels", path, "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "use --include-end" in done.stderr
    path.write_text('{"a": 3}', encoding="utf-8")
    done = run("classify", EXAMPLES / "djembe.flac", "--labels", path)
    assert "isn't of the form" in done.stderr


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """The examples, the last one with a wrong label."""
    rows = [("guitar", "guitar"), ("djembe", "drums"), ("speech", "drums")]
    path = tmp_path / "labels.csv"
    lines = [f"{EXAMPLES / name}.flac,{label}" for name, label in rows]
    path.write_text("\n".join(["source,kind", *lines]), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::qwen_audio.ScoreWarning")
def test_true_labels(labels: Path, manifest: Path, tmp_path: Path) -> None:
    """Accuracy, calibration error and temperature are those of Python."""
    table, picture = tmp_path / "reliability.json", tmp_path / "reliability.png"
    given = ("--labels", labels, "--target", "kind", "--dtype", "float32", "--quiet")
    done = run("classify", manifest, *given, "--reliability", table, "--fit-temperature")
    assert done.returncode == 0, done.stderr
    *lines, summary, written, fitted = done.stdout.splitlines()
    assert ["in truth drums" in line for line in lines] == [False, False, True]
    result = qa.load(dtype="float32").classify(
        [EXAMPLES / f"{name}.flac" for name in ("guitar", "djembe", "speech")],
        read_classes(str(labels)),
    )
    truth = ["guitar", "drums", "drums"]
    expected, temperature = result.reliability(truth), result.fit_temperature(truth).temperature
    error = expected.expected_calibration_error
    assert summary == (f"accuracy 0.667 (2 of 3 right), expected calibration error {error:.3f}")
    assert written == f"  {table}"
    assert fitted.endswith(f"--temperature {temperature:.4g}")
    saved = json.loads(table.read_text(encoding="utf-8"))
    assert (saved["right"], saved["recordings"]) == (2, 3)
    assert [row["recordings"] for row in saved["rows"]] == expected.counts.tolist()
    done = run("classify", manifest, *given, "--reliability", picture, "--json")
    *recordings, last = map(json.loads, done.stdout.splitlines())
    assert [line["target"] for line in recordings] == truth
    assert last["expected_calibration_error"] == pytest.approx(error, abs=1e-4)
    assert last["output"] == str(picture)
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reliability", "a.csv"), "--reliability needs true labels: give --target"),
        (("--fit-temperature",), "--fit-temperature needs true labels: give --target"),
        (("--target", "kin"), "has nothing in a column 'kin': give a manifest"),
        (("--target", "note"), "has 'x' in 'note', which is no class of --labels: use guitar, dr"),
        (("--target", "kind", "--reliability", "a.txt"), "the suffix decides the format"),
        (("--target", "kind", "-o", "a.csv", "--reliability", "a.csv"), "name the same file"),
    ],
)
def test_what_is_wrong_with_true_labels_is_one_line(
    labels: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "labels.csv"
    row = f"{EXAMPLES / 'djembe.flac'},drums,x"
    path.write_text(f"source,kind,note\n{row}\n", encoding="utf-8")
    done = run("classify", path, "--labels", labels, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    done = run("classify", EXAMPLES / "djembe.flac", "--labels", labels, "--target", "kind")
    assert "(its columns: none)" in done.stderr
