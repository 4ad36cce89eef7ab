"""`qwen-audio index`: what it adds, what it prints, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from commands import run
from families import CASES
from qwen_audio.cli.index import _rate_text
from qwen_audio.collection.collection import Collection
from recordings import write_broken_files


@pytest.mark.slow
def test_index_prints_a_summary_and_resumes(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    into = tmp_path / "music.lance"
    done = run("index", music, "-o", into, "--tap", "lm.1", "--model", checkpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{into}: 3 added, 0 replaced, 0 unchanged, 0 failed; 4 rows; ")
    assert done.stdout.endswith("× real time)\n")

    # The collection's settings are the defaults of later runs, and other ones are errors.
    again = json.loads(run("index", music, "-o", into, "--json").stdout)
    assert (again["unchanged"], again["rows"], again["failures"]) == (3, 4, {})
    other = run("index", music, "-o", into, "--tap", "lm.2")
    assert other.returncode == 1
    assert "tap 'lm.1' here and 'lm.2' asked for" in other.stderr
    assert "without captions" in run("index", music, "-o", into, "--describe").stderr


@pytest.mark.slow
def test_windows_are_as_long_as_the_model_of_the_collection_allows(
    tmp_path: Path, music: Path
) -> None:
    """Not as those of the embedded one, which is the default of a new collection."""
    CASES["audioflamingo3"].write(tmp_path / "model")
    into: list[str | Path] = ["index", music, "-o", tmp_path / "a.lance"]
    first = run(*into, "--model", tmp_path / "model", "--window", "60", "--tap", "mel")
    again = run(*into, "--window", "60")
    assert (first.returncode, again.returncode, again.stderr) == (0, 0, "")
    assert "3 unchanged" in again.stdout
    other, longer = run(*into, "--window", "90"), run(*into, "--window", "601")
    assert "window_seconds 60 here and 90 asked for" in other.stderr.replace(".0", "")
    assert "processes 0.04 to 600 s at once" in longer.stderr


@pytest.mark.slow
def test_every_failed_file_is_named(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    bad = write_broken_files(music)
    done = run("index", music, *bad, "-o", tmp_path / "m.lance", "--model", checkpoint)
    assert done.returncode == 1
    assert "3 added" in done.stdout
    assert f"{len(bad)} failed; 4 rows" in done.stdout
    assert "on_damage" not in done.stderr  # which only commands without a collection have
    *reasons, last = done.stderr.splitlines()
    assert last == f"qwen-audio: {len(bad)} of {len(bad) + 3} files failed"
    for path in bad:
        assert sum(path.name in reason for reason in reasons) == 1
    listed = run("collection", "failures", tmp_path / "m.lance").stdout.splitlines()
    assert sorted(f"qwen-audio: {line}" for line in listed) == sorted(reasons)
    rows = run("collection", "failures", tmp_path / "m.lance", "--json").stdout.splitlines()
    assert {Path(json.loads(row)["source"]).name for row in rows} == {p.name for p in bad}


def test_skipped_files_are_named(tmp_path: Path, music: Path, checkpoint: Path) -> None:
    others = [music / f"{name}.txt" for name in "abcde"]
    for path in others:
        path.write_text("")
    arguments = ("index", music, "-o", tmp_path / "m.lance", "--model", checkpoint)
    done = run(*arguments)
    first = ", ".join(map(str, others[:3]))
    message = f"qwen-audio: skipped (not audio): {first} and 2 more\n"
    assert (done.returncode, done.stderr) == (0, message)
    again = run(*arguments, "--json")
    assert json.loads(again.stdout)["skipped"] == [str(path) for path in others]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_collections_dtype_is_the_default(
    tmp_path: Path, music: Path, checkpoint: Path, dtype: str
) -> None:
    """One of the two dtypes isn't this machine's default, but --dtype is needed only once."""
    into = tmp_path / "m.lance"
    first = music / "0.wav"
    assert run("index", first, "-o", into, "--model", checkpoint, "--dtype", dtype)[0] == 0
    for command in (
        ("index", music, "-o", into),
        ("index", music, "-o", into, "--model", checkpoint, "--device", "cpu"),
        ("search", into, first, "--json", "--include-self", "--device", "cpu"),
        ("collection", "verify", into),
        ("search", into, first, "--json", "--include-self", "--dtype", dtype),
    ):
        done = run(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
    other = {"float32": "bfloat16", "bfloat16": "float32"}[dtype]
    refused = run("search", into, first, "--dtype", other)
    assert refused.returncode == 1
    assert f"dtype {dtype!r} here and {other!r} asked for" in refused.stderr
    assert f"(load with --dtype {dtype})" in refused.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((0.52, 1.0), "520 ms of audio in 1 s (0.5× real time)"),
        ((9.0, 2.0), "9 s of audio in 2 s (4.5× real time)"),
        ((45.2, 0.25), "45.2 s of audio in 250 ms (181× real time)"),
        ((7200.0, 120.0), "2:00:00 h of audio in 2:00 min (60× real time)"),
    ],
)
def test_rates_have_units(seconds: tuple[float, float], text: str) -> None:
    assert _rate_text(*seconds) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no*.wav", "-o", "m.lance"), "matches nothing"),
        (("x.wav", "-o", "m.txt"), "ends in .lance"),
        (("x.wav", "-o", "m.lance", "--pooling", "none"), "one vector per window"),
        (("gone.wav", "-o", "m.lance"), "nothing to index: "),
        (("gone.wav", "a/b.wav", "-o", "m.lance"), "none of 2 recordings: "),
        (("notes", "-o", "m.lance"), "notes holds no audio, only notes/read.me: give"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
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
    done = run("index", *arguments, "--model", checkpoint)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "x.wav"]


def test_recordings_that_all_fail_leave_no_collection(folder: Path, checkpoint: Path) -> None:
    (folder / "list.csv").write_text("filename\nbad.wav\n")
    (folder / "bad.wav").write_bytes(b"x")
    command = ("index", "list.csv", "-o", "m.lance", "--model", checkpoint)
    done = run(*command)
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert "/bad.wav can't be decoded" in first
    assert second == "qwen-audio: nothing could be indexed, so m.lance was not created"
    assert not list(folder.glob("m*"))
    assert json.loads(run(*command, "--json").stdout)["rows"] == 0


def test_an_error_keeps_what_a_new_collection_holds(
    folder: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Collection.index

    def index_and_fail(self: Collection, *arguments: Any, **options: Any) -> None:
        index(self, *arguments, **options)
        raise qa.CollectionError("m.lance can't be written")

    monkeypatch.setattr(Collection, "index", index_and_fail)
    command = ("index", "0.wav", "-o", "m.lance", "--tap", "mel", "--model", checkpoint)
    assert run(*command).returncode == 1
    assert len(Collection.open("m.lance")) == 1


def test_an_invalid_manifest_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"source": "a.wav"\n')
    done = run("index", manifest, "-o", tmp_path / "music.lance")
    assert done.returncode == 1
    assert "list.jsonl" in done.stderr
    assert list(tmp_path.iterdir()) == [manifest]


@pytest.mark.slow
def test_another_process_may_create_the_collection_at_the_same_time(
    tmp_path: Path, music: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "music.lance"
    command = ("index", music, "-o", into, "--tap", "lm.1", "--model", checkpoint)
    create = Collection.create

    def create_after_another(*arguments: Any, **options: Any) -> Collection:
        create(*arguments, **options)
        return create(*arguments, **options)

    monkeypatch.setattr(Collection, "create", create_after_another)
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(run("collection", "info", into, "--json").stdout)["rows"] == 4


def test_failures_known_from_earlier_runs_are_told_apart(
    tmp_path: Path, music: Path, checkpoint: Path
) -> None:
    (music / "bad.wav").write_bytes(b"RIFF")
    command = ("index", music, "-o", tmp_path / "m.lance", "--tap", "mel", "--model", checkpoint)
    allowed = (*command, "--known-failures", "ok")
    assert run(*allowed).returncode == 1  # it is new
    known = run(*allowed)
    assert known.returncode == 0
    assert "1 failed (1 known from earlier runs); " in known.stdout
    assert known.stderr.endswith(" (known)\n")
    again = run(*command, "--json")  # by default as any failure
    assert again.returncode == 1
    assert json.loads(again.stdout)["known_failures"] == [str(music / "bad.wav")]
    assert run(*allowed, "--retry").returncode == 0  # tried again, and no other than before
    (music / "bad.wav").write_bytes(b"RIFFRIFF")
    assert run(*allowed).returncode == 1  # it has changed
    assert run("collection", "remove", tmp_path / "m.lance", music / "bad.wav").returncode == 0
    assert run("collection", "failures", tmp_path / "m.lance", "--json").stdout == ""
