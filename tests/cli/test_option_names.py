"""Messages name the command line's own options; a grammar that is the same for all commands."""

from __future__ import annotations

import argparse

import pytest

from qwen_audio.cli.main import build_parser
from qwen_audio.cli.option_names import OPTION_NAMES, option_names, with_option_names


def parsers(parser: argparse.ArgumentParser, name: str = "") -> dict[str, argparse.ArgumentParser]:
    """All commands that can be run, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {
                full: inner
                for part, child in action.choices.items()
                for full, inner in parsers(child, f"{name} {part}".strip()).items()
            }
    return {name: parser}


PARSERS = parsers(build_parser())


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("window_seconds=99.0: at most 30", "--window 99.0: at most 30"),
        ("pooling='sum': use one", "--pooling sum: use one"),
        ("give max_memory='4 GB', or", "give --max-memory '4 GB', or"),
        ("taps=3: not one", "--tap 3: not one"),
        ("errors='raise': unknown here", "errors='raise': unknown here"),
        ("only: taps=['mel', 'a b', \"it's\"]", "only: --tap mel --tap 'a b' --tap 'it'\"'\"'s'"),
        ("with tap={'year': 'classes'};", "with --tap year=classes;"),
        ("taps=['mel', 3]: no", "taps=['mel', 3]: no"),  # not what the option takes
        ("resume=True with pooling=, leave it out", "--resume with --pooling, leave it out"),
        ("a/seed=5.wav: no such file", "a/seed=5.wav: no such file"),
        ("window_seconds=1.wav: no such file", "window_seconds=1.wav: no such file"),
    ],
)
def test_options_in_messages(message: str, shown: str) -> None:
    OPTION_NAMES.set(option_names(PARSERS["encode"]))
    assert with_option_names(message) == shown
    OPTION_NAMES.set({})
    assert with_option_names(message) == message


@pytest.mark.parametrize("name", PARSERS)
def test_one_grammar(name: str) -> None:
    actions = [action for action in PARSERS[name]._actions if action.option_strings]
    options = {option for action in actions for option in action.option_strings}
    assert {"-h", "-q", "--quiet", "-v", "--verbose"} <= options
    assert ("-o" in options) == ("--output" in options)
    assert not options & {"--into", "--out", "--taps", "--tokens", "--panels"}
    for action in actions:  # lists are repeated options
        assert action.nargs in (None, 0), action.option_strings
        assert "," not in str(action.metavar), action.option_strings
    positional = [action for action in PARSERS[name]._actions if not action.option_strings]
    takes_recordings = [action for action in positional if action.metavar == "INPUT"]
    assert bool(takes_recordings) == ("--follow-links" in options)
    is_about_models = name == "quantize"
    assert is_about_models == any(action.metavar == "MODEL" for action in positional)
