"""Names of options in messages: --window for what Python calls window_seconds=."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping
from contextvars import ContextVar

__all__ = ["OPTION_NAMES", "option_names", "with_option_names"]

OPTION_NAMES: ContextVar[Mapping[str, str]] = ContextVar("option_names")
"""Keyword arguments of Python → the options of the command that runs."""

# A value that is quoted, or a number or constant; so no part of a file's name.
_SETTING = re.compile(
    r"""(?<![^\s(])([a-z_]+)=(?:'([^'\n]*)'|"([^"\n]*)"|(-?[\d.e+-]+|-?inf|nan|None))(?=[\s,;:)]|$)"""
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
    """A message with `--window 99` where it says `window_seconds=99`, if there is that option."""
    names = OPTION_NAMES.get({})

    def replaced(match: re.Match[str]) -> str:
        name, *values = match.groups()
        if name not in names:
            return match[0]
        value = next(value for value in values if value is not None)
        return f"{names[name]} {value if value == values[-1] else shlex.quote(value)}"

    return _SETTING.sub(replaced, message)
