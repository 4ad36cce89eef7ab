"""What all commands share: loading the model, printing, tables, progress bars, failed files."""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from qwen_audio.errors import AudioError, CollectionError
from qwen_audio.paths import UNPRINTABLE, is_folder, printable

from .checks import check_model_options
from .options import EMBEDDED

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.inference.embedding_spec import EmbeddingSpec

__all__ = [
    "download_bar",
    "load_collection_model",
    "load_model",
    "print_embedded_notice",
    "print_error",
    "print_json",
    "print_line",
    "print_text",
    "process_files",
    "progress_bars",
    "report_failures",
    "show_table",
    "with_progress",
]

T = TypeVar("T")


def load_model(options: argparse.Namespace) -> AudioModel:
    """The model of --model, --revision, --adapter, --device, --dtype and --max-memory.

    From here on torch is imported: check everything else before.
    """
    check_model_options(options)
    from .stub_imports import fast_start

    with fast_start():
        from qwen_audio.api.model import load
    model = load(
        options.model or EMBEDDED,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
        adapter=options.adapter,
        max_memory=options.max_memory,
        on_download=download_bar(),
    )
    print_embedded_notice(options.model)
    from qwen_audio.weights.device import has_unused_apple_gpu

    if has_unused_apple_gpu(options.device):
        print_error(
            "there is an Apple GPU: --device mps uses it (untested; the CPU is the default)"
        )
    return model


def load_collection_model(spec: EmbeddingSpec, options: argparse.Namespace) -> AudioModel:
    """The model of a collection, in its dtype; options that are given take precedence.

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
    merged.revision = getattr(options, "revision", None)
    is_local = merged.model == EMBEDDED or is_folder(merged.model)
    if merged.revision is None and merged.model == spec.model and not is_local:
        merged.revision = spec.revision
    return load_model(merged)


def print_embedded_notice(model: str | None) -> None:
    """Tell users who named no model that the embedded checkpoint is used."""
    if model is None:
        print_error(
            "using the small embedded checkpoint "
            "(--model Qwen/Qwen2-Audio-7B-Instruct for the real one)"
        )


def process_files(files: Sequence[str], process: Callable[[str], None]) -> int:
    """Process every file and print the errors of those that fail.

    Returns:
        The exit status.

    Raises:
        QwenAudioError: for any error but an AudioError, as other files would raise it, too; and
            once if every file overflows in this dtype (see `hold_overflows`).
    """
    from qwen_audio.inference.finite import hold_overflows

    def results() -> Generator[AudioError | None]:
        for file in with_progress(files):
            try:
                process(file)
            except AudioError as error:
                yield error
            else:
                yield None

    failed = 0
    for error in hold_overflows(results()):
        if error is not None:
            failed += 1
            print_error(str(error))
    return report_failures(failed, len(files))


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
    print(UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def print_error(line: str) -> None:
    """Print one line to standard error."""
    print(f"qwen-audio: {printable(line)}", file=sys.stderr)


def show_table(table: Any) -> None:
    """Print a rich renderable, as wide as the terminal; 200 columns where there is none."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.width = console.width or 80  # nothing is printed where COLUMNS is 0
    console.print(table)


def with_progress(files: Sequence[T]) -> Iterator[T]:
    """The files, with a progress bar if there are several and standard error is a terminal.

    The bar appears after the first file, so that it doesn't mix with that of a download. There is
    none if standard output is a terminal, too: results are printed there.
    """
    if len(files) < 2 or not sys.stderr.isatty() or sys.stdout.isatty():
        yield from files
        return
    from rich.console import Console
    from rich.progress import track

    first, *others = files
    yield first
    yield from track(others, console=Console(stderr=True), transient=True)


@contextmanager
def progress_bars() -> Iterator[Callable[..., None] | None]:
    """Progress bars on standard error, one for each task; None if it is no terminal.

    The function takes the task's name, the number of items done, their total, and optionally a text
    to show instead of the name. Nothing is shown before its first call.
    """
    if not sys.stderr.isatty():
        yield None
        return
    bars: list[Any] = []
    tasks: dict[str, Any] = {}

    def show(task: str, done: int, total: int, text: str = "") -> None:
        from rich import progress
        from rich.console import Console

        if not bars:
            bars.append(
                progress.Progress(
                    progress.BarColumn(),
                    progress.MofNCompleteColumn(),
                    progress.TextColumn("{task.description}", markup=False),
                    progress.TimeRemainingColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
            )
            bars[0].start()
        state = {"description": text or task, "completed": done, "total": total}
        if task not in tasks:
            tasks[task] = bars[0].add_task(**state)
        bars[0].update(tasks[task], **state)

    try:
        yield show
    finally:
        if bars:
            bars[0].stop()


def download_bar() -> Callable[[int, int], None] | None:
    """A progress bar of downloaded bytes on standard error; None if it is no terminal.

    The function takes the bytes downloaded so far and their total.
    """
    if not sys.stderr.isatty():
        return None
    bars: list[Any] = []

    def report(downloaded_bytes: int, total_bytes: int) -> None:
        from rich import progress
        from rich.console import Console

        if not bars:
            bar = progress.Progress(
                progress.TextColumn("fetching weights"),
                progress.BarColumn(),
                progress.DownloadColumn(),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.start()
            bars.append((bar, bar.add_task("", total=total_bytes)))
        bar, task = bars[0]
        bar.update(task, completed=downloaded_bytes, total=total_bytes)
        if downloaded_bytes >= total_bytes:
            bar.stop()
            bars.clear()

    return report
