"""Progress on standard error, if it is a terminal: bars with the rate and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .verbosity import VERBOSITY, Verbosity

__all__ = [
    "FileProgress",
    "ShowProgress",
    "download_bar",
    "file_progress",
    "format_rate",
    "format_time_left",
    "progress_bars",
    "working_on",
]

T = TypeVar("T")


class ShowProgress(Protocol):
    """Shows how far a task is: items done, their total, and a text instead of the task's name."""

    def __call__(self, task: str, done: int, total: int | None, text: str = "", /) -> None:
        """Called as often as something is done."""


def format_rate(audio_seconds: float, elapsed_seconds: float) -> str:
    """How fast audio is processed: 151× real time."""
    speed = audio_seconds / max(elapsed_seconds, 1e-9)
    return f"{speed:.{0 if speed >= 10 else 1}f}× real time"


def format_time_left(done: float, total: float, elapsed_seconds: float) -> str:
    """The time that the rest takes at the same speed: 2:10 left; "" before anything is done."""
    if not done:
        return ""
    seconds = round(elapsed_seconds * max(total - done, 0) / done)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


@dataclass
class _Display:
    """The bars on the screen: one display at a time, or they would overwrite each other."""

    bars: Any
    tasks: dict[str, Any] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)

    def show(self, task: str, done: int, total: int | None, text: str = "", /) -> None:
        """See `ShowProgress`. The time left is that of the task since it was first shown."""
        started = self.started.setdefault(task, time.monotonic())
        parts = [text or task]
        if total is not None:
            left = format_time_left(done, total, time.monotonic() - started)
            parts = [f"{done}/{total}", *parts, left]
        self.update(task, done, total, " · ".join(part for part in parts if part))

    def update(self, task: str, done: int, total: int | None, description: str) -> None:
        """Show a task with this text."""
        if task not in self.tasks:
            self.tasks[task] = self.bars.add_task(description, total=total)
            self.bars.start()
        self.bars.update(self.tasks[task], completed=done, total=total, description=description)

    def remove(self, task: str) -> None:
        """Take a task's bar off."""
        if task in self.tasks:
            self.bars.remove_task(self.tasks.pop(task))
            self.started.pop(task, None)


_shown: list[_Display] = []
"""The display of the `progress_bars` that are open."""


def _is_shown() -> bool:
    return sys.stderr.isatty() and VERBOSITY.get() is not Verbosity.QUIET


@contextmanager
def progress_bars() -> Iterator[ShowProgress | None]:
    """Progress bars on standard error, one for each task; None if it is no terminal, or --quiet.

    Nothing is shown before the first call. Inside another `progress_bars`, its display.
    """
    if not _is_shown():
        yield None
        return
    if _shown:
        yield _shown[0].show
        return
    from rich import progress
    from rich.console import Console

    display = _Display(
        progress.Progress(
            progress.SpinnerColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            # Results that are printed to a terminal go above the bars; those for a file stay there.
            redirect_stdout=sys.stdout.isatty(),
        )
    )
    _shown.append(display)
    try:
        yield display.show
    finally:
        _shown.remove(display)
        display.bars.stop()


@contextmanager
def working_on(task: str) -> Iterator[None]:
    """Show that something without steps is going on, and for how long."""
    with progress_bars() as show:
        if show is not None:
            show(task, 0, None)
        yield


class FileProgress:
    """Progress over files: how many are done, at which rate, and the time left."""

    def __init__(self, task: str, total: int, show: ShowProgress | None) -> None:
        self._task, self._total, self._show = task, total, show
        self._done, self._audio_seconds = 0, 0.0
        self._started = time.monotonic()

    def advance(self, audio_seconds: float = 0.0) -> None:
        """Another file is done, of so many seconds; 0 of one that failed."""
        self._done += 1
        self._audio_seconds += audio_seconds
        self.show()

    def show(self) -> None:
        """Show the state."""
        if self._show is not None:
            elapsed = time.monotonic() - self._started
            rate = format_rate(self._audio_seconds, elapsed) if self._audio_seconds else ""
            text = " · ".join(part for part in (self._task, rate) if part)
            self._show(self._task, self._done, self._total, text)


@contextmanager
def file_progress(task: str | None, files: Sequence[Any]) -> Iterator[FileProgress]:
    """Progress over these files, shown from the beginning on; not shown without a task."""
    with progress_bars() if task else nullcontext() as show:
        progress = FileProgress(task or "", len(files), show)
        if files:
            progress.show()
        yield progress


def download_bar() -> Callable[[int, int], None] | None:
    """Progress of a download on standard error; None if it is no terminal, or --quiet.

    The function takes the bytes downloaded so far and their total.
    """
    if not _is_shown():
        return None
    opened: list[tuple[ExitStack, float]] = []
    task = "fetching weights"

    def report(downloaded_bytes: int, total_bytes: int) -> None:
        if not opened:
            opened.append((ExitStack(), time.monotonic()))
            opened[0][0].enter_context(progress_bars())
        stack, started = opened[0]
        seconds = max(time.monotonic() - started, 1e-9)
        rate = f"{downloaded_bytes / 1e6 / seconds:.1f} MB/s"
        left = format_time_left(downloaded_bytes, total_bytes, seconds)
        megabytes = f"{downloaded_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
        _shown[0].update(
            task, downloaded_bytes, total_bytes, f"{task} · {megabytes} · {rate} · {left}"
        )
        if downloaded_bytes >= total_bytes:
            _shown[0].remove(task)
            stack.close()
            opened.clear()

    return report
