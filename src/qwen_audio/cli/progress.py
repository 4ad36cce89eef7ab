"""Progress on standard error, if it is a terminal: bars with the rate and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from qwen_audio.audio.timecode import format_duration

from .verbosity import VERBOSITY, Verbosity

__all__ = [
    "FileProgress",
    "ShowProgress",
    "download_bar",
    "file_progress",
    "format_count_rate",
    "format_rate",
    "format_time_left",
    "progress_bars",
    "recording_progress",
    "working_on",
]


class ShowProgress(Protocol):
    """Shows how far a stage is, with its rate and the time left: see `OnProgress`.

    A stage without a total is over as soon as another one is shown.
    """

    def __call__(
        self,
        stage: str,
        done: int,
        total: int | None,
        unit: str = "",
        audio_seconds: float = 0.0,
        /,
        note: str = "",
    ) -> None:
        """Called when a stage begins, and as often as something of it is done; a note is added."""


def format_rate(audio_seconds: float, elapsed_seconds: float) -> str:
    """How fast audio is processed: 151× real time."""
    speed = audio_seconds / max(elapsed_seconds, 1e-9)
    return f"{speed:.{0 if speed >= 10 else 1}f}× real time"


def format_count_rate(count: int, unit: str, elapsed_seconds: float) -> str:
    """How fast things are done, at a number from 1 on if it can be: 3.2 taps/s, 5.0 files/min."""
    speed = count / max(elapsed_seconds, 1e-9)
    for seconds, per in ((1, "s"), (60, "min"), (3600, "h")):
        if speed * seconds >= 1 or per == "h":
            break
    speed *= seconds
    return f"{speed:.{0 if speed >= 10 else 1}f} {unit}/{per}"


def format_time_left(done: float, total: float, elapsed_seconds: float) -> str:
    """The time that the rest takes at the same speed: 2:10 left; "" before anything is done."""
    if not done:
        return ""
    seconds = round(elapsed_seconds * max(total - done, 0) / done)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


@dataclass(frozen=True)
class _Start:
    """When a stage was first shown, and how far it was then."""

    seconds: float
    done: int
    audio_seconds: float = 0.0


@dataclass
class _Display:
    """The bars on the screen: one display at a time, or they would overwrite each other."""

    bars: Any
    tasks: dict[str, Any] = field(default_factory=dict)
    starts: dict[str, _Start] = field(default_factory=dict)
    unending: str | None = None
    """The stage without a total that was shown last."""

    def show(
        self,
        stage: str,
        done: int,
        total: int | None,
        unit: str = "",
        audio_seconds: float = 0.0,
        /,
        note: str = "",
    ) -> None:
        """See `ShowProgress`. Rate and time left are those since the stage was first shown."""
        if self.unending not in (None, stage):
            self.remove(self.unending)
        self.unending = stage if total is None else None
        start = self.starts.setdefault(stage, _Start(time.monotonic(), done, audio_seconds))
        elapsed = time.monotonic() - start.seconds
        new_done, new_seconds = done - start.done, audio_seconds - start.audio_seconds
        count = rate = left = ""
        if new_seconds:
            rate = format_rate(new_seconds, elapsed)
        elif new_done and unit:
            rate = format_count_rate(new_done, unit, elapsed)
        if total is not None:
            count = f"{done}/{total} {unit}".rstrip()
            left = format_time_left(new_done, total - start.done, elapsed)
        self._update(stage, done, total, (count, stage, rate, left, note))

    def show_bytes(self, stage: str, done: int, total: int) -> None:
        """A download: bytes, as megabytes."""
        start = self.starts.setdefault(stage, _Start(time.monotonic(), done))
        elapsed = time.monotonic() - start.seconds
        megabytes = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        rate = f"{(done - start.done) / 1e6 / max(elapsed, 1e-9):.1f} MB/s"
        left = format_time_left(done - start.done, total - start.done, elapsed)
        self._update(stage, done, total, (stage, megabytes, rate, left))

    def remove(self, stage: str | None) -> None:
        """Take a stage's bar off."""
        if stage in self.tasks:
            self.bars.remove_task(self.tasks.pop(stage))
            del self.starts[stage]
        if stage == self.unending:
            self.unending = None

    def _update(self, stage: str, done: int, total: int | None, parts: Iterable[str]) -> None:
        description = " · ".join(part for part in parts if part)
        if stage not in self.tasks:
            self.tasks[stage] = self.bars.add_task(description, total=total)
            self.bars.start()
        self.bars.update(self.tasks[stage], completed=done, total=total, description=description)


_shown: list[_Display] = []
"""The display of the `progress_bars` that are open."""


def _is_shown() -> bool:
    return sys.stderr.isatty() and VERBOSITY.get() is not Verbosity.QUIET


@contextmanager
def progress_bars() -> Iterator[ShowProgress | None]:
    """Progress bars on standard error, one for each stage; None if it is no terminal, or --quiet.

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
def working_on(stage: str) -> Iterator[ShowProgress | None]:
    """`progress_bars` that show from the beginning on what is going on, and for how long."""
    with progress_bars() as show:
        if show is not None:
            show(stage, 0, None)
        try:
            yield show
        finally:
            if _shown:
                _shown[0].remove(stage)


class FileProgress:
    """Progress over files: how many are done, at which rate, and the time left."""

    def __init__(self, stage: str, total: int, show: ShowProgress | None) -> None:
        self._stage, self._total, self._show = stage, total, show
        self._done, self._audio_seconds = 0, 0.0

    def advance(self, audio_seconds: float = 0.0) -> None:
        """Another file is done, of so many seconds; 0 of one that failed."""
        self._done += 1
        self._audio_seconds += audio_seconds
        self.show()

    def reached(self, audio_seconds: float) -> None:
        """So many seconds of the file that is being processed are done."""
        self.show(audio_seconds)

    def show(self, reached_seconds: float = 0.0) -> None:
        """Show the state."""
        if self._show is not None:
            note = f"{format_duration(reached_seconds)} of this file" if reached_seconds else ""
            seconds = self._audio_seconds + reached_seconds
            self._show(self._stage, self._done, self._total, "files", seconds, note=note)


@contextmanager
def recording_progress(stage: str) -> Iterator[ShowProgress]:
    """What shows the reports of a long call as this stage: of `OnProgress`, window by window.

    Beside the rate it says how much of the recording is done that is being processed.
    """
    with working_on(stage) as show:
        done_before, seconds_before = 0, 0.0

        def report(
            _stage: str,
            done: int,
            total: int | None,
            unit: str = "",
            audio_seconds: float = 0.0,
            /,
            note: str = "",
        ) -> None:
            nonlocal done_before, seconds_before
            if done != done_before:
                done_before, seconds_before = done, audio_seconds
            reached = audio_seconds - seconds_before
            notes = [f"{format_duration(reached)} of this file"] * (reached > 0) + [note] * bool(
                note
            )
            if show is not None:
                show(stage, done, total, unit, audio_seconds, note=" · ".join(notes))

        yield report


@contextmanager
def file_progress(stage: str | None, files: Sequence[Any]) -> Iterator[FileProgress]:
    """Progress over these files, shown from the beginning on; not shown without a stage."""
    with progress_bars() if stage else nullcontext() as show:
        progress = FileProgress(stage or "", len(files), show)
        if files:
            progress.show()
        yield progress


def download_bar(stage: str = "fetching weights") -> Callable[[int, int], None] | None:
    """Progress of a download on standard error; None if it is no terminal, or --quiet.

    The function takes the bytes downloaded (or otherwise done) so far and their total.
    """
    if not _is_shown():
        return None
    opened: list[ExitStack] = []

    def report(downloaded_bytes: int, total_bytes: int) -> None:
        if not opened:
            opened.append(ExitStack())
            opened[0].enter_context(progress_bars())
        _shown[0].show_bytes(stage, downloaded_bytes, total_bytes)
        if downloaded_bytes >= total_bytes:
            _shown[0].remove(stage)
            opened.pop().close()

    return report
