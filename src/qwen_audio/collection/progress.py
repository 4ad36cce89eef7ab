"""How far the filling of a collection is, and what it did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["IndexProgress", "IndexSummary", "IndexingProgress"]


@dataclass(frozen=True)
class IndexProgress:
    """How far it is: recordings heard, unchanged and failed, of `total`; seconds of audio."""

    total: int
    heard: int
    unchanged: int
    failed: int
    audio_seconds: float
    elapsed_seconds: float


@dataclass(frozen=True)
class IndexSummary:
    """What was done.

    Attributes:
        unchanged: recordings that were there already, as they are.
        updated: the same, but for what a manifest says of them, which was written anew.
        failures: source → why it can't be heard, those of earlier runs that haven't changed too.
        passed_over: files in the folders that are no audio by their suffix.
    """

    added: int
    replaced: int
    unchanged: int
    updated: int
    rows: int
    audio_seconds: float
    elapsed_seconds: float
    failures: Mapping[str, str]
    skipped: tuple[str, ...]


@dataclass
class IndexingProgress:
    """Counted while it goes on."""

    total: int
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    updated: int = 0
    heard: int = 0
    audio_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def progress(self) -> IndexProgress:
        """Now."""
        return IndexProgress(
            total=self.total,
            heard=self.heard,
            unchanged=self.unchanged + self.updated,
            failed=len(self.failures),
            audio_seconds=self.audio_seconds,
            elapsed_seconds=time.monotonic() - self._started,
        )

    def summary(self, rows: int, skipped: tuple[str, ...]) -> IndexSummary:
        """At the end, when the collection has so many rows."""
        return IndexSummary(
            added=self.added,
            replaced=self.replaced,
            unchanged=self.unchanged,
            updated=self.updated,
            rows=rows,
            audio_seconds=self.audio_seconds,
            elapsed_seconds=time.monotonic() - self._started,
            failures=dict(self.failures),
            skipped=skipped,
        )
