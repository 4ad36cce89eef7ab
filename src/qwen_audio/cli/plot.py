"""`qwen-audio plot`: the structure of recordings at a tap, or the similarity of all taps."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError, counted
from qwen_audio.paths import is_folder, path_to_text

from .checks import check_embedding_options, check_files, check_windows
from .console import load_model, print_json, print_line, process_files
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_model_options,
    add_prompt_option,
    add_window_option,
    load_settings,
    window_settings,
)
from .plot_files import add_plot_options, check_panels, check_plot_path, plot_paths, write_plot
from .progress import FileProgress, progress_bars

__all__ = ["PANELS", "add_parser"]

PANELS = ("waveform", "mel", "heat", "colours", "norms", "novelty", "similarity", "depth")
"""Panels of a plot of one tap."""

_DEFAULT_TAP = "audio_tower"


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "plot",
        run,
        "Plot the rows of one tap over time.",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_file_options(parser)
    add_input_options(parser)
    add_window_option(parser)
    parser.add_argument("--tap", help=f"see `qwen-audio taps` (default: {_DEFAULT_TAP})")
    parser.add_argument(
        "--kernel",
        type=float,
        metavar="S",
        help="seconds that the novelty compares (default: by the recording's length)",
    )
    parser.add_argument("--depth", action="store_true", help="also the norms of rows at every tap")
    parser.add_argument(
        "--layers",
        action="store_true",
        help="instead: layer similarity (CKA) of all taps over all files",
    )
    parser.add_argument("--html", action="store_true", help="write .html pages, not images")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=".png, .svg, .pdf, .html, .npz, .csv or .json, or a folder (default: FILE.TAP.png "
        "here)",
    )
    add_plot_options(parser, PANELS)


def run(options: argparse.Namespace) -> int:
    """Write one plot per file, or with --layers one of all files."""
    if options.layers:
        return _plot_layers(options)
    panels = options.panel
    if panels and options.depth and "depth" not in panels:
        panels = options.panel = [*panels, "depth"]
    tap = options.tap or _DEFAULT_TAP
    resolve_files(options)
    paths = plot_paths(options, f"{tap}.{'html' if options.html else 'png'}")
    check_panels(options, "View", PANELS)
    check_embedding_options(tap, prompt=options.prompt)
    if options.kernel is not None and not 0 < options.kernel < math.inf:
        raise OptionError(f"--kernel {options.kernel:g}: use seconds greater than 0")
    check_windows(options)
    check_files(options.files)
    settings = {
        "tap": tap,
        "prompt": options.prompt,
        "depth": options.depth or "depth" in (panels or []),
        "kernel_seconds": options.kernel,
        **load_settings(options),
        **window_settings(options),
    }
    model = load_model(options)

    def show(file: str, _: FileProgress) -> float:
        view = model.view(file, **settings)
        seconds = view.windows[-1].end_seconds
        written = write_plot(view, paths[file], options)
        if options.json:
            print_json({"source": path_to_text(file), "output": written, **view.facts()})
            return seconds
        boundaries = ", ".join(f"{start:.1f}" for start in view.boundaries) or "none found"
        print_line(f"{written}: {view.tap}, sections begin at (s): {boundaries}")
        return seconds

    return process_files(options.files, show, "plot")


def _plot_layers(options: argparse.Namespace) -> int:
    for name in ("tap", "kernel", "depth", "panel"):
        if getattr(options, name):
            raise OptionError(f"--{name} does nothing with --layers, which compares all taps")
    default_name = "layers.html" if options.html else "layers.png"
    path = Path(options.output or default_name)
    if is_folder(path):
        path /= default_name
    check_plot_path(path, options)
    check_windows(options)
    check_files(resolve_files(options))
    model = load_model(options)
    from qwen_audio.analysis.files import json_rows

    with progress_bars() as show:
        layers = model.layer_similarity(
            options.files,
            prompt=options.prompt,
            on_progress=show,
            **load_settings(options),
            **window_settings(options),
        )
    written = write_plot(layers, path, options)
    if options.json:
        rows = json_rows(layers.table(), decimals=6)
        print_json({"output": written, **layers.facts(), "rows": rows})
    else:
        count = len(layers.names)
        recordings = counted(count, "recording")
        print_line(f"{written}: {counted(len(layers.taps), 'tap')} over {recordings}")
    return 0
