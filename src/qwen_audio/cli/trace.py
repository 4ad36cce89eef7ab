"""`qwen-audio trace`: activation patching of two recordings, as a picture or numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError, counted

from .checks import check_files
from .console import load_model, print_json, print_line
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_list_option,
    add_model_options,
    add_on_damage_option,
    add_prompt_option,
)
from .plot_files import add_theme_option, check_plot_path, write_plot
from .progress import working_on

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "trace",
        run,
        "Find where in the language model the answers about two recordings part (activation "
        "patching).",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_on_damage_option(parser)
    add_input_options(parser, "two recordings of the same length: ")
    add_list_option(
        parser,
        "--answer",
        "TEXT",
        "twice: what is said of the first, and of the second (default: what the model says)",
    )
    add_list_option(parser, "--span", "SPAN", "audio, prompt, last or answer (default: all)")
    add_list_option(parser, "--tap", "TAP", "a level, such as lm.2 (default: all)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="read only the first seconds of both"
    )
    parser.add_argument(
        "-o",
        "--output",
        default="trace.png",
        metavar="OUT",
        help=".png, .svg, .pdf, .html, .npz, .csv or .json (default: trace.png here)",
    )
    add_theme_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the trace, and print the largest share of each span and where it ends."""
    from qwen_audio.models.tap import Tap

    path = Path(options.output)
    check_plot_path(path, options)
    for tap in options.tap or ():
        Tap.parse(tap)
    if options.answer and len(options.answer) != 2:
        raise OptionError(
            f"{counted(len(options.answer), 'answer')}: give --answer twice, or not at all"
        )
    files = resolve_files(options)
    if len(files) != 2:
        count = counted(len(files), "recording")
        raise OptionError(f"trace takes two different recordings, but the inputs name {count}")
    check_files(files)
    model = load_model(options)
    with working_on("patching"):
        trace = model.trace(
            *files,
            answers=options.answer,
            spans=options.span,
            taps=options.tap,
            prompt=options.prompt,
            seconds=options.seconds,
            on_damage=options.on_damage or "raise",
        )
    written = write_plot(trace, path, options)
    if options.json:
        from qwen_audio.analysis.files import json_rows

        print_json(
            {"output": written, **trace.facts(), "rows": json_rows(trace.table(), decimals=6)}
        )
    else:
        one, two = trace.answers
        print_line(
            f"{written}: log p({one!r:.50}) − log p({two!r:.50}) goes from "
            f"{trace.difference_a:+.2f} to {trace.difference_b:+.2f} nats"
        )
        for column, (span, rows) in enumerate(zip(trace.spans, trace.positions, strict=True)):
            shares = trace.share[:, column]
            most = int(abs(shares).argmax())
            print_line(
                f"  {span} ({counted(rows, 'position')}): {shares[0]:.0%} at {trace.taps[0]}, "
                f"most {shares[most]:.0%} at {trace.taps[most]}, {shares[-1]:.0%} at "
                f"{trace.taps[-1]}"
            )
    return 0
