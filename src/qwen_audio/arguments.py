"""The command line's commands and options, and nothing of what they do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from . import __version__

__all__ = ["build_parser"]

Run = Callable[[argparse.Namespace], int]


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


def _options() -> argparse.ArgumentParser:
    """Options that several commands share."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.register("action", None, _Once)
    return parser


def build_parser(
    runs: Mapping[str, Callable[[argparse.Namespace], int]],
) -> argparse.ArgumentParser:
    """The whole command line; `runs` says what each command does."""
    parser = argparse.ArgumentParser(
        prog="qwen-audio",
        description="Hear what an audio language model hears: one line from file to text, "
        "with a tap at every stage.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qwen-audio {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    model = _options()
    model.add_argument(
        "--model",
        metavar="M",
        help="a folder, or a hub model such as Qwen/Qwen2-Audio-7B-Instruct "
        "(default: the small checkpoint that ships with the package)",
    )
    model.add_argument("--revision", help="branch, tag or commit of a hub model")
    model.add_argument("--json", action="store_true", help="one JSON object a line, for machines")

    compute = _options()
    compute.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    compute.add_argument(
        "--dtype",
        help="float32, bfloat16 or float16 (default: the checkpoint's where fast, else float32)",
    )
    compute.add_argument(
        "--max-memory",
        metavar="M",
        help="such as 4GB; layers that don't fit are streamed (default: most of what is free)",
    )
    asking = _options()
    asking.add_argument("--prompt", help='a question (default: "Describe the music:")')

    audio = _options()
    audio.add_argument(
        "--window", type=float, metavar="S", help="seconds heard at once, at most 30 (default: 30)"
    )
    audio.add_argument(
        "--hop", type=float, metavar="S", help="seconds between windows (default: --window)"
    )
    audio.add_argument("files", nargs="+", metavar="FILE", help="audio files; - for stdin")

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, parents=[model, *parents], allow_abbrev=False
        )
        sub.register("action", None, _Once)
        sub.set_defaults(run=runs[name])
        return sub

    describe = command("describe", "Say in words what is heard.", compute, asking, audio)
    describe.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="per answer (default: 256)"
    )
    describe.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: 0)"
    )
    describe.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample from the likeliest tokens that make up this probability (default: 1)",
    )
    describe.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")

    encode = command("encode", "Write the vectors of one tap to a file.", compute, asking, audio)
    encode.add_argument(
        "--tap", default="audio_tower", help="see `qwen-audio taps` (default: audio_tower)"
    )
    encode.add_argument(
        "--pooling", default="mean", metavar="HOW", help="mean (default), max, last or none"
    )
    encode.add_argument(
        "--span",
        default="audio",
        help="rows to pool: audio (default); at lm taps also prompt, last or all",
    )
    encode.add_argument(
        "-o", "--output", required=True, metavar="OUT", help=".npz, .safetensors or .parquet"
    )

    command("inspect", "Show a clip's whole way along the line, counted.", compute, asking, audio)

    taps = command("taps", "List every tap and what it takes, before any is fetched.", compute)
    taps.add_argument("checkpoint", nargs="?", metavar="MODEL", help="same as --model")

    certify = command(
        "certify",
        "Compare every tap with transformers' own model, on this machine.",
        compute,
        asking,
    )
    certify.add_argument("checkpoint", nargs="?", metavar="MODEL", help="same as --model")
    certify.add_argument(
        "--audio", nargs="+", metavar="FILE", help="at most 30 s each (default: made for it)"
    )
    certify.add_argument(
        "-o",
        "--output",
        default="certificate.json",
        metavar="OUT",
        help="where it is saved (default: certificate.json)",
    )
    return parser
