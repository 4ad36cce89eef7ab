"""The `qwen-audio` command: parse the arguments, run one command, report errors in one line."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from qwen_audio import __version__
from qwen_audio.errors import AudioWarning, QwenAudioError

from . import (
    collection,
    describe,
    encode,
    index,
    inspect,
    lens,
    parity,
    play,
    plot,
    probe,
    search,
    taps,
)
from . import map as map_command
from .console import print_error
from .options import CommandParser

__all__ = ["build_parser", "main"]

COMMANDS = (
    describe,
    encode,
    inspect,
    probe,
    index,
    search,
    collection,
    lens,
    plot,
    map_command,
    play,
    taps,
    parity,
)
"""Modules of the commands, in the order of `--help`. Each has `add_parser`."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `run` of the parsed options is the command's function."""
    parser = CommandParser(
        prog="qwen-audio",
        description="Captions, embeddings and hidden states from every stage of an audio language "
        "model.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qwen-audio {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, or 1 if anything failed. Arguments that can't be parsed exit with 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # ? for characters that the terminal lacks
            stream.reconfigure(errors="replace")
    options = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", AudioWarning)
            warnings.showwarning = _print_warning
            return int(options.run(options))
    except QwenAudioError as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001 (of the function replaced)
    line: str | None = None,
) -> None:
    """Print warnings about audio as one line; those of libraries as Python does."""
    if issubclass(category, AudioWarning):
        print_error(str(message))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


if __name__ == "__main__":
    sys.exit(main())
