"""`qwen-audio encode`: embeddings of one tap as a file."""

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
    parser = add_command(subparsers, "encode", run, "Write embeddings of one tap to a file.")
    add_model_options(parser)
    add_compute_options(parser)
    add_prompt_option(parser)
    add_window_options(parser)
    add_file_options(parser)
    add_files_argument(parser)
    parser.add_argument(
        "--tap", default="audio_tower", help="see `qwen-audio taps` (default: audio_tower)"
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
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help=".npz, .safetensors or, with the extra [parquet], .parquet",
    )


def run(options: argparse.Namespace) -> int:
    """Write one file with the embeddings of all recordings that can be decoded."""
    from qwen_audio.api.export import VectorFile, check_output

    output = check_output(options.output)
    check_embedding_options(
        options.tap, pooling=options.pooling, span=options.span, prompt=options.prompt
    )
    check_windows(options)
    check_files(options.files)
    settings = {
        "tap": options.tap,
        "pooling": options.pooling,
        "span": options.span,
        "prompt": options.prompt,
        **window_settings(options),
    }
    file_settings = load_settings(options)
    model = load_model(options)
    spec = model.spec(**settings, track=options.track)
    failed = 0
    embeddings = model.encode_each(options.files, errors="yield", **settings, **file_settings)
    with VectorFile(output, spec) as file:
        for source, embedding in zip(with_progress(options.files), embeddings, strict=True):
            if isinstance(embedding, AudioError):
                failed += 1
                print_error(str(embedding))
            else:
                file.add(source, embedding)
    status = report_failures(failed, len(options.files))
    if not file.sources:
        print_error(f"nothing could be encoded, so {output} was not written")
        return status
    if options.json:
        print_json(
            {
                "output": str(output),
                "sources": file.sources,
                "shapes": file.shapes,
                "spec": spec.settings,
                "fingerprint": spec.fingerprint,
            }
        )
    else:
        shapes = " ".join("×".join(map(str, shape)) for shape in file.shapes[:3])
        more = " …" * (len(file.shapes) > 3)
        print_line(
            f"{output}: {len(file.sources)} × {spec.tap}, {spec.pooling} over {spec.span}, "
            f"{shapes}{more}, {spec.dtype}, spec {spec.fingerprint}"
        )
    return status
