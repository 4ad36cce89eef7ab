"""`qwen-audio inspect`: windows, shapes and token counts of recordings."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from qwen_audio.paths import path_to_text

from .checks import check_files, check_windows
from .console import load_model, print_json, process_files, show_table
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_model_options,
    add_prompt_option,
    add_window_options,
    load_settings,
    window_settings,
)
from .progress import FileProgress

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers, "inspect", run, "Show windows, shapes and token counts at every stage."
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_input_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the shape trace of every file."""
    check_windows(options)
    settings = load_settings(options) | window_settings(options)
    check_files(resolve_files(options))
    model = load_model(options)
    from .tables import inspection_tables

    def inspect(file: str, _: FileProgress) -> float:
        trace = model.inspect(file, prompt=options.prompt, **settings)
        if options.json:
            print_json(dataclasses.asdict(trace) | {"source": path_to_text(file)})
        else:
            for table in inspection_tables(trace):
                show_table(table)
        return trace.duration_seconds

    return process_files(options.files, inspect, "inspect")
