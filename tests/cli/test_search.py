"""`qwen-audio search`: windows by audio, row and caption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qwen_audio as qa
from commands import run


@pytest.mark.slow
def test_search_by_audio_and_row(indexed: Path, music: Path) -> None:
    found = run("search", indexed, music / "1.wav", "--limit", "2")
    first, second = found.stdout.splitlines()
    assert first.startswith(" 1  0.")
    assert second.startswith(" 2  0.")
    left_out, scores = found.stderr.splitlines()
    assert left_out == (
        f"qwen-audio: left out: {music / '1.wav'}, the query itself (--include-self keeps it)"
    )
    assert "cosine similarity with the query; 1 is the same direction, 0." in scores
    kept = run("search", indexed, music / "1.wav", "--include-self", "--limit", "1")
    assert kept.stdout == f" 1  1.000  {music / '1.wav'}#0 at 0:00–0:03\n"
    # A row, as it was printed: with --like, and as a query that is no file.
    row_id = f"{music / '2.wav'}#1"
    row = run("search", indexed, "--like", row_id, "--limit", "1", "--json")
    assert {"id", "rank", "score", "source", "start_seconds", "indexed_at"} <= (
        json.loads(row.stdout).keys() - {"vector"}
    )
    assert row.stderr == ""
    assert run("search", indexed, row_id, "--limit", "1", "--json") == row
    command = ("search", indexed, music / "1.wav", "--where", "duration_seconds > 99")
    nothing = "qwen-audio: nothing found among 4 windows\n"
    assert run(*command).stderr.endswith(nothing)
    assert run(*command, "--json")[:2] == (0, "")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (["cello suite"], "'cello suite' is no audio file, and no row of {}: --caption 'cello "),
        (["."], ". is a folder"),
        ([], "one of QUERY (an audio file), --caption WORDS and --like SOURCE[#N], not 0 of them"),
        (["a.wav", "--caption", "b"], "not 2 of them"),
        (["--caption", "a"], "has no captions"),
        (["--caption", " "], "caption is empty"),
        (["--caption", "a", "--include-self"], "include_self has no effect on a search by caption"),
        (["--caption", "a", "--exact"], "exact has no effect on a search by caption"),
        (["--like", "nowhere.wav"], "has no row 'nowhere.wav'"),
    ],
)
def test_queries_that_are_refused(
    empty: Path, query: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(empty.parent)
    done = run("search", empty, *query)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert message.format(empty) in line


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    path = tmp_path_factory.mktemp("empty") / "c.lance"
    return qa.Collection.create(path, qa.load(checkpoint)).path


@pytest.mark.parametrize(
    ("collection", "message"), [("none.lance", "no such collection"), ("none", "ends in .lance")]
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("search", collection, "--like", "x")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(tmp_path.iterdir())
