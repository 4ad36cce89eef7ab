"""Work that resumes: what was done is on disk, wherever a run ends."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.analysis.files import csv_bytes, csv_text
from qwen_audio.cli.caption_files import (
    check_subtitles,
    read_table,
    save_subtitles,
    save_table,
)
from qwen_audio.cli.journal import Journal
from qwen_audio.errors import OptionError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three files of different sizes."""
    monkeypatch.chdir(tmp_path)
    names = [f"{size}.wav" for size in range(3)]
    for size, name in enumerate(names):
        Path(name).write_bytes(bytes(size))
    return names


SETTINGS = {"model": "m", "span": None, "window": 5.0}
RESULTS = [b"one\n{}\n", b"", b"\x00\xff\r\n"]


def filled(output: Path, files: list[str]) -> Path:
    with Journal(output, SETTINGS, resume=True) as journal:
        for file, result in zip(files, RESULTS, strict=True):
            journal.add(file, result)
    return journal.path


@pytest.mark.slow
def test_a_journal_cut_off_anywhere_has_the_whole_records(tmp_path: Path, files: list[str]) -> None:
    """As a process that is killed leaves it, or a disk that is full."""
    output = tmp_path / "out.npz"
    path = filled(output, files)
    data = path.read_bytes()
    done_before = 0
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        with Journal(output, SETTINGS, resume=True) as journal:
            pending = journal.pending(files)
            done = len(files) - len(pending)
            assert pending == files[done:]
            assert [r for _, r in journal.results(files)] == RESULTS[:done]
            for file, result in zip(pending, RESULTS[done:], strict=True):
                journal.add(file, result)
        assert path.read_bytes() == data
        assert done >= done_before
        done_before = done
    assert done_before == 3


def test_what_changed_is_done_again(tmp_path: Path, files: list[str]) -> None:
    output = tmp_path / "out.npz"
    filled(output, files)
    Path(files[1]).write_bytes(b"longer")
    with Journal(output, SETTINGS, resume=True) as journal:
        assert journal.pending(["-", *files]) == ["-", files[1]]
        journal.add(files[1], b"new")
        assert dict(journal.results(files))[files[1]] == b"new"


def test_other_settings_and_a_run_that_is_forgotten(tmp_path: Path, files: list[str]) -> None:
    output = tmp_path / "out.npz"
    path = filled(output, files)
    with pytest.raises(OptionError, match=r"other settings \(span, window\)"):
        Journal(output, {"model": "m", "span": 1, "window": 2}, resume=True)
    with pytest.raises(OptionError, match=r"out.npz.partial .* --resume"):
        Journal(output, SETTINGS, resume=False)
    path.write_text("not a journal")
    with Journal(output, SETTINGS, resume=True) as journal:
        journal.finish()
    assert not path.exists()


def test_what_earlier_runs_have_done_stays(tmp_path: Path, files: list[str]) -> None:
    output = tmp_path / "out.npz"
    filled(output, files)
    Path(files[0]).write_bytes(b"longer")
    with Journal(output, SETTINGS, resume=True) as journal:
        named = [str(tmp_path / files[2]), "-", files[0]]  # one by another name
        assert journal.pending(named) == ["-", files[0]]
        assert journal.others(named) == 1
        assert list(journal.results(named)) == [(named[0], RESULTS[2]), (files[1], RESULTS[1])]
        journal.add("-", b"heard")
        journal.add(files[0], b"new")
        assert [source for source, _ in journal.results(named)] == [*named, files[1]]
        assert [source for source, _ in journal.results(["-"])] == [*files, "-"]
        assert [source for source, _ in journal.results(files[1:])] == [*files, "-"]


def test_an_output_that_is_continued_is_whole_wherever_a_run_ends(
    tmp_path: Path, files: list[str]
) -> None:
    output = tmp_path / "out.npz"
    output.touch()
    os.utime(output, (2e9, 2e9))
    os.utime(files[1], (2.1e9, 2.1e9))  # changed since
    with Journal(output, SETTINGS, resume=True) as journal:
        assert journal.continues_output
        journal.take_over(files[0], b"zero")  # and is stopped
    with Journal(output, SETTINGS, resume=True) as journal:
        assert journal.continues_output
        for number, name in enumerate((files[0], files[1], "gone.wav")):
            journal.take_over(name, b"%d" % number)
        assert dict(journal.results([])) == {files[0]: b"zero", files[1]: b"1", "gone.wav": b"2"}
        assert journal.pending(files) == files[1:]
        assert dict(journal.results(files)) == {files[0]: b"zero", "gone.wav": b"2"}
        journal.finish()
    with Journal(output, SETTINGS, resume=False) as journal:  # made anew, and is stopped
        journal.add(files[0], b"zero")
    with Journal(output, SETTINGS, resume=True) as journal:
        assert not journal.continues_output


def interrupted(monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> None:
    """Ctrl-C when so many results are there."""
    original: Any = getattr(qa.AudioModel, method)
    count = 0

    def each(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        for number, result in enumerate(original(self, *arguments, **options)):
            if number == after:
                raise KeyboardInterrupt
            yield result

    def one(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        return original(self, *arguments, **options)

    monkeypatch.setattr(qa.AudioModel, method, each if method == "encode_each" else one)


@pytest.mark.slow
def test_encode_resumes_at_every_point(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    command: list[str | Path] = ["encode", *clips, "--model", checkpoint, "--per", "window"]
    command += ["--tap", "mel", "--tap", "lm.1", "--window", "1"]
    assert run(*command, "-o", tmp_path / "whole.npz").returncode == 0
    whole = np.load(tmp_path / "whole.npz")
    for after in range(2):
        output = tmp_path / f"{after}.npz"
        partial = tmp_path / f"{after}.npz.partial"
        with pytest.MonkeyPatch.context() as patch:
            interrupted(patch, "encode_each", after)
            done = run(*command, "-o", output)
        assert done.returncode == 130
        assert not output.exists()
        assert partial.exists() == (after > 0)
        assert ("--resume continues" in done.stderr) == (after > 0)
        again = run(*command, "-o", output, "--resume")
        assert again.returncode == 0
        assert ("already done: 1 of 2 files" in again.stderr) == (after > 0)
        assert not partial.exists()
        resumed = np.load(output)
        assert set(resumed) == set(whole)
        for name in whole:
            np.testing.assert_array_equal(resumed[name], whole[name])


@pytest.mark.slow
def test_describe_resumes_at_every_point(
    clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = ["describe", *clips, "--model", checkpoint, "--window", "1"]
    command += ["--max-new-tokens", "1"]
    assert run(*command, "-o", tmp_path / "whole.jsonl").returncode == 0
    rows = (tmp_path / "whole.jsonl").read_text().splitlines()
    assert [json.loads(row)["start_seconds"] for row in rows] == [0, 0, 1]
    for after in range(2):
        output, folder = tmp_path / f"{after}.jsonl", tmp_path / str(after)
        places: list[list[str | Path]] = [["-o", output], ["-o", folder, "--format", "srt"]]
        for place in places:
            with pytest.MonkeyPatch.context() as patch:
                interrupted(patch, "describe_windows", after)
                assert run(*command, *place).returncode == 130
            again = run(*command, *place, "--resume")
            assert again.returncode == 0
            assert (f"already done: {after} of 2 files" in again.stderr) == (after > 0)
        assert output.read_text().splitlines() == rows
        assert sorted(path.name for path in folder.iterdir()) == ["one.srt", "two.srt"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["npz", "safetensors", "parquet", "arrow"])
def test_a_finished_file_is_continued(
    suffix: str, clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    taps = ("--tap", "mel", "--tap", "lm.1", "--pooling", "none") if suffix == "npz" else ()
    command = ("encode", "--model", checkpoint, *taps, clips[0].parent)
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert run(*command, "-o", whole).returncode == 0
    clips[0].rename(tmp_path / "later")
    assert run(*command, "-o", output).returncode == 0
    (tmp_path / "later").rename(clips[0])
    done = run(*command, "-o", output, "--resume")
    assert done.returncode == 0
    assert "already done: 1 of 2 files" in done.stderr
    assert output.read_bytes() == whole.read_bytes()
    os.utime(clips[1], (2e9, 2e9))  # changed since
    assert "already done: 1 of 2 files" in run(*command, "-o", output, "--resume").stderr
    other = run(*command, "-o", output, "--resume", "--window", "5")
    assert "was made with other settings" in other.stderr
    clips[1].rename(tmp_path / "later")  # what was encoded stays, though it isn't there
    one = run(*command[:-1], clips[0], "-o", output, "--resume", "--json")
    assert "already done: 1 of 1 file; kept from earlier runs: 1 recording" in one.stderr
    assert json.loads(one.stdout.splitlines()[0])["sources"] == list(map(str, clips))
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_finished_captions_are_continued(
    suffix: str, clips: list[Path], checkpoint: Path, tmp_path: Path
) -> None:
    command = ("describe", "--model", checkpoint, "--max-new-tokens", "1", clips[0].parent)
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert run(*command, "-o", whole).returncode == 0
    clips[0].rename(tmp_path / "later")
    assert run(*command, "-o", output).returncode == 0
    (tmp_path / "later").rename(clips[0])
    assert "already done: 1 of 2 files" in run(*command, "-o", output, "--resume").stderr
    assert output.read_bytes() == whole.read_bytes()
    one = run(*command[:-1], clips[1], "-o", output, "--resume")
    assert "already done: 1 of 1 file; kept from earlier runs: 1 recording" in one.stderr
    assert one.stdout == f"{output}: 2 windows of 2 recordings\n"
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.vtt"])
def test_finished_captions_of_other_settings_are_noticed(name: str, tmp_path: Path) -> None:
    path, is_table = tmp_path / name, not name.endswith("vtt")
    row = {"source": "a.wav", "window": 0, "start_seconds": 0.0, "end_seconds": 1.0}
    rows = [{**row, "text": "A song", "complete": True, "spec": "1f"}]
    (save_table if is_table else save_subtitles)(path, rows)

    def check(path: Path, spec: str) -> Any:
        return read_table(path, spec) if is_table else check_subtitles(path, spec, "./a.wav")

    assert check(path, "1f") == ({"a.wav": rows} if is_table else True)
    with pytest.raises(OptionError, match="made with other settings: give the same, or leave out"):
        check(path, "2e")
    path.write_text(path.read_text().replace("spec", "x", 1))
    with pytest.raises(OptionError, match="doesn't say with which settings it was made"):
        check(path, "1f")


@pytest.mark.parametrize("source", ["a --> b.wav", 'a"\n\\.wav', "s3://b/a.wav", "é.wav"])
def test_subtitles_of_another_recording_are_noticed(source: str, tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    row = {"source": source, "window": 0, "start_seconds": 0.0, "end_seconds": 1.0}
    save_subtitles(path, [{**row, "text": "A song", "complete": True, "spec": "1f"}])
    assert path.read_text().count("-->") == 1
    assert check_subtitles(path, "1f", source)
    with pytest.raises(OptionError, match=r"holds the captions of .*, not of b/a.wav: name"):
        check_subtitles(path, "1f", "b/a.wav")


@pytest.mark.slow
@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize(
    ("output", "format_options"),
    [("a.csv", ()), ("a.srt", ()), ("a", ("--format", "vtt"))],
)
def test_resuming_finished_captions_with_other_settings(
    output: str, format_options: tuple[str, ...], checkpoint: Path, folder: Path
) -> None:
    command: list[str | Path] = ["describe", "--model", checkpoint, "0.wav", "-o", output]
    command += format_options
    short = [*command, "--max-new-tokens", "1"]
    assert run(*short).returncode == 0
    again = run(*short, "--resume")
    assert (again.returncode, "already done: 1 of 1 file\n" in again.stderr) == (0, True)
    for other in ([*short, "--prompt", "Which?"], command):
        done = run(*other, "--resume")
        if output == "a.srt":
            assert (done.returncode, "is not checked" in done.stderr) == (0, True)
        else:
            assert (done.returncode, "made with other settings" in done.stderr) == (1, True)


@pytest.mark.parametrize("text", ["=1+1", "'", "plain", "-3.5", "@x", "a\n=b"])
def test_texts_of_csv_are_read_back(text: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_bytes([{"x": text}]).decode(), newline="")))
    assert csv_text(rows[1][0]) == text
