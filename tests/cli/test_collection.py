"""The commands about collections: what they print, where, and with which status."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from commands import run, run_process
from qwen_audio.cli.index import _duration
from recordings import sound, write_broken_files

RATE = 16_000


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    folder.mkdir()
    for seed, seconds in enumerate((2.0, 3.0, 12.0)):
        soundfile.write(folder / f"{seed}.wav", sound(seconds, RATE, seed=seed)[0], RATE)
    return folder


def test_index_search_and_look_after(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    into = tmp_path / "music.lance"
    options = ("--model", checkpoint)
    done = run("index", music, "--into", into, "--tap", "lm.1", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{into}: 3 added, 0 replaced, 0 unchanged, 0 failed; 4 rows; ")
    assert done.stdout.endswith("h an hour)\n")

    # The settings are the collection's: they need not be said again, and can't be others.
    again = json.loads(run("index", music, "--into", into, "--json").stdout)
    assert (again["unchanged"], again["rows"], again["failures"]) == (3, 4, {})
    other = run("index", music, "--into", into, "--tap", "lm.2")
    assert other.returncode == 1
    assert "tap 'lm.1' here and 'lm.2' asked for" in other.stderr
    assert "without captions" in run("index", music, "--into", into, "--describe").stderr

    found = run("search", into, "--audio", music / "1.wav", "--limit", "2")
    first, _ = found.stdout.splitlines()
    assert first == f"1.000  {music / '1.wav'} at 0:00–0:03"
    long = json.loads(
        run("search", into, "--id", f"{music / '2.wav'}#1", "--json", "--limit", "1").stdout
    )
    assert {"id", "score", "source", "start_seconds", "indexed_at"} <= long.keys()
    assert "vector" not in long
    asked = ("search", into, "--audio", music / "1.wav", "--where", "duration_seconds > 99")
    nothing = "qwen-audio: nothing found among 4 windows\n"
    assert run(*asked) == (0, "", nothing)
    assert run(*asked, "--json") == (0, "[]\n", nothing)

    shown = run("collection", "info", into).stdout
    assert "rows                 4" in shown
    assert "spec.tap             lm.1" in shown
    assert json.loads(run("collection", "info", into, "--json").stdout)["sources"] == 3
    listed = run("collection", "list", into, "--where", "duration_seconds > 5").stdout
    assert listed == f"{music / '2.wav'}  12.0 s, 2 windows\n"
    assert run("collection", "verify", into).stdout.endswith("0 problems\n")
    assert run("collection", "export", into, "-o", tmp_path / "x.npz").stdout.endswith(
        "x.npz: 4 rows\n"
    )
    assert np.load(tmp_path / "x.npz")["vector"].shape == (
        4,
        qa.load(checkpoint).dimensions.lm_width,
    )
    (music / "0.wav").unlink()
    soundfile.write(music / "1.wav", sound(1.0, RATE)[0], RATE)
    assert json.loads(run("collection", "prune", into, "--json").stdout) == {
        "pruned": [str(music / "0.wav")]
    }
    failed = run("collection", "verify", into)
    assert failed.returncode == 1
    assert f"{music / '1.wav'} has changed since it was indexed" in failed.stderr


def test_every_bad_file_is_named(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    bad = write_broken_files(music)
    done = run("index", music, *bad, "--into", tmp_path / "m.lance", "--model", checkpoint)
    assert done.returncode == 1
    assert "3 added" in done.stdout
    assert f"{len(bad)} failed; 4 rows" in done.stdout
    *reasons, last = done.stderr.splitlines()
    assert last == f"qwen-audio: {len(bad)} of {len(bad) + 3} files failed"
    for path in bad:
        assert sum(path.name in reason for reason in reasons) == 1
    listed = run("collection", "failures", tmp_path / "m.lance").stdout.splitlines()
    assert sorted(f"qwen-audio: {line}" for line in listed) == sorted(reasons)
    shown = run("collection", "failures", tmp_path / "m.lance", "--json").stdout.splitlines()
    assert {Path(json.loads(line)["source"]).name for line in shown} == {p.name for p in bad}


def test_what_is_no_audio_is_named(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    others = [music / f"{name}.txt" for name in "abcde"]
    for path in others:
        path.write_text("")
    asked = ("index", music, "--into", tmp_path / "m.lance", "--model", checkpoint)
    done = run(*asked)
    first = ", ".join(map(str, others[:3]))
    said = f"qwen-audio: skipped (not audio): {first} and 2 more\n"
    assert (done.returncode, done.stderr) == (0, said)
    again = run(*asked, "--json")
    assert json.loads(again.stdout)["skipped"] == [str(path) for path in others]


def test_captions_are_listed_window_by_window(tmp_path: Path, music: Path) -> None:
    into = tmp_path / "said.lance"
    done = run("index", music / "1.wav", music / "2.wav", "--into", into, "--describe")
    assert (done.returncode, done.stderr.count("small embedded checkpoint")) == (0, 1)
    model = qa.load()
    samples, _ = soundfile.read(music / "2.wav", dtype="float32")
    first, second = (
        model.describe(part, sampling_rate=RATE)
        for part in (samples[: 10 * RATE], samples[10 * RATE :])
    )
    short = model.describe(music / "1.wav")
    shown = run("collection", "list", into).stdout.splitlines()
    assert shown == [
        f"{music / '1.wav'}  3.0 s, 1 window: {short}",
        f"{music / '2.wav'}  12.0 s, 2 windows",
        f"  0:00–0:10  {first}",
        f"  0:10–0:12  {second}",
    ]
    _, long = map(json.loads, run("collection", "list", into, "--json").stdout.splitlines())
    assert [(one["start_seconds"], one["caption"]) for one in long["captions"]] == [
        (0.0, str(first)),
        (10.0, str(second)),
    ]
    found = run("search", into, "--text", "xylophonically")
    assert found == (0, "", "qwen-audio: nothing found among 3 windows\n")
    found = run("search", into, "--audio", music / "1.wav")  # whose model somebody has chosen
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_collection_keeps_the_numbers_it_was_made_in(
    tmp_path: Path, music: Path, checkpoint: Path, dtype: str
) -> None:
    """One of the two is no machine's default; nobody has to say it again."""
    into = tmp_path / "m.lance"
    first = music / "0.wav"
    assert run("index", first, "--into", into, "--model", checkpoint, "--dtype", dtype)[0] == 0
    for command in (
        ("index", music, "--into", into),
        ("index", music, "--into", into, "--model", checkpoint, "--device", "cpu"),
        ("search", into, "--audio", first, "--device", "cpu"),
        ("collection", "verify", into),
        ("search", into, "--audio", first, "--dtype", dtype),
    ):
        done = run(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
    other = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    refused = run("search", into, "--audio", first, "--dtype", other)
    assert refused.returncode == 1
    assert f"dtype {dtype!r} here and {other!r} asked for" in refused.stderr
    assert f"(load with dtype={dtype!r})" in refused.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.52, "0.5 s"), (9, "9.0 s"), (45.2, "45 s"), (90, "1.5 min"), (7200, "2.0 h")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "none.lance", "--id", "x"), "no such collection"),
        (("collection", "info", "none"), "ends in .lance"),
        (("index", "no*.wav", "--into", "m.lance"), "matches nothing"),
        (("index", "x.wav", "--into", "m.txt"), "ends in .lance"),
        (("index", "x.wav", "--into", "m.lance", "--pooling", "none"), "gives no vector"),
        (("index", "gone.wav", "--into", "m.lance"), "nothing to index: "),
        (("index", "gone.wav", "a/b.wav", "--into", "m.lance"), "none of 2 recordings: "),
        (("index", "notes", "--into", "m.lance"), "there is no audio among 1 files: give"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.wav").write_bytes(b"x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read.me").write_bytes(b"x")
    model = ("--model", str(checkpoint)) if arguments[0] == "index" else ()
    done = run(*arguments, *model)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "x.wav"]


def test_a_manifest_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"source": "a.wav"\n')
    done = run("index", manifest, "--into", tmp_path / "music.lance")
    assert done.returncode == 1
    assert "list.jsonl" in done.stderr
    assert list(tmp_path.iterdir()) == [manifest]


def test_two_may_begin_a_collection_at_once(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    into = tmp_path / "music.lance"
    command = ("index", music, "--into", into, "--tap", "lm.1", "--model", checkpoint)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run_process(*command), range(2)))
    assert [(done.returncode, done.stderr) for done in both] == [(0, "")] * 2
    assert json.loads(run("collection", "info", into, "--json").stdout)["rows"] == 4
