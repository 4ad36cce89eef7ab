"""Standard streams in any state, signals, and other surroundings of a command."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.analysis.files import atomic_write
from qwen_audio.cli import taps
from qwen_audio.cli.main import main
from qwen_audio.cli.streams import Terminated, signals_end_cleanly

PRINTING = [["--version"], ["taps", "--help"], ["taps"], ["taps", "--json"]]
"""A few bytes, a text of argparse's, a table of rich's and JSON."""


def errors_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """Exit status, and the lines on standard error."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    status = main(arguments)
    lines = [line for line in stderr.getvalue().splitlines() if "small embedded" not in line]
    return status, lines


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_full_output_is_an_error(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        status, lines = errors_of(arguments, monkeypatch)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("qwen-audio: standard output can't be written (No space left")


@pytest.mark.parametrize("arguments", PRINTING)
def test_a_pipe_that_ends_is_silent(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert errors_of(arguments, monkeypatch) == (141, [])


@pytest.mark.parametrize(("name", "status"), [("none.wav", 1), ("--nothing", 2)])
def test_errors_that_cannot_be_printed_are_still_the_status(
    name: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stdout", output)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        assert main(["inspect", name]) == status
    assert output.getvalue() == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "output", "errors"),
    [
        ("--version >&-", 1, "", "standard output can't be written (Bad file descriptor)"),
        ("--version 2>&-", 0, "qwen-audio 0.1.0", ""),
        ("--version <&- >&- 2>&-", 1, "", ""),
        ("inspect none.wav 2>&-", 1, "", ""),
        ("inspect 2>&-", 2, "", ""),
        ("inspect none.wav >&-", 1, "", "none.wav: no such file"),
    ],
)
def test_closed_streams(command: str, status: int, output: str, errors: str) -> None:
    """In a shell's process, as `python -m qwen_audio`."""
    done = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m qwen_audio {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (status, output)
    assert (errors in done.stderr) if errors else done.stderr == ""
    assert len(done.stderr.splitlines()) == bool(errors)


@pytest.mark.slow
def test_a_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen_audio", "inspect"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, run("inspect").stderr)
    assert "(see `qwen-audio inspect --help`)" in done.stderr


def test_standard_input_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(qa.AudioError, match=r"can't be read \(it is closed\): pipe an audio file"):
        qa.load_waveform("-")
    with Path("/dev/null").open("wb") as unreadable:
        stream = io.TextIOWrapper(io.BufferedReader(io.FileIO(unreadable.fileno(), closefd=False)))
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(qa.AudioError, match=r"can't be read \(Bad file descriptor\)"):
            qa.load_waveform("-")


@pytest.mark.parametrize("columns", ["0", "1", "-1", "many"])
def test_tables_are_printed_at_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    output = Terminal()
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["taps"]) == 0
    assert len(output.getvalue().splitlines()) > 10


@pytest.mark.parametrize(
    ("name", "status", "line"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "terminated")],
)
def test_signals_end_a_command_in_one_line(
    name: str, status: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that pytest starts may ignore them, as one in a script's background does."""
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)

    def write(path: Path) -> None:
        path.write_text("half")
        os.kill(os.getpid(), number)

    def end(_: Any) -> int:
        atomic_write(tmp_path / "out.txt", write)
        return 0

    monkeypatch.setattr(taps, "run", end)
    try:
        assert errors_of(["taps"], monkeypatch) == (status, [f"qwen-audio: {line}"])
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored_and_a_second_one_ends_the_process() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    other = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with signals_end_cleanly():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, other)


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    status, lines = errors_of(["taps"], monkeypatch)
    assert (status, len(lines)) == (1, 1)
    assert "the working directory no longer exists" in lines[0]


def test_an_error_of_the_system_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> int:
        raise OSError(28, "No space left on device", "/scratch/x")

    monkeypatch.setattr(taps, "run", fail)
    status, lines = errors_of(["taps"], monkeypatch)
    assert status == 1
    assert lines == [
        "qwen-audio: /scratch/x: No space left on device: check the disk and the permissions"
    ]
