"""What a terminal shows of work that takes its time; nothing where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

__all__ = ["download_bar", "progress"]

T = TypeVar("T")


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
