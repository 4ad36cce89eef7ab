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

METRICS = ("cosine", "correlation", "centred_cosine", "relative_distance")
ALIGNMENTS = ("time", "dtw")
"""Those of `AudioModel.compare`, whose modules take long to import."""


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "compare",
        run,
        "Compare two recordings at every tap, by depth and time.",
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
        "--metric",
        choices=METRICS,
        default="cosine",
        help="cosine; correlation over the dimensions; centred_cosine, after subtracting each "
        "recording's mean row; relative_distance, 0 of equal rows (default: cosine)",
    )
    parser.add_argument(
        "--alignment",
        choices=ALIGNMENTS,
        default="time",
        help="compare rows at the same time, or those that dynamic time warping pairs (default: "
        "time)",
    )
    parser.add_argument(
        "--alignment-tap", metavar="TAP", help="where dtw aligns (default: audio_tower)"
    )
    parser.add_argument(
        "-o",
        "--output",
        default="compare.png",
        metavar="OUT",
        help=".png, .svg, .pdf, .html, .npz, .csv or .json (default: compare.png here)",
    )
    add_theme_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the comparison, and print the value of each tap."""
    from qwen_audio.models.tap import Tap

    path = Path(options.output)
    check_plot_path(path, options)
    for tap in [*(options.tap or ()), *([options.alignment_tap] if options.alignment_tap else [])]:
        Tap.parse(tap)
    if options.alignment_tap and options.alignment != "dtw":
        raise OptionError("--alignment-tap does nothing without --alignment dtw")
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
            metric=options.metric,
            alignment=options.alignment,
            alignment_tap=options.alignment_tap,
            on_damage=options.on_damage or "raise",
            on_progress=show,
            **window_settings(options),
        )
    written = write_plot(comparison, path, options)
    overall = dict(zip(comparison.taps, map(float, comparison.overall), strict=True))
    if options.json:
        print_json(
            {
                "output": written,
                "names": comparison.names,
                "metric": comparison.metric,
                "alignment": comparison.alignment,
                "overall": {tap: round(value, 6) for tap, value in overall.items()},
            }
        )
    else:
        shown = ", ".join(f"{tap} {value:.3f}" for tap, value in overall.items())
        what = options.metric.replace("_", " ")
        whole = "over time" if options.metric == "centred_cosine" else "of the means"
        print_line(f"{written}: {what} {whole} at {shown}")
    return 0
