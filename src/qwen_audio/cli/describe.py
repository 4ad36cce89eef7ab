"""`qwen-audio describe`: captions and answers about recordings."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwen_audio.paths import path_to_text, printable

from .answers import print_answers
from .checks import check_files, check_windows
from .console import load_model, print_error, print_json, print_text, process_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_files_argument,
    add_model_options,
    add_prompt_option,
    add_window_options,
    load_settings,
    window_settings,
)

if TYPE_CHECKING:
    from qwen_audio.api.answer import Answer

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers, "describe", run, "Generate a caption, or an answer to --prompt."
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_files_argument(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="per answer (default: 256)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: 0)"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="sample from the most likely tokens that together have this probability (default: 1)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="makes sampling repeatable")


def run(options: argparse.Namespace) -> int:
    """Print the generated text of every file."""
    from qwen_audio.inference.options import Sampling

    sampling = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    Sampling(**sampling)
    check_windows(options)
    check_files(options.files)
    settings = {
        "prompt": options.prompt,
        **sampling,
        **load_settings(options),
        **window_settings(options),
    }
    model = load_model(options)
    streaming = sys.stdout.isatty() and not options.json and len(options.files) == 1

    def describe(file: str) -> None:
        if not options.json and not streaming:
            name = printable(file) if len(options.files) > 1 else None
            _report_cuts(
                file, print_answers(model.describe_windows(file, **settings), name), options
            )
            return
        stream = (lambda text: print_text(text, end="")) if streaming else None
        text = model.describe(file, stream=stream, **settings)
        _report_cuts(file, text.answers, options)
        if streaming:
            print_text("")
        else:
            answers = [dataclasses.asdict(answer) for answer in text.answers]
            source = path_to_text(file)
            print_json(
                {"source": source, "text": str(text), "answers": answers, "notes": text.notes}
            )

    return process_files(options.files, describe)


def _report_cuts(file: str, answers: Sequence[Answer], options: argparse.Namespace) -> None:
    ends = {answer.ended_by for answer in answers}
    if "max_new_tokens" in ends:
        print_error(f"{file}: cut off at {options.max_new_tokens} tokens (--max-new-tokens)")
    if "context" in ends:
        print_error(f"{file}: cut off as the model's context was full: use a shorter --window")
