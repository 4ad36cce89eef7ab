"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from qwen_audio.paths import printable

__all__ = [
    "EMBEDDED",
    "CommandFunction",
    "CommandParser",
    "add_adapter_option",
    "add_collection_argument",
    "add_command",
    "add_compute_options",
    "add_file_options",
    "add_json_option",
    "add_list_option",
    "add_model_options",
    "add_on_damage_option",
    "add_prompt_option",
    "add_resume_option",
    "add_track_option",
    "add_where_option",
    "add_window_option",
    "add_window_options",
    "load_settings",
    "specified_options",
    "window_settings",
]

EMBEDDED = "embedded"
"""Name of the embedded checkpoint (the constant of `models.checkpoint` would import torch)."""

CommandFunction: TypeAlias = Callable[[argparse.Namespace], int]
"""Runs a command with its parsed options; returns the exit status."""


class CommandParser(argparse.ArgumentParser):
    """A parser of one command, which reports arguments that it doesn't know as its own errors.

    argparse leaves them to the parser of all commands, whose help doesn't show the options, and
    prints its usage before an error.
    """

    _is_mixing = False

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """As `parse_args`: no argument is left over. Options may stand between files."""
        has_commands = any(action.nargs == argparse.PARSER for action in self._actions)
        if self._is_mixing or has_commands:  # the former: argparse's own two passes
            return super().parse_known_args(*args, **options)
        self._is_mixing = True
        try:
            namespace, rest = self.parse_known_intermixed_args(*args, **options)
        finally:
            self._is_mixing = False
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return namespace, rest

    def error(self, message: str) -> NoReturn:
        """Print one line, as of any other error, and exit with status 2."""
        self.exit(2, f"qwen-audio: {printable(message)} (see `{self.prog} --help`)\n")


class _StoreOnce(argparse.Action):
    """Store a value; a second one, which would silently replace the first, is an error."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        stored = vars(namespace).setdefault("_stored", set())
        if self.dest in stored:
            parser.error(f"{option_string} is given more than once")
        stored.add(self.dest)
        setattr(namespace, self.dest, values)


def add_command(
    subparsers: Any, name: str, run: CommandFunction, summary: str, note: str = ""
) -> argparse.ArgumentParser:
    """Add a command to `subparsers`.

    Args:
        run: called with the parsed options; its result is the exit status.
        summary: one line, for the list of commands and the command's own help.
        note: more for the command's own help, such as the extra that it needs.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=summary, description=f"{summary} {note}".rstrip(), allow_abbrev=False
    )
    parser.register("action", None, _StoreOnce)
    parser.set_defaults(run=run, parser=parser)
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no notices; still errors"
    )
    verbosity.add_argument(
        "-v", "--verbose", action="store_true", help="also the model, and each file with its rate"
    )
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --revision, --adapter and --json."""
    parser.add_argument(
        "--model",
        metavar="M",
        help="a folder, or a hub model such as Qwen/Qwen2-Audio-7B-Instruct "
        "(default: the small checkpoint that ships with the package)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    add_adapter_option(parser)
    add_json_option(parser)


def add_adapter_option(parser: argparse.ArgumentParser) -> None:
    """--adapter."""
    parser.add_argument(
        "--adapter",
        metavar="A",
        help="a LoRA adapter for the model, merged as it is read: a folder, or a hub model",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """--device, --dtype, --quantize and --max-memory."""
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        help="float32, bfloat16 or float16 (default: the checkpoint's where fast, else float32)",
    )
    parser.add_argument(
        "--quantize",
        metavar="Q",
        help="weights in fewer bits: int8, int4, or int4-g128, the smallest; made once, then kept",
    )
    parser.add_argument(
        "--max-memory",
        metavar="M",
        help="such as 4GB; layers that don't fit are streamed (default: most of the free memory)",
    )


def add_list_option(parser: argparse.ArgumentParser, name: str, metavar: str, text: str) -> None:
    """An option that is repeated for several values."""
    parser.add_argument(name, action="append", metavar=metavar, help=f"{text}; repeat for several")


def add_resume_option(parser: argparse.ArgumentParser) -> None:
    """--resume."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue a run that was stopped: what it had done is in OUT.partial",
    )


def add_prompt_option(parser: argparse.ArgumentParser) -> None:
    """--prompt."""
    parser.add_argument(
        "--prompt", help='text for the language model (default: "Describe the music:")'
    )


def add_window_option(parser: argparse.ArgumentParser, default_seconds: int = 30) -> None:
    """--window."""
    parser.add_argument(
        "--window",
        type=float,
        metavar="S",
        help=f"seconds of audio given to the model at once (default: {default_seconds})",
    )


def add_window_options(parser: argparse.ArgumentParser, default_seconds: int = 30) -> None:
    """--window and --hop."""
    add_window_option(parser, default_seconds)
    parser.add_argument(
        "--hop",
        type=float,
        metavar="S",
        help="seconds from the start of one window to the next (default: --window)",
    )


def add_track_option(parser: argparse.ArgumentParser) -> None:
    """--track."""
    parser.add_argument(
        "--track",
        type=int,
        metavar="N",
        help="audio track of files with several, from 0 on (default: FFmpeg's choice)",
    )


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """--track and --on-damage; see `load_settings`."""
    add_track_option(parser)
    add_on_damage_option(parser)


def add_on_damage_option(parser: argparse.ArgumentParser) -> None:
    """--on-damage."""
    parser.add_argument(
        "--on-damage",
        choices=("raise", "partial"),
        help="of a damaged file, use what can be decoded: partial (default: raise an error)",
    )


def add_collection_argument(parser: argparse.ArgumentParser) -> None:
    """The path of a collection that exists."""
    parser.add_argument("collection", metavar="C.lance", help="a collection, made by `index`")


def add_where_option(parser: argparse.ArgumentParser) -> None:
    """--where."""
    parser.add_argument(
        "--where", metavar="SQL", help='only matching rows, such as "duration_seconds > 5"'
    )


def specified_options(**values: Any) -> dict[str, Any]:
    """The values that aren't None: those of options on the command line, or with a default."""
    return {name: value for name, value in values.items() if value is not None}


def window_settings(options: argparse.Namespace) -> dict[str, Any]:
    """--window and --hop as keyword arguments, where they are given."""
    return specified_options(
        window_seconds=options.window, hop_seconds=getattr(options, "hop", None)
    )


def load_settings(options: argparse.Namespace) -> dict[str, Any]:
    """--track and --on-damage as keyword arguments, where they are given.

    Raises:
        OptionError: for a track that can't be one.
    """
    from qwen_audio.audio.load_options import LoadOptions

    settings = specified_options(track=options.track, on_damage=getattr(options, "on_damage", None))
    LoadOptions(**settings)
    return settings
