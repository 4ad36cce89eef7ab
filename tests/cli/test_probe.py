"""qwen-audio probe: output, files and exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from commands import run
from labelled_recordings import read_rows, write_manifest, write_tones


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    return write_manifest(folder / "labels.csv", write_tones(folder))


@pytest.mark.slow
def test_table_plot_page_and_numbers(tones: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    taps = ("--tap", "mel", "--tap", "encoder.1", "--tap", "lm.1")
    options = (*taps, "--folds", "3", "-o", out, "--cache", cache)
    done = run("probe", tones, "--target", "pitch", "--target", "level", *options)
    assert done.returncode == 0, done.stderr
    assert "pitch: 3 classes; 24 recordings in 24 groups, 3 folds" in done.stdout
    assert "level: a quantity" in done.stdout
    assert re.search(r"baseline +control", done.stdout)
    csv = pd.read_csv(out / "scores.csv")
    data = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert len(csv) == len(data["scores"]) == 2 * 3 * 2
    assert data["scores"][0]["score"] == pytest.approx(csv.score[0])
    assert (data["recordings"], data["model"]) == (24, "embedded")
    picture = imread(out / "depth.png")
    assert picture.shape[1] > 1500
    assert picture[..., :3].std() > 0.05  # something is drawn
    page = (out / "depth.html").read_text(encoding="utf-8")
    assert "pitch" in page
    assert "R\\u00b2" in page or "R²" in page

    dark = tmp_path / "dark"
    done = run("probe", tones, "--target", "pitch", *options[:-4], "-o", dark, "--cache", cache,
               "--theme", "dark")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert imread(dark / "depth.png")[0, 0, :3].max() < 0.2
    assert 'background: #14171c"' in (dark / "depth.html").read_text(encoding="utf-8")

    machine = run("probe", tones, "--target", "bright", "--json", *options)
    rows = [json.loads(line) for line in machine.stdout.splitlines()]
    assert {row["target"] for row in rows} == {"bright"}
    assert len(list(cache.iterdir())) == 1  # other labels: nothing is encoded


@pytest.mark.slow
def test_names_of_targets_are_neither_formulas_nor_html(tmp_path: Path) -> None:
    rows = [
        {"source": row["source"], "=1+1": row["pitch"], "<!--<script>": row["bright"]}
        for row in write_tones(tmp_path, 12)
    ]
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    done = run("probe", manifest, "--tap", "mel", "--folds", "2", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    csv = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(csv.target) == {"'=1+1", "<!--<script>"}
    assert csv.score.dtype == float
    assert "<!--<script>" not in (tmp_path / "out" / "depth.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rare_classes_and_labels_are_named_and_the_file_is_read_once(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "source": str(tones.parent / row["source"])} for row in read_rows(tones)]
    names = (*"abab" * 5, "c", "c", "d", "d")
    rows = [{**r, "x": x, "a=b": f"{r['pitch']}; {x}"} for r, x in zip(rows, names, strict=True)]
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    reads: list[Path] = []
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    done = run("probe", manifest, "--target", "x", "--target", "a=b", "--task", "a=b=labels",
               "--tap", "mel", "--min-count", "3", "--json", "-o", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert reads.count(manifest) == 1
    too_few = "fewer than 3 recordings in 5 groups: c (2 recordings), d (2 recordings)"
    assert [line.removeprefix("qwen-audio: ") for line in done.stderr.splitlines()][:3] == [
        "x: text, so classes",
        f"x: 2 of 4 classes left out, with {too_few}",
        f"a=b: 2 of 7 labels left out, with {too_few}",
    ]
    scores = [json.loads(line) for line in done.stdout.splitlines()]
    assert [
        (s["target"], s["task"], s["metric"], s["classes"], s["recordings"]) for s in scores
    ] == [
        *[("x", "classes", "accuracy", 2, 20)] * 2,
        *[("a=b", "labels", "mAP", 5, 24)] * 2,
    ]
    assert "control_at_chance" in (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_failed_files_are_named_and_the_others_probed(tmp_path: Path) -> None:
    rows = write_tones(tmp_path, 12)
    rows.append({"source": "gone.wav", "pitch": "low", "level": -3.0, "bright": 1})
    manifest = write_manifest(tmp_path / "labels.csv", rows)
    done = run("probe", manifest, "--target", "pitch", "--tap", "mel", "--folds", "2",
               "-o", tmp_path / "out")  # fmt: skip
    assert done.returncode == 1
    reason, first, second, third = done.stderr.splitlines()
    assert reason == "qwen-audio: pitch: text, so classes"
    assert "embedded checkpoint" in first
    assert "gone.wav can't be found" in second
    assert third == "qwen-audio: 1 of 13 files failed"
    assert "12 recordings" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "key"), "no column 'key'"),
        (("--tap", "lm.99"), "lm.99 is not a tap of this model"),
        (("--folds", "20"), "3 columns can't be probed: pitch: fewer than two classes"),
        (("--task", "genre=classes"), "no column 'genre'"),
        (("--task", "level"), "--task level: use COLUMN=TASK, such as year=classes"),
        (("--task", "level=x", "--task", "level=y"), "--task names 'level' more than once"),
        (("--min-count", "20"), "pitch: fewer than two classes have 20 recordings"),
        (("--pooling", "median"), "use one of mean"),
        (("--probe", "ridge"), "; or probe the other columns only: --target level"),
        (("--probe", "ridge"), "2 columns can't be probed: --probe ridge: none applies to pitch"),
    ],
)
def test_errors_are_one_line(
    tones: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("probe", tones, *arguments, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_output_folder_that_cannot_be_written(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    done = run("probe", tones, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "can't be written" in done.stderr
