"""Progress bars of long calls in Python: in notebooks without asking, elsewhere on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from qwen_audio.audio.timecode import format_duration
from qwen_audio.errors import OptionError

__all__ = [
    "OnProgress",
    "OnWindow",
    "download_bar",
    "in_notebook",
    "no_progress",
    "progress_bars",
    "shows_progress",
    "with_progress",
]

T = TypeVar("T")

OnWindow: TypeAlias = Callable[[float], None]
"""Is told that a recording is done up to this second."""


@runtime_checkable
class OnProgress(Protocol):
    """A function that is told how far a long call is."""

    def __call__(
        self,
        stage: str,
        done: int,
        total: int | None,
        unit: str = "",
        audio_seconds: float = 0.0,
        /,
    ) -> None:
        """Called when a stage begins, and as often as something of it is done.

        Args:
            done, total: items; a total of None isn't known.
            unit: what they are, such as "recordings".
            audio_seconds: of those that are done; 0 where that isn't known.
        """


def in_notebook() -> bool:
    """Whether this process runs the cells of a Jupyter notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def shows_progress(progress: bool | None) -> bool:
    """Whether bars are shown; None: in notebooks only.

    Raises:
        OptionError: for anything but True, False and None.
    """
    if progress not in (None, True, False):
        raise OptionError(
            f"progress={progress!r:.80}: use True or False, or None for notebooks only"
        )
    return in_notebook() if progress is None else bool(progress)


@contextmanager
def progress_bars(
    progress: bool | None,
) -> Iterator[OnProgress | None]:
    """A bar a stage on standard error, or as widgets of a notebook; None where there are none.

    Args:
        progress: see `shows_progress`.
    """
    if not shows_progress(progress):
        yield None
        return
    bars: dict[str, Any] = {}

    def report(
        stage: str, done: int, total: int | None, unit: str = "", audio_seconds: float = 0.0, /
    ) -> None:
        from tqdm.auto import tqdm

        if stage not in bars:
            is_bytes = unit == "B"
            bars[stage] = tqdm(
                desc=stage, total=total, unit=unit if is_bytes else f" {unit}", unit_scale=is_bytes
            )
        bars[stage].update(done - bars[stage].n)
        if audio_seconds:
            bars[stage].set_postfix_str(f"{format_duration(audio_seconds)} of audio")

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()


def no_progress(_end_seconds: float) -> None:
    """An `OnWindow` that does nothing."""


def with_progress(
    results: Callable[..., Iterator[T]],
    progress: bool,
    total: int | None,
    stage: str = "encoding",
    on_progress: OnProgress | None = None,
) -> Iterator[T]:
    """The results of recordings, with a bar, or reported to `on_progress`.

    Args:
        results: makes the iterator; takes `on_window`.
    """
    with progress_bars(progress and on_progress is None) as bar:
        report = on_progress or bar
        done, seconds_before, seconds = 0, 0.0, 0.0

        def show() -> None:
            if report is not None:
                report(stage, done, total, "recordings", seconds_before + seconds)

        def on_window(end_seconds: float) -> None:
            nonlocal seconds
            seconds = end_seconds
            show()

        show()
        for result in results(on_window=on_window):  # without a name: an error ends it
            done, seconds_before, seconds = done + 1, seconds_before + seconds, 0.0
            show()
            yield result


def download_bar(
    progress: bool | None, stage: str = "fetching weights"
) -> Callable[[int, int], None] | None:
    """A bar for each download, as `load` reports it: bytes done, and bytes in all.

    Raises:
        OptionError: for another `progress`; see `shows_progress`.
    """
    if not shows_progress(progress):
        return None
    shown = ExitStack()
    reports: list[OnProgress | None] = []

    def report(done: int, total: int) -> None:
        if not reports:
            reports.append(shown.enter_context(progress_bars(True)))
        if reports[0] is not None:
            reports[0](stage, done, total, "B")
        if done >= total:
            reports.clear()
            shown.close()

    return report
