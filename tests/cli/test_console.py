"""Progress bars: only on a terminal, and only after the first report."""

from __future__ import annotations

import io

import pytest

from qwen_audio.cli.progress import progress_bars


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
