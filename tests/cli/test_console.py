"""Progress bars: only on a terminal, and only after the first report."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from qwen_audio.cli.console import print_json, print_line, process_files
from qwen_audio.cli.progress import (
    FileProgress,
    download_bar,
    format_count_rate,
    format_rate,
    format_time_left,
    progress_bars,
    working_on,
)
from qwen_audio.cli.verbosity import VERBOSITY, Verbosity


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_results_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that reads `play --json` waits for its address."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BufferedWriter(written)))
    print_line("done")
    print_json({"url": "http://here/"})
    assert written.getvalue() == b'done\n{"url": "http://here/"}\n'


def test_one_bar_per_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    with progress_bars() as show:
        assert show is not None
        assert terminal.getvalue() == ""  # a download's bar may come first
        show("encoding", 2, 8)
        show("[map]", 5, 7, "rows", note="1 failed")
    written = terminal.getvalue()
    for part in ("2/8 · encoding", "5/7 rows · [map] · 1 failed"):
        assert part in written


@pytest.mark.parametrize(
    ("calls", "shown"),
    [
        ([(0, 40, "taps"), (10, 40, "taps")], "10/40 taps · stage · 5.0 taps/s · 0:06 left"),
        ([(0, 9, "files"), (3, 9, "files", 60.0)], "3/9 files · stage · 30× real time · 0:04 left"),
        # What was done before, such as files that a resumed run skips, says nothing of the speed.
        ([(8, 12, "rows"), (10, 12, "rows")], "10/12 rows · stage · 1.0 rows/s · 0:02 left"),
        ([(0, None), (5, None, "rows")], "stage · 2.5 rows/s"),
    ],
)
def test_rate_and_time_left_are_of_what_was_done_since_the_stage_began(
    calls: list[Any], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = as_terminal(monkeypatch)
    clock = [100.0]
    monkeypatch.setattr("qwen_audio.cli.progress.time.monotonic", lambda: clock[0])
    with progress_bars() as show:
        assert show is not None
        for call in calls:
            show("stage", *call)
            clock[0] += 2.0
    assert f" {shown} " in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_a_stage_without_a_total_is_over_when_another_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = as_terminal(monkeypatch)
    with working_on("reading") as show:
        assert show is not None
        assert "reading" in terminal.getvalue()
        terminal.truncate(0)
        show("encoding", 1, 2, "files")
        show("encoding", 2, 2, "files")
    with working_on("loading"):
        pass
    assert "reading" not in terminal.getvalue()


def test_no_bars_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bars() as show:
        assert show is None
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (format_rate(4530, 30), "151× real time"),
        (format_rate(9, 2), "4.5× real time"),
        (format_rate(9, 0), "9000000000× real time"),
        (format_count_rate(40, "rows", 2), "20 rows/s"),
        (format_count_rate(3, "recordings", 60), "3.0 recordings/min"),
        (format_count_rate(1, "taps", 7200), "0.5 taps/h"),
        (format_time_left(0, 9, 4), ""),
        (format_time_left(3, 9, 65), "2:10 left"),
        (format_time_left(1, 3, 1800.4), "1:00:01 left"),
        (format_time_left(9, 9, 4), "0:00 left"),
    ],
)
def test_units_that_people_use(text: str, shown: str) -> None:
    assert text == shown


def as_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error from here on: a terminal (not a fixture: pytest replaces the stream later)."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return stream


def test_files_have_a_rate_and_results_stay_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    out = io.StringIO()  # a file or a pipe: the display is on the terminal only
    monkeypatch.setattr("sys.stdout", out)

    def process(file: str, progress: FileProgress) -> float:
        print(f"result of {file}")
        progress.reached(120.0)
        return 300.0

    assert process_files(["a", "b"], process, "describe") == 0
    assert out.getvalue() == "result of a\nresult of b\n"
    written = terminal.getvalue()
    for part in ("0/2", "2/2", "describe", "× real time", " left"):
        assert part in written


def test_a_download_is_shown_among_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    report = download_bar()
    assert report is not None
    with progress_bars() as show:
        assert show is not None
        show("encode", 1, 3)
        report(5_000_000, 20_000_000)
        report(20_000_000, 20_000_000)
        show("encode", 2, 3)
    written = terminal.getvalue()
    for part in ("encode", "fetching weights", "5 of 20 MB", "MB/s", "2/3"):
        assert part in written


def test_a_long_file_says_where_it_is() -> None:
    calls: list[tuple[Any, ...]] = []
    progress = FileProgress("describe", 2, lambda *call, note="": calls.append((*call, note)))
    progress.reached(90.0)
    progress.advance(100.0)
    progress.reached(3725.0)
    assert calls == [
        ("describe", 0, 2, "files", 90.0, "90 s of this file"),
        ("describe", 1, 2, "files", 100.0, ""),
        ("describe", 1, 2, "files", 3825.0, "1:02:05 h of this file"),
    ]


def test_quiet_and_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    token = VERBOSITY.set(Verbosity.QUIET)
    try:
        with progress_bars() as show:
            assert show is None
        assert download_bar() is None
        assert process_files(["a"], lambda *_: 1.0, "describe") == 0
        assert terminal.getvalue() == ""
        VERBOSITY.set(Verbosity.VERBOSE)
        assert process_files(["a"], lambda *_: 1.0, None) == 0
        assert "qwen-audio: a: 1.0 s in 0.0 s (" in terminal.getvalue()
    finally:
        VERBOSITY.reset(token)
