"""`qwen-audio occlude`: what removing each part of the sound does to an answer."""

from __future__ import annotations

import argparse
from typing import Any

from qwen_audio.errors import OptionError
from qwen_audio.paths import path_to_text

from .checks import check_files
from .console import load_model, print_json, print_line, process_files
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_list_option,
    add_model_options,
    add_prompt_option,
    load_settings,
)
from .plot_files import add_plot_options, check_panels, plot_paths, write_plot
from .progress import FileProgress

__all__ = ["add_parser"]

PANELS = ("waveform", "effect")
"""Panels of a plot of an occlusion."""


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "occlude",
        run,
        "Show where the sound is that an answer depends on: parts of it are made silent.",
        "Pictures and pages need the extra [plot].",
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_file_options(parser)
    add_input_options(parser)
    add_list_option(
        parser,
        "--answer",
        "TEXT",
        "the answer, or one of two that are compared (default: Yes and No)",
    )
    parser.add_argument(
        "--window",
        type=float,
        default=0.5,
        metavar="S",
        help="seconds that are made silent (default: 0.5)",
    )
    parser.add_argument(
        "--hop", type=float, default=0.25, metavar="S", help="from one to the next (default: 0.25)"
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
    """Print where each file's answer depends on the sound, and write its map."""
    from qwen_audio.analysis.occlusion import check_answers, check_occlusion_windows
    from qwen_audio.inference.options import check_prompt
    from qwen_audio.models.tap import Stage, Tap

    resolve_files(options)
    paths = plot_paths(options, "occlusion.png") if options.output else {}
    if not paths and (options.panel or options.theme):
        raise OptionError(
            "--panel and --theme are for plots: name an output with -o, such as -o a.png"
        )
    check_panels(options, "Occlusion", PANELS)
    check_prompt(options.prompt, [Tap(Stage.LM_NORM)])
    answers = check_answers(options.answer or ("Yes", "No"))
    check_occlusion_windows(options.window, options.hop)
    check_files(options.files)
    model = load_model(options)

    def show(file: str, _: FileProgress) -> float:
        occlusion = model.occlusion(
            file,
            options.prompt,
            answers=answers,
            window_seconds=options.window,
            hop_seconds=options.hop,
            **load_settings(options),
        )
        written = write_plot(occlusion, paths[file], options) if paths else None
        if options.json:
            facts = {**occlusion.facts(), "rows": occlusion.table()}
            print_json({"source": path_to_text(file), "output": written, **facts})
        else:
            first, *others = occlusion.answers
            compared = f"log P({first!r}) − log P({others[0]!r}) is" if others else "log-odds:"
            print_line(
                f"{path_to_text(file)}: {compared} {occlusion.difference:+.2f}; falls most, "
                f"by {occlusion.effect.max():.2f}, without the "
                f"{occlusion.window_seconds:g} s around {occlusion.peak_seconds:.2f} s"
            )
            if written:
                print_line(f"  {written}")
        return occlusion.duration_seconds

    return process_files(options.files, show, "occlude")
