"""What all commands share: the model that is meant, lines, tables and bars on the terminal."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qwen_audio.errors import AudioError, OptionError

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.api.spec import EmbeddingSpec

__all__ = [
    "EMBEDDED",
    "bars",
    "check_stdin",
    "download_bar",
    "each",
    "load_model",
    "model_for",
    "print_error",
    "print_json",
    "print_line",
    "progress",
    "report_failures",
    "say_embedded",
    "show_table",
    "windowing_of",
]

T = TypeVar("T")

EMBEDDED = "embedded"  # weights.EMBEDDED, which would load torch


def progress(files: Sequence[T]) -> Iterator[T]:
    """A bar on a terminal, when there is more than one thing to wait for.

    It appears after the first, so that a bar of weights being fetched can come and go before.
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
def bars() -> Iterator[Callable[..., None] | None]:
    """Bars on a terminal, shown when there is something to say; None where there is no terminal.

    Gives a function of what is being done (each has a bar), how much of it is, of how much, and
    words to stand beside the bar instead of what is being done.
    """
    if not sys.stderr.isatty():
        yield None
        return
    shown: list[Any] = []
    tasks: dict[str, Any] = {}

    def show(doing: str, done: int, total: int, words: str = "") -> None:
        from rich import progress
        from rich.console import Console

        if not shown:
            bar = progress.Progress(
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.description}", markup=False),
                progress.TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.start()
            shown.append(bar)
        now = {"description": words or doing, "completed": done, "total": total}
        if doing not in tasks:
            tasks[doing] = shown[0].add_task(**now)
        shown[0].update(tasks[doing], **now)

    try:
        yield show
    finally:
        if shown:
            shown[0].stop()


def download_bar() -> Callable[[int, int], None] | None:
    """A bar of bytes and their rate on a terminal, shown when something comes from a hub."""
    if not sys.stderr.isatty():
        return None
    bars: list[Any] = []

    def report(brought: int, total: int) -> None:
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
            bars.append((bar, bar.add_task("", total=total)))
        bar, task = bars[-1]
        bar.update(task, completed=brought, total=total)
        if brought >= total:
            bar.stop()
            bars.clear()

    return report


def each(files: Sequence[str], work: Callable[[str], None]) -> int:
    """Do every file; say which failed and why; 1 if any did."""
    check_stdin(files)
    failed = 0
    for file in progress(files):
        try:
            work(file)
        except AudioError as error:  # this file's; any other error would be every file's
            failed += 1
            print_error(str(error))
    return report_failures(failed, len(files))


def check_stdin(files: Sequence[str]) -> None:
    """Standard input can be read only once.

    Raises:
        OptionError: - is there more than once.
    """
    if files.count("-") > 1:
        raise OptionError("- is given more than once, but standard input can be read only once")


def report_failures(failed: int, files: int) -> int:
    """The exit status."""
    if failed and files > 1:
        print_error(f"{failed} of {files} files failed")
    return int(failed > 0)


def load_model(options: argparse.Namespace) -> AudioModel:
    """The model that the options name."""
    from .stub_imports import fast_start

    with fast_start():
        from qwen_audio.api.model import load
    # The hub's retries are its own affair: what comes of them is one line of ours.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    model = load(
        options.model or EMBEDDED,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
        max_memory=options.max_memory,
        on_download=download_bar(),
    )
    say_embedded(options.model)
    return model


def say_embedded(model: str | None) -> None:
    """Say so where nobody has chosen a model."""
    if model is None:
        print(
            "qwen-audio: using the small embedded checkpoint "
            "(--model Qwen/Qwen2-Audio-7B-Instruct for the real one)",
            file=sys.stderr,
        )


def windowing_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of windows, if anything."""
    given = {"window_seconds": options.window, "hop_seconds": options.hop}
    return {name: seconds for name, seconds in given.items() if seconds is not None}


def show_table(table: Any) -> None:
    """As wide as the terminal; wide where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(table)


def print_json(data: Any) -> None:
    """One line."""
    print(json.dumps(data, ensure_ascii=False))


def print_error(line: str) -> None:
    """One line on standard error."""
    print(f"qwen-audio: {line}", file=sys.stderr)


def print_line(line: str = "", *, end: str = "\n") -> None:
    """On standard output, at once."""
    print(line, end=end, flush=True)


def model_for(spec: EmbeddingSpec, options: argparse.Namespace) -> AudioModel:
    """The model that made a collection, in the numbers it was made in, unless told otherwise."""
    meant = copy.copy(options)
    meant.model = getattr(options, "model", None) or spec.model
    meant.dtype = options.dtype or spec.dtype
    meant.revision = getattr(options, "revision", None)
    local = meant.model == EMBEDDED or Path(meant.model).is_dir()
    if meant.revision is None and meant.model == spec.model and not local:
        meant.revision = spec.revision
    return load_model(meant)
