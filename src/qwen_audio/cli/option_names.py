"""Names of options in messages: --window for what Python calls window_seconds=."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Mapping
from contextvars import ContextVar

__all__ = ["OPTION_NAMES", "option_names", "with_option_names"]

OPTION_NAMES: ContextVar[Mapping[str, str]] = ContextVar("option_names")
"""Keyword arguments of Python → the options of the command that runs."""

_TEXT = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
# A value that is quoted, or a number or constant, or several that are quoted; so no part of a
# file's name. Or none, where the message is about the option as such.
_SETTING = re.compile(
    rf"""(?<![^\s(])([a-z_]+)=(?:({_TEXT}|\[{_TEXT}(?:,\ {_TEXT})*\]
    |\{{{_TEXT}:\ {_TEXT}(?:,\ {_TEXT}:\ {_TEXT})*\}})|(-?[\d.e+-]+|-?inf|nan|None)|True|)
    (?=[\s,;:)]|$)""",
    re.VERBOSE,
)


def option_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The options of a command by what Python calls them: `tap`, `taps`, `window_seconds`."""
    names: dict[str, str] = {}
    for action in parser._actions:
        if action.option_strings:
            option = max(action.option_strings, key=len)
            for name in (action.dest, f"{action.dest}s", f"{action.dest}_seconds"):
                names.setdefault(name, option)
    return names


def with_option_names(message: str) -> str:
    """A message with `--window 99` where it says `window_seconds=99`, if there is that option.

    Of a list each item: `--tap mel --tap lm.0`; of a dict `--task year=classes`.
    """
    names = OPTION_NAMES.get({})

    def replaced(match: re.Match[str]) -> str:
        name, quoted, plain = match.groups()
        if name not in names:
            return match[0]
        if not quoted:
            return f"{names[name]} {plain or ''}".rstrip()
        value = ast.literal_eval(quoted)
        if isinstance(value, dict):
            value = [f"{key}={item}" for key, item in value.items()]
        values = value if isinstance(value, list) else [value]
        return " ".join(f"{names[name]} {shlex.quote(each)}" for each in values)

    return _SETTING.sub(replaced, message)
