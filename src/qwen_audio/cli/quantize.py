"""`qwen-audio quantize`: a checkpoint with quantised weights in a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qwen_audio.paths import is_folder

from .console import print_json, print_line
from .options import (
    EMBEDDED,
    add_adapter_option,
    add_command,
    add_json_option,
    add_list_option,
)
from .progress import download_bar, working_on

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers,
        "quantize",
        run,
        "Write a checkpoint with quantised weights to a folder, which --model takes.",
    )
    parser.add_argument("model", metavar="MODEL", help='a folder, a hub model, or "embedded"')
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument(
        "--quantize",
        default="int4",
        metavar="Q",
        help="int8, int4 or int4-g128 (default: int4)",
    )
    add_list_option(
        parser,
        "--calibrate",
        "INPUT",
        "audio files or folders, thirty recordings or more, that the model captions first: 4-bit "
        "weights are rounded so that this changes least (GPTQ)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a hub model")
    add_adapter_option(parser)
    parser.add_argument("--force", action="store_true", help="replace a checkpoint that is in OUT")
    add_json_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write the folder, and say how large it is."""
    from qwen_audio.audio.find_files import find_files
    from qwen_audio.weights.download import check_adapter_name, check_repo_name
    from qwen_audio.weights.option_values import QUANTIZATIONS, check_quantize

    check_quantize(options.quantize)
    if options.model != EMBEDDED and not is_folder(Path(options.model).expanduser()):
        check_repo_name(options.model)
    if options.adapter is not None:
        check_adapter_name(options.adapter)
    from .stub_imports import fast_start

    with fast_start():
        from qwen_audio.api.quantize_checkpoint import quantize_checkpoint

    recordings = None if options.calibrate is None else find_files(options.calibrate)
    with working_on("quantising") as show:
        folder = quantize_checkpoint(
            options.model,
            options.out,
            quantize=options.quantize,
            calibrate=recordings,
            revision=options.revision,
            adapter=options.adapter,
            force=options.force,
            on_download=download_bar(),
            on_quantize=download_bar("quantising weights"),
            on_progress=show,
        )
    size = sum(path.stat().st_size for path in folder.iterdir())
    quantization = QUANTIZATIONS[options.quantize]
    if options.json:
        print_json({"folder": str(folder), "quantization": quantization, "bytes": size})
    else:
        print_line(f"{folder}: {size / 1e6:.0f} MB, {quantization}; load it with --model")
    return 0
