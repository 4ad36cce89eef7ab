"""`qwen-audio encode`: embeddings of one tap or several as a file."""

from __future__ import annotations

import argparse
from typing import Any

from qwen_audio.errors import AudioError

from .checks import check_embedding_options, check_files, check_windows
from .console import (
    load_model,
    print_error,
    print_json,
    print_line,
    report_failures,
    with_progress,
)
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

__all__ = ["add_parser"]


def add_parser(subparsers: Any) -> None:
    """Define the command."""
    parser = add_command(
        subparsers, "encode", run, "Write embeddings of one tap, or several, to a file."
    )
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_files_argument(parser)
    parser.add_argument(
        "--tap",
        action="append",
        metavar="TAP",
        help="see `qwen-audio taps` (default: audio_tower); repeat it for several in one pass",
    )
    parser.add_argument(
        "--pooling",
        default="mean",
        metavar="HOW",
        help="mean (default), max, mean+std, last or none",
    )
    parser.add_argument(
        "--span",
        default="audio",
        help="rows to pool: audio (default); at lm taps also prompt, last or all",
    )
    parser.add_argument(
        "--per",
        choices=("recording", "window"),
        default="recording",
        help="what a vector is pooled over (default: recording)",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".npz, .safetensors or, with the extra [parquet], .parquet or .arrow",
    )


def run(options: argparse.Namespace) -> int:
    """Write one file with the embeddings of all recordings that can be decoded."""
    from qwen_audio.api.export import VectorFile, check_output
    from qwen_audio.inference.options import check_pooling_unit, check_prompt
    from qwen_audio.models.tap import Tap

    output = check_output(options.output)
    taps = options.tap or ["audio_tower"]
    for tap in taps:
        check_embedding_options(tap, pooling=options.pooling, span=options.span)
    check_prompt(options.prompt, [Tap.parse(tap) for tap in taps])
    check_pooling_unit(options.per, options.pooling)
    check_windows(options)
    check_files(options.files)
    file_settings = load_settings(options)
    model = load_model(options)
    failed = 0
    embeddings = model.encode_each(
        options.files,
        errors="yield",
        tap=taps if len(taps) > 1 else taps[0],
        pooling=options.pooling,
        span=options.span,
        per=options.per,
        prompt=options.prompt,
        **window_settings(options),
        **file_settings,
    )
    with VectorFile(output) as file:
        for source, embedding in zip(with_progress(options.files), embeddings, strict=True):
            if isinstance(embedding, AudioError):
                failed += 1
                print_error(str(embedding))
            else:
                file.add(embedding, source)
    status = report_failures(failed, len(options.files))
    if not file.sources:
        print_error(f"nothing could be encoded, so {output} was not written")
        return status
    for spec, (rows, width) in zip(file.specs, file.shapes.values(), strict=True):
        if options.json:
            print_json(
                {
                    "output": str(output),
                    "sources": file.sources,
                    "tap": spec.tap,
                    "shape": [rows, width],
                    "spec": spec.settings,
                    "fingerprint": spec.fingerprint,
                }
            )
        else:
            unit = "row" if spec.pooling == "none" else options.per
            print_line(
                f"{output}: {rows} × {width}, {spec.tap}, {spec.pooling} over {spec.span}, one "
                f"vector a {unit}, {spec.dtype}, spec {spec.fingerprint}"
            )
    return status
