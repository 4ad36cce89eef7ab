"""`qwen-audio compare`: two recordings at every tap, as a picture or numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError, counted

from .checks import check_files, check_windows
from .console import load_model, print_json, print_line
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_list_option,
    add_model_options,
    add_on_damage_option,
    add_prompt_option,
    add_window_option,
    window_settings,
)
from .plot_files import add_theme_option, check_plot_path, write_plot
from .progress import working_on

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "compare",
        run,
        "Compare two recordings at every tap: cosines by depth and time.",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_option(parser)
    add_on_damage_option(parser)
    add_input_options(parser, "two recordings: ")
    add_list_option(parser, "--tap", "TAP", "see `qwen-audio taps` (default: all)")
    parser.add_argument(
        "-o",
        "--output",
        default="compare.png",
        metavar="OUT",
        help=".png, .svg, .pdf, .html, .npz, .csv or .json (default: compare.png here)",
    )
    add_theme_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the comparison, and print the cosine of the means at each tap."""
    from qwen_audio.models.tap import Tap

    path = Path(options.output)
    check_plot_path(path, options)
    for tap in options.tap or ():
        Tap.parse(tap)
    check_windows(options)
    files = resolve_files(options)
    if len(files) != 2:
        count = counted(len(files), "recording")
        raise OptionError(f"compare takes two different recordings, but the inputs name {count}")
    check_files(files)
    model = load_model(options)
    with working_on("reading both recordings") as show:
        comparison = model.compare(
            *files,
            taps=options.tap,
            prompt=options.prompt,
            on_damage=options.on_damage or "raise",
            on_progress=show,
            **window_settings(options),
        )
    written = write_plot(comparison, path, options)
    cosines = dict(zip(comparison.taps, map(float, comparison.cosines), strict=True))
    if options.json:
        rounded = {tap: round(cosine, 6) for tap, cosine in cosines.items()}
        print_json({"output": written, "names": comparison.names, "cosines": rounded})
    else:
        shown = ", ".join(f"{tap} {cosine:.3f}" for tap, cosine in cosines.items())
        print_line(f"{written}: cosine of the means at {shown}")
    return 0
