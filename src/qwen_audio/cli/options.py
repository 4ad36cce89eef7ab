"""What the parsers of all commands share: options that may be given once, commands that do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["CommandFunction", "add_command", "add_window", "add_windows", "options_parser"]

CommandFunction: TypeAlias = Callable[[argparse.Namespace], int]


class _Once(argparse.Action):
    """An option whose second value would silently replace the first: an error instead."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("_given", set())
        if self.dest in given:
            parser.error(f"{option_string} is given more than once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def options_parser() -> argparse.ArgumentParser:
    """Options that several commands share: a parent of their parsers."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.register("action", None, _Once)
    return parser


def add_window(parser: argparse.ArgumentParser, default_seconds: int = 30) -> None:
    """--window."""
    parser.add_argument(
        "--window",
        type=float,
        metavar="S",
        help=f"seconds heard at once, at most 30 (default: {default_seconds})",
    )


def add_windows(parser: argparse.ArgumentParser, default_seconds: int = 30) -> None:
    """--window and --hop."""
    add_window(parser, default_seconds)
    parser.add_argument(
        "--hop", type=float, metavar="S", help="seconds between windows (default: --window)"
    )


def add_command(
    to: Any, run: CommandFunction, name: str, text: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """A command and what it does; `to` are the subparsers that it belongs to."""
    command: argparse.ArgumentParser = to.add_parser(
        name, help=text, description=text, parents=list(parents), allow_abbrev=False
    )
    command.register("action", None, _Once)
    command.set_defaults(run=run)
    return command
