"""`qwen-audio encode`: embeddings of one tap or several as a file."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import AudioError

from .checks import check_embedding_options, check_files, check_windows
from .console import (
    load_model,
    print_error,
    print_file,
    print_json,
    print_line,
    report_failures,
)
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_list_option,
    add_model_options,
    add_prompt_option,
    add_resume_option,
    add_window_options,
    load_settings,
    window_settings,
)
from .progress import recording_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from qwen_audio.api.activation_dataset import ActivationDataset
    from qwen_audio.api.embeddings import Embeddings
    from qwen_audio.api.export import VectorFile
    from qwen_audio.api.model import AudioModel
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

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
    add_input_options(parser)
    add_list_option(parser, "--tap", "TAP", "see `qwen-audio taps` (default: audio_tower)")
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
        help=".npz, .safetensors or, with the extra [parquet], .parquet or .arrow; with the extra "
        "[datasets] .dataset, a folder of unpooled rows in shards",
    )
    add_resume_option(parser)


def run(options: argparse.Namespace) -> int:
    """Write one file with the embeddings of all recordings that can be decoded."""
    from qwen_audio.api.activation_dataset import DATASET_SUFFIX, check_dataset
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
    check_files(resolve_files(options))
    load_settings(options)
    model = load_model(options)
    from .journal import Journal, report_done
    from .resumed_vectors import continue_vectors, embeddings_from_bytes, embeddings_to_bytes

    specs = [
        model.spec(
            tap,
            pooling=options.pooling,
            span=options.span,
            **({"prompt": options.prompt} if Tap.parse(tap).in_language_model else {}),
            **({} if options.track is None else {"track": options.track}),
            **window_settings(options),
        )
        for tap in taps
    ]
    if output.suffix.lower() == DATASET_SUFFIX:
        check_dataset(output, specs)
        return _write_dataset(model, taps, specs, output, options)
    stored = [spec.settings for spec in specs]
    settings = {"taps": taps, "per": options.per, "on_damage": options.on_damage, "specs": stored}
    with Journal(output, settings, resume=options.resume) as journal:
        if journal.continues_output:
            continue_vectors(journal, output, stored, options.per)
        files = journal.pending(options.files)
        report_done(
            len(options.files) - len(files), len(options.files), journal.others(options.files)
        )

        def keep(source: str, embeddings: Mapping[str, Embeddings]) -> None:
            journal.add(source, embeddings_to_bytes(embeddings))

        failed = _encode(model, taps, files, keep, options)
        with VectorFile(output) as file:
            for source, result in journal.results(options.files):
                file.add(embeddings_from_bytes(result), source)
        journal.finish()
    status = report_failures(failed, len(options.files))
    if not file.sources:
        print_error(f"nothing could be encoded, so {output} was not written")
        return status
    _print_result(file, options)
    return status


def _write_dataset(
    model: AudioModel,
    taps: list[str],
    specs: Sequence[EmbeddingSpec],
    output: Path,
    options: argparse.Namespace,
) -> int:
    """Write a folder of shards, which is its own journal."""
    from qwen_audio.api.activation_dataset import ActivationDataset

    from .journal import report_done

    with ActivationDataset(output, resume=options.resume) as dataset:
        files = dataset.pending(options.files, specs)
        report_done(len(options.files) - len(files), len(options.files))
        failed = _encode(model, taps, files, lambda name, rows: dataset.add(rows, name), options)
    status = report_failures(failed, len(options.files))
    if dataset.sources:
        _print_result(dataset, options)
    else:
        print_error(f"nothing could be encoded, so {output} was not written")
    return status


def _encode(
    model: AudioModel,
    taps: list[str],
    files: Sequence[str],
    keep: Callable[[str, Mapping[str, Embeddings]], None],
    options: argparse.Namespace,
) -> int:
    """Encode these files; returns how many failed."""
    failed = 0
    with recording_progress("encode") as report:
        embeddings = model.encode_each(
            files,
            errors="yield",
            tap=taps if len(taps) > 1 else taps[0],
            pooling=options.pooling,
            span=options.span,
            per=options.per,
            prompt=options.prompt,
            on_progress=report,
            **window_settings(options),
            **load_settings(options),
        )
        started = time.monotonic()
        for source, embedding in zip(files, embeddings, strict=True):
            if isinstance(embedding, AudioError):
                failed += 1
                print_error(str(embedding))
            else:
                by_tap = embedding if isinstance(embedding, dict) else {"": embedding}
                keep(source, by_tap)
                seconds = max(_end_seconds(part) for part in by_tap.values())
                print_file(source, seconds, time.monotonic() - started)
            started = time.monotonic()
    return failed


def _end_seconds(embeddings: Embeddings) -> float:
    """Where the audio of the rows ends; 0 of text alone."""
    import numpy as np

    ends = embeddings.end_seconds[~np.isnan(embeddings.end_seconds)]
    return float(ends.max()) if len(ends) else 0.0


def _print_result(file: VectorFile | ActivationDataset, options: argparse.Namespace) -> None:
    output = str(file.target)
    for spec, (rows, width) in zip(file.specs, file.shapes.values(), strict=True):
        if options.json:
            print_json(
                {
                    "output": output,
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
