"""Bars: on a terminal alone, and only once there is something to say."""

from __future__ import annotations

import io

import pytest

from qwen_audio.cli.console import bars


class Terminal(io.StringIO):
    """What is written to, and says that somebody sees it."""

    def isatty(self) -> bool:
        return True


def test_a_bar_for_each_thing_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with bars() as show:
        assert show is not None
        assert terminal.getvalue() == ""  # nothing to say yet: a bar of weights may come first
        show("heard", 2, 8)
        show("index", 5, 7, "0.10 h [of] audio")
    written = terminal.getvalue()
    assert "heard" in written
    assert "2/8" in written
    assert "5/7" in written
    assert "0.10 h [of] audio" in written
    assert "index" not in written


def test_none_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = io.StringIO()
    monkeypatch.setattr("sys.stderr", nobody)
    with bars() as show:
        assert show is None
    assert nobody.getvalue() == ""
