"""`qwen-audio collection`: info, list, failures, prune, verify and export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import run
from recordings import sound

RATE = 16_000


@pytest.mark.slow
def test_info_list_verify_and_export(
    tmp_path: Path, indexed: Path, music: Path, checkpoint: Path
) -> None:
    info = run("collection", "info", indexed).stdout
    assert "rows                 4" in info
    assert "spec.tap             lm.1" in info
    assert json.loads(run("collection", "info", indexed, "--json").stdout)["sources"] == 3
    listed = run("collection", "list", indexed, "--where", "duration_seconds > 5").stdout
    assert listed == f"{music / '2.wav'}  12.0 s, 2 windows\n"
    assert run("collection", "verify", indexed).stdout.endswith("0 problems\n")
    assert run("collection", "export", indexed, "-o", tmp_path / "x.npz").stdout.endswith(
        "x.npz: 4 rows\n"
    )
    width = qa.load(checkpoint).dimensions.lm_width
    assert np.load(tmp_path / "x.npz")["vector"].shape == (4, width)


def test_prune_and_verify_after_changes(indexed: Path, music: Path) -> None:
    (music / "0.wav").unlink()
    soundfile.write(music / "1.wav", sound(1.0, RATE)[0], RATE)
    assert json.loads(run("collection", "prune", indexed, "--json").stdout) == {
        "pruned": [str(music / "0.wav")]
    }
    again = run("collection", "prune", indexed).stdout
    assert again == f"{indexed}: deleted the rows of 0 recordings that no longer exist\n"
    done = run("collection", "verify", indexed)
    assert done.returncode == 1
    assert f"{music / '1.wav'} has changed since it was indexed" in done.stderr


@pytest.mark.slow
def test_captions_are_listed_window_by_window(tmp_path: Path, music: Path) -> None:
    into = tmp_path / "captions.lance"
    done = run("index", music / "1.wav", music / "2.wav", "-o", into, "--describe")
    assert (done.returncode, done.stderr.count("small embedded checkpoint")) == (0, 1)
    model = qa.load()
    samples, _ = soundfile.read(music / "2.wav", dtype="float32")
    first, second = (
        model.describe(window, sampling_rate=RATE)
        for window in (samples[: 10 * RATE], samples[10 * RATE :])
    )
    short = model.describe(music / "1.wav")
    lines = run("collection", "list", into).stdout.splitlines()
    assert lines == [
        f"{music / '1.wav'}  3.0 s, 1 window: {short}",
        f"{music / '2.wav'}  12.0 s, 2 windows",
        f"  0:00–0:10  {first}",
        f"  0:10–0:12  {second}",
    ]
    _, long = map(json.loads, run("collection", "list", into, "--json").stdout.splitlines())
    assert [(row["start_seconds"], row["caption"]) for row in long["captions"]] == [
        (0.0, str(first)),
        (10.0, str(second)),
    ]
    nothing = run("search", into, "--caption", "xylophonically")
    assert nothing == (0, "", "qwen-audio: nothing found among 3 windows\n")
    similar = run(
        "search", into, music / "1.wav", "--include-self", "--json"
    )  # no notice: its model was chosen
    assert (similar.returncode, similar.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "none"), "ends in .lance"),
        (("list", "none.lance"), "no such collection"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("collection", *arguments)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_remove(indexed: Path, music: Path, tmp_path: Path) -> None:
    unknown = run("collection", "remove", indexed, music / "0.wav", "none.wav")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no recording 'none.wav'" in unknown.stderr
    (music / "2.wav").unlink()  # it need not exist
    (tmp_path / "list.txt").write_text(f"{music / '0.wav'}\n")
    done = run("collection", "remove", indexed, "@" + str(tmp_path / "list.txt"), music / "2.wav")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{indexed}: deleted 3 rows of 2 recordings\n"
    left = run("collection", "list", indexed, "--json").stdout.splitlines()
    assert [json.loads(row)["source"] for row in left] == [str(music / "1.wav")]


def test_json_is_lines_and_nothing_where_there_are_no_results(indexed: Path) -> None:
    for action in ("list --where window>99", "failures"):
        name, *options = action.split(" ", 2)
        done = run("collection", name, indexed, "--json", *options)
        assert (done.returncode, done.stdout) == (0, "")
