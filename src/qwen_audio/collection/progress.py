"""Counts of an indexing run: while it goes on, as a snapshot, and at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from qwen_audio.inference.progress_bars import progress_bars

__all__ = ["IndexCounter", "IndexProgress", "IndexSummary", "index_bar"]


@dataclass(frozen=True)
class IndexProgress:
    """Snapshot of a running index operation, as `on_progress` gets it.

    Attributes:
        total: number of recordings.
        encoded, unchanged, failed: of these, the ones that are done.
        audio_seconds: seconds of audio encoded, also of the recording that is not done yet.
        elapsed_seconds: wall-clock time since the start.
    """

    total: int
    encoded: int
    unchanged: int
    failed: int
    audio_seconds: float
    elapsed_seconds: float

    @property
    def done(self) -> int:
        """Recordings that are encoded, unchanged or failed."""
        return self.encoded + self.unchanged + self.failed


@dataclass(frozen=True)
class IndexSummary:
    """Result of an index operation.

    Attributes:
        added: recordings that are new in the collection.
        replaced: recordings whose content has changed.
        unchanged: recordings that were in the collection already.
        updated: recordings of the same content whose manifest columns were written again.
        rows: rows in the collection afterwards.
        audio_seconds: seconds of audio encoded.
        elapsed_seconds: wall-clock time.
        failures: source → why it can't be decoded, including failures of earlier runs whose files
            haven't changed.
        known_failures: those of them that had failed in earlier runs, and haven't changed.
        skipped: files in folders that are not audio by their suffix.
    """

    added: int
    replaced: int
    unchanged: int
    updated: int
    rows: int
    audio_seconds: float
    elapsed_seconds: float
    failures: Mapping[str, str]
    known_failures: tuple[str, ...]
    skipped: tuple[str, ...]


@contextmanager
def index_bar(progress: bool | None) -> Iterator[Callable[[IndexProgress], None] | None]:
    """A progress bar as `on_progress` of an index operation; see `progress_bars`."""
    with progress_bars(progress) as report:
        yield (
            None
            if report is None
            else lambda p: report("indexing", p.done, p.total, "recordings", p.audio_seconds)
        )


@dataclass
class IndexCounter:
    """The counts that an index operation keeps while it runs."""

    total: int
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    updated: int = 0
    encoded: int = 0
    written_by_others: int = 0
    """Of the encoded recordings, those that another process had added meanwhile."""
    audio_seconds: float = 0.0
    reached_seconds: float = 0.0
    """Of the recording that is being encoded."""
    failures: dict[str, str] = field(default_factory=dict)
    known_failures: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def progress(self) -> IndexProgress:
        """A snapshot."""
        return IndexProgress(
            total=self.total,
            encoded=self.encoded,
            unchanged=self.unchanged + self.updated,
            failed=len(self.failures),
            audio_seconds=self.audio_seconds + self.reached_seconds,
            elapsed_seconds=time.monotonic() - self._started,
        )

    def summary(self, rows: int, skipped: tuple[str, ...]) -> IndexSummary:
        """The result, for a collection that now has so many rows."""
        return IndexSummary(
            added=self.added,
            replaced=self.replaced,
            unchanged=self.unchanged + self.written_by_others,
            updated=self.updated,
            rows=rows,
            audio_seconds=self.audio_seconds,
            elapsed_seconds=time.monotonic() - self._started,
            failures=dict(self.failures),
            known_failures=tuple(self.known_failures),
            skipped=skipped,
        )
