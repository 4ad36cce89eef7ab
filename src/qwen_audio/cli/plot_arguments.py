"""The command line's options of lens, plot and map, and nothing of what they do."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from .options import CommandFunction, add_command, add_window

__all__ = ["add_looking"]


def names(text: str) -> list[str]:
    """piano,drums → ["piano", "drums"]."""
    return text.split(",")


def add_looking(
    commands: Any,
    runs: Mapping[str, CommandFunction],
    model: argparse.ArgumentParser,
    compute: argparse.ArgumentParser,
    asking: argparse.ArgumentParser,
    audio: argparse.ArgumentParser,
) -> None:
    """lens, plot and map."""
    lens = add_command(
        commands,
        runs["lens"],
        "lens",
        "Say what the language model would say, at every level and moment.",
        model,
        compute,
        asking,
        audio,
    )
    lens.add_argument("--taps", type=names, metavar="A,B", help="levels, such as lm.0,lm.-1")
    lens.add_argument("--span", default="all", help="audio, prompt, last or all (default: all)")
    lens.add_argument(
        "--top", type=int, default=5, metavar="N", help="likeliest words (default: 5)"
    )
    lens.add_argument(
        "--tokens", type=names, default=[], metavar="A,B", help="words to follow: violin,piano"
    )
    lens.add_argument(
        "--nearest", action="store_true", help="also the audio's own nearest tokens at projector"
    )
    lens.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a picture (.png, .svg, .pdf), page (.html) or numbers (.npz, .csv, .json); a folder "
        "for several files",
    )
    _add_pictures(lens, "words,entropy,followed,nearest")

    text = "Draw what stands at a tap, over time."
    plot = add_command(commands, runs["plot"], "plot", text, model, compute, asking)
    plot.add_argument("files", nargs="+", metavar="FILE", help="audio files; - for stdin")
    add_window(plot)
    plot.add_argument("--tap", help="see `qwen-audio taps` (default: audio_tower)")
    plot.add_argument(
        "--kernel",
        type=float,
        metavar="S",
        help="seconds that the novelty compares (default: fits)",
    )
    plot.add_argument("--depth", action="store_true", help="also frames' lengths at every tap")
    plot.add_argument(
        "--layers", action="store_true", help="instead: how alike the taps are over all the files"
    )
    plot.add_argument("--html", action="store_true", help="pages, and not images")
    plot.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=".png, .svg, .pdf, .html, .npz, .csv or .json, or a folder (default: FILE.TAP.png "
        "here)",
    )
    _add_pictures(plot, "waveform,mel,heat,colours,norms,novelty,similarity,depth")

    text = "Write a collection as an interactive map: nearby points are similar, click to play."
    layout = add_command(commands, runs["map"], "map", text)
    layout.add_argument("collection", metavar="C.lance")
    layout.add_argument("-o", "--output", metavar="OUT.html", help="(default: C.html here)")
    layout.add_argument("--where", metavar="SQL", help='such as "duration_seconds > 5"')
    layout.add_argument("--method", help="umap or pca (default: umap from 16 rows on)")
    layout.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    layout.add_argument("--colour", metavar="COLUMN", help="what to colour by at first")
    layout.add_argument(
        "--audio",
        help="embed (in the page), link (to the files) or none (default: embed what fits 20 MB)",
    )
    layout.add_argument(
        "--theme", choices=("light", "dark"), default="light", help="(default: light)"
    )
    layout.add_argument("--json", action="store_true", help="one JSON object, for machines")


def _add_pictures(parser: argparse.ArgumentParser, panels: str) -> None:
    parser.add_argument("--panels", type=names, metavar="A,B", help=f"of {panels}")
    parser.add_argument("--theme", choices=("light", "dark"), help="light (default) or dark")
