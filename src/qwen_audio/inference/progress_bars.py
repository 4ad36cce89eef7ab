"""Progress bars of long calls in Python: in notebooks without asking, elsewhere on request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from qwen_audio.errors import OptionError

__all__ = ["download_bar", "in_notebook", "progress_bars", "shows_progress", "with_progress"]

T = TypeVar("T")

_RECORDINGS = {"unit": " recordings"}
_BYTES = {"unit": "B", "unit_scale": True}


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
    progress: bool | None, **options: Any
) -> Iterator[Callable[[str, int, int | None], None] | None]:
    """Bars on standard error, or as widgets of a notebook; None where there are none.

    The function takes a bar's label, the number of items done, and the total if it is known.

    Args:
        progress: see `shows_progress`.
        options: of tqdm, such as the unit.
    """
    if not shows_progress(progress):
        yield None
        return
    bars: dict[str, Any] = {}

    def report(label: str, done: int, total: int | None) -> None:
        from tqdm.auto import tqdm

        if label not in bars:
            bars[label] = tqdm(desc=label, total=total, **(_RECORDINGS | options))
        bars[label].update(done - bars[label].n)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()


def with_progress(results: Iterator[T], progress: bool, total: int | None) -> Iterator[T]:
    """The results of recordings, with a bar."""
    with progress_bars(progress) as report:
        for done, result in enumerate(results, 1):
            if report is not None:
                report("encoding", done, total)
            yield result


def download_bar(progress: bool | None) -> Callable[[int, int], None] | None:
    """A bar for each download, as `load` reports it: bytes done, and bytes in all.

    Raises:
        OptionError: for another `progress`; see `shows_progress`.
    """
    if not shows_progress(progress):
        return None
    shown = ExitStack()
    reports: list[Callable[[str, int, int | None], None] | None] = []

    def report(done: int, total: int) -> None:
        if not reports:
            reports.append(shown.enter_context(progress_bars(True, **_BYTES)))
        if reports[0] is not None:
            reports[0]("fetching weights", done, total)
        if done >= total:
            reports.clear()
            shown.close()

    return report
