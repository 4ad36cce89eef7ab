"""What all commands share: loading the model, printing, tables, failed files."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import AudioError, CollectionError, MissingExtraError
from qwen_audio.paths import UNPRINTABLE, is_folder, printable
from qwen_audio.weights.option_values import quantize_name

from .checks import check_model_options
from .option_names import with_option_names
from .options import EMBEDDED
from .progress import FileProgress, download_bar, file_progress, format_rate, working_on
from .verbosity import VERBOSITY, Verbosity

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

__all__ = [
    "load_collection_model",
    "load_model",
    "print_embedded_notice",
    "print_error",
    "print_file",
    "print_json",
    "print_line",
    "print_notice",
    "print_text",
    "process_files",
    "report_failures",
    "show_table",
]


def load_model(options: argparse.Namespace) -> AudioModel:
    """The model of --model, --revision, --adapter, --device, --dtype, --quantize and
    --max-memory.

    From here on torch is imported: check everything else before.
    """
    check_model_options(options)
    from .stub_imports import fast_start

    with working_on("loading the model"):
        with fast_start():
            from qwen_audio.api.model import load
        model = load(
            options.model or EMBEDDED,
            device=options.device,
            dtype=options.dtype,
            revision=options.revision,
            adapter=options.adapter,
            quantize=options.quantize,
            max_memory=options.max_memory,
            on_download=download_bar(),
            on_quantize=download_bar("quantising weights"),
        )
    print_embedded_notice(options.model)
    from qwen_audio.weights.device import has_unused_apple_gpu

    if has_unused_apple_gpu(options.device):
        print_error(
            "there is an Apple GPU: --device mps uses it (untested; the CPU is the default)"
        )
    _print_kernels(model)
    return model


def _print_kernels(model: AudioModel) -> None:
    """With --verbose, what computes; without it, what would make it faster."""
    from qwen_audio.weights.compiled_int4 import int4_instructions, would_compile_int4
    from qwen_audio.weights.quantized_linear import int4_kernel_name

    device, dtype = model.pipeline.device, model.pipeline.dtype
    has_int4 = "int4" in (model.quantization or "")
    if VERBOSITY.get() is Verbosity.VERBOSE:
        kernel = f", 4 bits: {int4_kernel_name(device, dtype)}" if has_int4 else ""
        print_error(f"model {model.name}, {str(dtype).removeprefix('torch.')} on {device}{kernel}")
    if has_int4 and device.type == "cpu" and would_compile_int4() and not int4_instructions():
        print_notice(str(MissingExtraError("faster text generation in 4 bits", "int4")))


def load_collection_model(spec: EmbeddingSpec, options: argparse.Namespace) -> AudioModel:
    """The model of a collection, in its dtype and quantised as it was; options that are given take
    precedence.

    Raises:
        CollectionError: if it was made with an adapter, which --adapter doesn't give.
    """
    if spec.adapter is not None and options.adapter is None:
        raise CollectionError(
            f"the collection was made with an adapter (content hash {spec.adapter}): give it with "
            "--adapter"
        )
    merged = copy.copy(options)
    merged.model = getattr(options, "model", None) or spec.model
    merged.dtype = options.dtype or spec.dtype
    merged.quantize = options.quantize or quantize_name(spec.quantization)
    merged.revision = getattr(options, "revision", None)
    is_local = merged.model == EMBEDDED or is_folder(merged.model)
    if merged.revision is None and merged.model == spec.model and not is_local:
        merged.revision = spec.revision
    return load_model(merged)


def print_embedded_notice(model: str | None) -> None:
    """Tell users who named no model that the embedded checkpoint is used."""
    if model is None:
        print_notice(
            "using the small embedded checkpoint "
            "(--model Qwen/Qwen2-Audio-7B-Instruct for the real one)"
        )


def process_files(
    files: Sequence[str],
    process: Callable[[str, FileProgress], float],
    task: str | None,
    *,
    done: int = 0,
) -> int:
    """Process every file and print the errors of those that fail.

    Args:
        process: returns the seconds of audio; of a long file it says meanwhile what is `reached`.
        task: what is shown as the progress; None: nothing is.
        done: files that were processed before.

    Returns:
        The exit status.

    Raises:
        QwenAudioError: for any error but an AudioError, as other files would raise it, too; and
            once if every file overflows in this dtype (see `hold_overflows`).
    """
    from qwen_audio.inference.finite import hold_overflows

    def results() -> Generator[AudioError | None]:
        with file_progress(task, files) as progress:
            for file in files:
                started, seconds = time.monotonic(), 0.0
                try:
                    seconds = process(file, progress)
                except AudioError as error:
                    yield error
                else:
                    print_file(file, seconds, time.monotonic() - started)
                    yield None
                progress.advance(seconds)

    failed = 0
    for error in hold_overflows(results()):
        if error is not None:
            failed += 1
            print_error(str(error))
    return report_failures(failed, len(files) + done)


def print_file(name: str, audio_seconds: float, elapsed_seconds: float) -> None:
    """With --verbose, that a file is done."""
    if VERBOSITY.get() is Verbosity.VERBOSE:
        rate = format_rate(audio_seconds, elapsed_seconds)
        print_error(f"{name}: {audio_seconds:.1f} s in {elapsed_seconds:.1f} s ({rate})")


def report_failures(failed: int, files: int) -> int:
    """Print how many of several files failed; the exit status: 1 if any did."""
    if failed and files > 1:
        print_error(f"{failed} of {files} files failed")
    return int(failed > 0)


def print_line(line: str) -> None:
    """Print one line to standard output, unbuffered, whatever names it contains."""
    print(printable(line), flush=True)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print a text of any number of lines to standard output, unbuffered."""
    print("\n".join(map(printable, text.split("\n"))), end=end, flush=True)


def print_json(data: Any) -> None:
    """Print JSON on one line."""
    text = json.dumps(data, ensure_ascii=False)
    # JSON allows more characters in a string than terminals and readers of lines do.
    print(UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text), flush=True)


def print_error(line: str) -> None:
    """Print one line to standard error, in which options are called as on the command line."""
    print(f"qwen-audio: {printable(with_option_names(line))}", file=sys.stderr)


def print_notice(line: str) -> None:
    """Print one line that is no error to standard error, unless --quiet is given."""
    if VERBOSITY.get() is not Verbosity.QUIET:
        print_error(line)


def show_table(table: Any) -> None:
    """Print a rich renderable, as wide as the terminal; 200 columns where there is none."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.width = console.width or 80  # nothing is printed where COLUMNS is 0
    console.print(table)
