"""`qwen-audio parity`: comparison with transformers' own model."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from qwen_audio.errors import OptionError
from qwen_audio.paths import is_folder

from .checks import check_files
from .console import load_model, print_json, print_line, show_table
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_model_options,
    add_prompt_option,
)
from .progress import working_on

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers, "parity", run, "Compare every tap with transformers' own model on this machine."
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_input_options(parser, "recordings of at most 30 s (default: synthetic ones): ")
    parser.add_argument(
        "-o",
        "--output",
        default="parity.json",
        metavar="OUT",
        help="file of the report (default: parity.json)",
    )


def run(options: argparse.Namespace) -> int:
    """Write and print the parity report; exit status 1 if the differences are too large."""
    output = Path(options.output)
    if not (is_folder(output.parent) and os.access(output.parent, os.W_OK)) or is_folder(output):
        raise OptionError(f"{output} can't be written: name a file in a writable folder")
    if resolve_files(options, required=False):
        check_files(options.files)
    model = load_model(options)
    from qwen_audio.analysis.files import atomic_write

    from .tables import parity_tables

    with working_on("computing here") as show:
        report = model.check_parity(options.files or None, prompt=options.prompt, on_progress=show)
    data = dataclasses.asdict(report) | {"holds": report.holds}
    text = json.dumps(data, indent=2) + "\n"
    atomic_write(output, lambda path: path.write_text(text, encoding="utf-8"))
    if options.json:
        print_json(data)
    else:
        for table in parity_tables(report):
            show_table(table)
        print_line(f"  Saved as {output}.")
    return 0 if report.holds else 1
