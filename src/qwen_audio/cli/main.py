"""The `qwen-audio` command: parse the arguments, run one command, report errors in one line."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path
from typing import TextIO

from qwen_audio import __version__
from qwen_audio.errors import AudioWarning, OptionError, QwenAudioError, ScoreWarning

from . import (
    ablate,
    classify,
    collection,
    compare,
    completion,
    describe,
    encode,
    index,
    inspect,
    lens,
    models,
    occlude,
    parity,
    play,
    plot,
    probe,
    quantize,
    search,
    serve,
    taps,
    trace,
)
from . import map as map_command
from .console import print_error
from .option_names import OPTION_NAMES, option_names
from .options import CommandParser
from .streams import OutputError, Terminated, signals_end_cleanly, standard_streams
from .verbosity import VERBOSITY, Verbosity

__all__ = ["build_parser", "main"]

COMMANDS = (
    describe,
    classify,
    encode,
    inspect,
    probe,
    index,
    search,
    collection,
    lens,
    ablate,
    occlude,
    plot,
    compare,
    trace,
    map_command,
    play,
    serve,
    models,
    taps,
    parity,
    quantize,
    completion,
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
    parser.set_defaults(program=parser)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, or 1 if anything failed; 2 for arguments that can't be parsed; 141 if
        the reader of a pipe has ended, and 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP, as of a
        process that ended by that signal.
    """
    with standard_streams(), signals_end_cleanly():
        try:
            status = copy_context().run(_run, arguments)  # whose options end with it
            sys.stdout.flush()
        except OutputError as error:
            if error.is_pipe:
                return 128 + 13  # SIGPIPE, which Python ignores
            print_error(str(error))
            return 1
        return status


def _run(arguments: Sequence[str] | None) -> int:
    # What they log is an error in one line where it matters: retries, folders for caches.
    for library in ("huggingface_hub", "matplotlib"):
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        options = build_parser().parse_args(arguments)
        OPTION_NAMES.set(option_names(options.parser))
        VERBOSITY.set(Verbosity(1 + options.verbose - options.quiet))
        with warnings.catch_warnings():
            warnings.simplefilter("always", AudioWarning)
            warnings.simplefilter("always", ScoreWarning)
            warnings.showwarning = _WarningPrinter().print
            _check_working_directory()
            status = int(options.run(options))
            # An input without audio, which the command has left out.
            return max(status, int(getattr(options, "is_incomplete", False)))
    except SystemExit as exit_:  # argparse has printed the help or an error
        return int(exit_.code or 0)
    except OutputError:
        raise
    except QwenAudioError as error:
        print_error(str(error))
        return 1
    except OSError as error:  # of the surroundings: a full disk, a folder that has vanished
        name = f"{error.filename}: " if error.filename else ""
        print_error(f"{name}{error.strerror or error}: check the disk and the permissions")
        return 1
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Terminated) else signal.SIGINT
        print_error("interrupted" if number == signal.SIGINT else "terminated")
        return 128 + number


def _check_working_directory() -> None:
    """Raises OptionError if it has been deleted: torch's libraries would end the process."""
    try:
        Path.cwd()
    except OSError as error:
        raise OptionError(
            "the working directory no longer exists: change to one that does"
        ) from error


class _WarningPrinter:
    """Prints warnings about audio and scores as one line, and those of libraries as Python does."""

    def __init__(self) -> None:
        self._has_scores = False

    def print(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG002 (of the function replaced)
        line: str | None = None,
    ) -> None:
        """As `warnings.showwarning`. Of scores only the first is printed, as all say the same."""
        if issubclass(category, ScoreWarning):
            if not self._has_scores:
                print_error(str(message))
            self._has_scores = True
        elif issubclass(category, AudioWarning):
            print_error(str(message))
        else:
            sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
