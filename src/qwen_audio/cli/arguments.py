"""The command line's commands and options, and nothing of what they do."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from qwen_audio import __version__

from .collection import _add_collections
from .options import CommandFunction, add_command, add_windows, options_parser
from .plot_arguments import add_looking
from .probe_arguments import add_probe

__all__ = ["build_parser"]


def build_parser(runs: Mapping[str, CommandFunction]) -> argparse.ArgumentParser:
    """The whole command line; `runs` says what each command does."""
    parser = argparse.ArgumentParser(
        prog="qwen-audio",
        description="Hear what an audio language model hears: one line from file to text, "
        "with a tap at every stage.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"qwen-audio {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    model = options_parser()
    model.add_argument(
        "--model",
        metavar="M",
        help="a folder, or a hub model such as Qwen/Qwen2-Audio-7B-Instruct "
        "(default: the small checkpoint that ships with the package)",
    )
    model.add_argument("--revision", help="branch, tag or commit of a hub model")
    model.add_argument("--json", action="store_true", help="one JSON object a line, for machines")

    compute = options_parser()
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
    asking = options_parser()
    asking.add_argument("--prompt", help='a question (default: "Describe the music:")')

    audio = options_parser()
    add_windows(audio)
    audio.add_argument("files", nargs="+", metavar="FILE", help="audio files; - for stdin")

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return add_command(commands, runs[name], name, text, model, *parents)

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
        "--pooling",
        default="mean",
        metavar="HOW",
        help="mean (default), max, mean+std, last or none",
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

    add_probe(commands, runs, model, compute, asking)
    _add_collections(commands, runs, model, compute, asking)
    add_looking(commands, runs, model, compute, asking, audio)

    play = command("play", "Open a page to hear, ask and see; on this machine alone.", compute)
    play.add_argument("--collection", metavar="C.lance", help="what can be searched there")
    play.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others in (default: 127.0.0.1)"
    )
    play.add_argument(
        "--port", type=int, metavar="N", help="(default: 7860, or the next that is free)"
    )
    play.add_argument(
        "--share", action="store_true", help="also at a public address, through Gradio's servers"
    )
    play.add_argument(
        "--max-minutes", type=float, metavar="N", help="of a recording, at most (default: 10)"
    )

    taps = command("taps", "List every tap and what it takes, before any is fetched.", compute)
    taps.add_argument("checkpoint", nargs="?", metavar="MODEL", help="same as --model")

    parity = command(
        "parity",
        "Compare every tap with transformers' own model, on this machine.",
        compute,
        asking,
    )
    parity.add_argument("checkpoint", nargs="?", metavar="MODEL", help="same as --model")
    parity.add_argument(
        "--audio", nargs="+", metavar="FILE", help="at most 30 s each (default: made for it)"
    )
    parity.add_argument(
        "-o",
        "--output",
        default="parity.json",
        metavar="OUT",
        help="where it is saved (default: parity.json)",
    )
    return parser
