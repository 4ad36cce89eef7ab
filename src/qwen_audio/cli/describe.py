"""`qwen-audio describe`: captions and answers about recordings, printed or as files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import counted
from qwen_audio.paths import path_to_text, printable

from .answers import print_answers
from .checks import check_files, check_windows
from .console import (
    load_model,
    print_error,
    print_json,
    print_line,
    print_notice,
    print_text,
    process_files,
)
from .inputs import add_input_options, resolve_files
from .options import (
    add_command,
    add_compute_options,
    add_file_options,
    add_model_options,
    add_prompt_option,
    add_resume_option,
    add_window_options,
    load_settings,
    specified_options,
    window_settings,
)
from .progress import FileProgress

if TYPE_CHECKING:
    from qwen_audio.api.answer import Answer
    from qwen_audio.api.model import AudioModel

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
    add_input_options(parser)
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
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write them with their times instead: .csv, .jsonl, .srt, .vtt, or a folder",
    )
    parser.add_argument(
        "--format", choices=("srt", "vtt"), help="of the files in a folder, one a recording"
    )
    add_resume_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the generated text of every file, or write it."""
    from qwen_audio.inference.options import Sampling

    from .caption_files import check_caption_output, subtitle_paths

    sampling = {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    Sampling(**sampling)
    check_windows(options)
    output = check_caption_output(options)
    resolve_files(options)
    subtitles = {} if output is None else subtitle_paths(output, options)
    check_files(options.files)
    settings = {
        "prompt": options.prompt,
        **sampling,
        **load_settings(options),
        **window_settings(options),
    }
    model = load_model(options)
    if not model.pipeline.holds_weights(None):
        print_notice(_streamed_notice(model))
    if output is None:
        return _print_texts(model, options, settings)
    checkpoint = model.pipeline.checkpoint
    identity = {
        "model": model.name,
        "revision": checkpoint.revision,
        "adapter": checkpoint.adapter_hash,
        "dtype": model.dtype,
        **specified_options(quantization=model.quantization),
        **settings,
    }
    if subtitles:
        return _write_subtitles(model, options, settings, identity, subtitles)
    return _write_table(model, options, settings, identity, output)


def _streamed_notice(model: AudioModel) -> str:
    """For a model whose weights are read from the disk for every token."""
    needed = f"{model.cost().read_bytes / 1e9:.1f} GB"
    is_smallest = model.quantize == "int4-g128" or model.pipeline.checkpoint.tensors.formats
    advice = "" if is_smallest else "; --quantize int4 takes less"
    return f"{needed} of weights don't fit in memory and are read for every token{advice}"


def _print_texts(model: AudioModel, options: argparse.Namespace, settings: dict[str, Any]) -> int:
    streaming = sys.stdout.isatty() and not options.json and len(options.files) == 1

    def describe(file: str, progress: FileProgress) -> float:
        if not options.json and not streaming:
            name = printable(file) if len(options.files) > 1 else None
            answers = print_answers(_answers(model, file, settings, progress), name)
            _report_cuts(file, answers, options)
            return answers[-1].end_seconds
        stream = (lambda text: print_text(text, end="")) if streaming else None
        text = model.describe(file, **settings, stream=stream)
        _report_cuts(file, text.answers, options)
        if options.json:
            source = path_to_text(file)
            rows = [answer.facts() | {"source": source} for answer in text.answers]
            print_json({"source": source, "text": str(text), "answers": rows, "notes": text.notes})
        else:
            print_text("")
        return text.answers[-1].end_seconds

    return process_files(options.files, describe, None if streaming else "describe")


def _answers(
    model: AudioModel, file: str, settings: dict[str, Any], progress: FileProgress
) -> Iterator[Answer]:
    """The answers about a file, as they come."""
    for answer in model.describe_windows(file, **settings):
        progress.reached(answer.end_seconds)
        yield answer


def _report_cuts(file: str, answers: Sequence[Answer], options: argparse.Namespace) -> None:
    ends = {answer.ended_by for answer in answers}
    if "max_new_tokens" in ends:
        print_error(
            f"{file}: cut off at {counted(options.max_new_tokens, 'token')} (--max-new-tokens)"
        )
    if "context" in ends:
        print_error(f"{file}: cut off as the model's context was full: use a shorter --window")


def _write_subtitles(
    model: AudioModel,
    options: argparse.Namespace,
    settings: dict[str, Any],
    identity: dict[str, Any],
    paths: dict[str, Path],
) -> int:
    """A file for each recording, written as soon as its text is there."""
    from qwen_audio.inference.embedding_spec import settings_fingerprint

    from .caption_files import caption_rows, check_subtitles, save_subtitles
    from .journal import is_newer, report_done

    spec = settings_fingerprint(identity)
    files = options.files
    if options.resume:
        done = {file for file in files if is_newer(paths[file], file)}
        if not all(check_subtitles(paths[file], spec, file) for file in sorted(done)):
            print_notice(
                ".srt has no place for a recording's name and settings: whether files that are "
                "there are of the same is not checked"
            )
        report_done(len(done), len(files))
        files = [file for file in files if file not in done]

    def describe(file: str, progress: FileProgress) -> float:
        answers = list(_answers(model, file, settings, progress))
        _report_cuts(file, answers, options)
        save_subtitles(paths[file], caption_rows(file, answers, spec))
        if options.json:
            print_json({"source": path_to_text(file), "output": str(paths[file])})
        else:
            print_line(f"{paths[file]}: {counted(len(answers), 'window')}")
        return answers[-1].end_seconds

    return process_files(files, describe, "describe", done=len(options.files) - len(files))


def _write_table(
    model: AudioModel,
    options: argparse.Namespace,
    settings: dict[str, Any],
    identity: dict[str, Any],
    output: Path,
) -> int:
    """One file of all recordings, made at the end of what the journal holds."""
    from qwen_audio.inference.embedding_spec import settings_fingerprint

    from .caption_files import caption_rows, read_table, save_table
    from .journal import Journal, report_done

    spec = settings_fingerprint(identity)
    with Journal(output, identity, resume=options.resume) as journal:
        if journal.continues_output:
            for source, source_rows in read_table(output, spec).items():
                journal.take_over(source, json.dumps(source_rows).encode())
        files = journal.pending(options.files)
        others = journal.others(options.files)
        report_done(len(options.files) - len(files), len(options.files), others)

        def describe(file: str, progress: FileProgress) -> float:
            answers = list(_answers(model, file, settings, progress))
            _report_cuts(file, answers, options)
            journal.add(file, json.dumps(caption_rows(file, answers, spec)).encode())
            return answers[-1].end_seconds

        status = process_files(files, describe, "describe", done=len(options.files) - len(files))
        results = list(journal.results(options.files))
        rows = [
            {**row, "source": source} for source, result in results for row in json.loads(result)
        ]
        if rows:
            save_table(output, rows)
        journal.finish()
    if not rows:
        print_error(f"nothing could be described, so {output} was not written")
    elif options.json:
        sources = [source for source, _ in results]
        print_json({"output": str(output), "sources": sources, "rows": len(rows)})
    else:
        recordings = counted(len(results), "recording")
        print_line(f"{output}: {counted(len(rows), 'window')} of {recordings}")
    return status
