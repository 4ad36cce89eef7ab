"""Progress bars: only on a terminal, and only after the first report."""

from __future__ import annotations

import io

import pytest

from qwen_audio.cli.console import process_files
from qwen_audio.cli.progress import download_bar, format_rate, format_time_left, progress_bars
from qwen_audio.cli.verbosity import VERBOSITY, Verbosity


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_one_bar_per_task(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bars() as show:
        assert show is not None
        assert terminal.getvalue() == ""  # a download's bar may come first
        show("encoding", 2, 8)
        show("index", 5, 7, "0.10 h [of] audio")
    written = terminal.getvalue()
    assert "encoding" in written
    assert "2/8" in written
    assert "5/7" in written
    assert "0.10 h [of] audio" in written
    assert "index" not in written


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

    def process(file: str) -> float:
        print(f"result of {file}")
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


def test_quiet_and_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = as_terminal(monkeypatch)
    token = VERBOSITY.set(Verbosity.QUIET)
    try:
        with progress_bars() as show:
            assert show is None
        assert download_bar() is None
        assert process_files(["a"], lambda _: 1.0, "describe") == 0
        assert terminal.getvalue() == ""
        VERBOSITY.set(Verbosity.VERBOSE)
        assert process_files(["a"], lambda _: 1.0, None) == 0
        assert "qwen-audio: a: 1.0 s in 0.0 s (" in terminal.getvalue()
    finally:
        VERBOSITY.reset(token)
