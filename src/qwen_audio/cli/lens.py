"""`qwen-audio lens`: the logit lens of recordings."""

from __future__ import annotations

import argparse
from typing import Any

from qwen_audio.errors import OptionError
from qwen_audio.paths import path_to_text

from .checks import check_files, check_windows
from .console import load_model, print_json, print_line, process_files, show_table
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_list_option,
    add_model_options,
    add_prompt_option,
    add_window_options,
    load_settings,
    window_settings,
)
from .plot_files import add_plot_options, check_panels, plot_paths, write_plot
from .progress import FileProgress

__all__ = ["PANELS", "add_parser"]

PANELS = ("words", "entropy", "followed", "nearest")
"""Panels of a plot of a lens."""


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "lens",
        run,
        "Show which tokens each layer of the language model predicts (logit lens).",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_input_options(parser)
    add_list_option(parser, "--tap", "TAP", "an lm tap, such as lm.-1 (default: all)")
    parser.add_argument("--span", default="all", help="audio, prompt, last or all (default: all)")
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="most likely tokens (default: 5)"
    )
    add_list_option(parser, "--token", "WORD", "a word to track, such as violin")
    parser.add_argument(
        "--nearest",
        action="store_true",
        help="also the token embeddings nearest to the audio's rows at projector",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a plot (.png, .svg, .pdf), page (.html) or numbers (.npz, .csv, .json); a folder "
        "for several files",
    )
    add_plot_options(parser, PANELS)


def run(options: argparse.Namespace) -> int:
    """Print the lens of every file, and write its plot if there is an output."""
    from qwen_audio.analysis.lens_options import check_lens_options, check_words
    from qwen_audio.models.tap import Tap

    resolve_files(options)
    paths = plot_paths(options, "lens.png") if options.output else {}
    if not paths and (options.panel or options.theme):
        raise OptionError(
            "--panel and --theme are for plots: name an output with -o, such as -o a.png"
        )
    check_panels(options, "LogitLens", PANELS)
    check_lens_options(
        map(Tap.parse, options.tap or ()), options.span, options.top, nearest=options.nearest
    )
    check_words(options.token or [])
    check_windows(options)
    check_files(options.files)
    settings = {
        "prompt": options.prompt,
        "span": options.span,
        "taps": options.tap,
        "top": options.top,
        "tokens": options.token or [],
        "nearest": options.nearest,
        **load_settings(options),
        **window_settings(options),
    }
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows

    from .tables import lens_tables

    def show(file: str, _: FileProgress) -> float:
        lens = model.lens(file, **settings)
        seconds = lens.windows[-1].end_seconds
        written = write_plot(lens, paths[file], options) if paths else None
        if options.json:
            rows = json_rows(lens.table(), decimals=6)
            print_json(
                {"source": path_to_text(file), "output": written, **lens.facts(), "rows": rows}
            )
            return seconds
        for table in lens_tables(lens):
            show_table(table)
        if written:
            print_line(f"  {written}")
        return seconds

    return process_files(options.files, show, "lens")
