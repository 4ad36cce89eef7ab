"""Progress bars of long calls in Python: in notebooks without asking, elsewhere on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

from qwen_audio.errors import OptionError

__all__ = [
    "OnProgress",
    "download_bar",
    "in_notebook",
    "progress_bars",
    "shows_progress",
    "with_progress",
]

T = TypeVar("T")


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
        stage: str, done: int, total: int | None, unit: str = "", _audio_seconds: float = 0.0, /
    ) -> None:
        from tqdm.auto import tqdm

        if stage not in bars:
            is_bytes = unit == "B"
            bars[stage] = tqdm(
                desc=stage, total=total, unit=unit if is_bytes else f" {unit}", unit_scale=is_bytes
            )
        bars[stage].update(done - bars[stage].n)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()


def with_progress(
    results: Iterator[T], progress: bool, total: int | None, stage: str = "encoding"
) -> Iterator[T]:
    """The results of recordings, with a bar."""
    with progress_bars(progress) as report:
        if report is not None:
            report(stage, 0, total, "recordings")
        for done, result in enumerate(results, 1):
            if report is not None:
                report(stage, done, total, "recordings")
            yield result


def download_bar(progress: bool | None) -> Callable[[int, int], None] | None:
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
            reports[0]("fetching weights", done, total, "B")
        if done >= total:
            reports.clear()
            shown.close()

    return report
