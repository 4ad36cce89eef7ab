"""Recordings → rows of a collection: resumed where it ended, each recording whole or not at all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from .audio import Windowing
from .entries import State, Work, arrow_rows, failed_states, fitted, known_states, window_rows
from .errors import AudioError
from .pooling import Pooled, Pooling
from .reading import Reading, read
from .rows import Rows, sql_text
from .sources import Source, Value, find_sources
from .spec import Spec
from .tally import IndexProgress, IndexSummary, Tally

if TYPE_CHECKING:
    from lancedb.table import Table

    from .model import QwenAudio

__all__ = ["fill", "pooled_windows"]

_ROWS_A_COMMIT = 512
_SECONDS_A_COMMIT = 2.0
"""Whichever comes first is written: what a kill can lose besides the batch that is computed."""
_COMMITS_A_TIDY = 200
"""Every commit adds files to the table; so many of them are put together."""


def fill(
    collection: Rows,
    model: QwenAudio,
    inputs: Iterable[str | Path | Mapping[str, Value]],
    *,
    retry: bool = False,
    on_progress: Callable[[IndexProgress], None] | None = None,
) -> IndexSummary:
    """Add windows of all recordings that `find_sources` finds in the inputs.

    What is there and unchanged (by size and time, else by hash) is skipped; what has changed is
    replaced; what failed before is tried again when it has changed, or with `retry`.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for inputs that name nothing.
    """
    spec = collection.spec
    collection.check(model.spec(**spec.options))
    found = find_sources(inputs)
    tap, how = model.geometry.tap(spec.tap), _pooling(spec)
    collection.add_columns(_examples(found.sources))
    sources = list(fitted(found.sources, collection.table.schema))
    run = _Run(collection, len(sources), retry, on_progress)
    work = run.work(sources)
    readings = read(
        model._line,
        (item.open for item in work),
        [tap],
        how.window,
        rendered=spec.prompt,
        windowing=Windowing(spec.window_seconds, spec.hop_seconds),
        question=model._line.prompts.render(None) if collection.describes else None,
    )
    try:
        for reading in readings:
            run.take(reading, lambda kept: how.recording([kept[tap]]))
    finally:
        run.commit()
    return run.summary(found.passed_over)


def pooled_windows(
    model: QwenAudio, audio: Any, spec: Spec, windowing: Windowing
) -> list[Float32[np.ndarray, "width"]]:
    """The vectors of one recording's windows, as `fill` makes them.

    Raises:
        AudioError: if it can't be heard.
    """
    tap, how = model.geometry.tap(spec.tap), _pooling(spec)
    (reading,) = read(
        model._line, [audio], [tap], how.window, rendered=spec.prompt, windowing=windowing
    )
    if isinstance(reading, AudioError):
        raise reading
    return [how.recording([kept[tap]]) for kept in reading.kept]


def _pooling(spec: Spec) -> Pooling:
    options = spec.options
    return Pooling(options["pooling"], options["span"])


class _Run:
    def __init__(
        self,
        collection: Rows,
        total: int,
        retry: bool,
        on_progress: Callable[[IndexProgress], None] | None,
    ) -> None:
        self._collection, self._retry = collection, retry
        self._on_progress = on_progress
        self._known = known_states(collection)
        self._failing = failed_states(collection)
        self._tally = Tally(total)
        self._committed = time.monotonic()
        self._commits = 0
        self._begun: deque[Work] = deque()
        self._rows: list[dict[str, Any]] = []
        self._new: list[Work] = []
        self._failed: list[tuple[Work, str]] = []
        self._touched: list[Work] = []

    def work(self, sources: Iterable[Source]) -> Iterator[Work]:
        """What is to be heard, in order; the rest is settled on the way."""
        for source in sources:
            known = self._known.get(source.uri)
            try:
                state = State(*source.state())
            except AudioError as error:
                self._tally.failures[source.uri] = str(error)
                self._failed.append((Work(source, State(-1, ""), False), str(error)))
                continue
            if known is not None and (known.bytes, known.changed) == (state.bytes, state.changed):
                self._tally.unchanged += 1
                continue
            failing = self._failing.get(source.uri)
            if failing and not self._retry and failing[0] == state:
                self._tally.failures[source.uri] = failing[1]
                continue
            item = Work(source, state, known is not None)
            if known is not None and known.bytes == state.bytes and self._same(item, known):
                self._tally.unchanged += 1
                self._touched.append(item)
                continue
            self._begun.append(item)
            yield item

    def take(
        self,
        reading: Reading[Pooled] | AudioError,
        vector_of: Callable[[dict[Any, Pooled]], np.ndarray],
    ) -> None:
        """Keep a recording's rows, or why there are none; write when enough has come together."""
        item = self._begun.popleft()
        if isinstance(reading, AudioError):
            self._tally.failures[item.source.uri] = str(reading)
            self._failed.append((item, str(reading)))
        else:
            self._rows += window_rows(item, reading, vector_of)
            self._new.append(item)
            self._tally.heard += 1
            self._tally.audio_seconds += reading.recording.duration_seconds
        late = time.monotonic() - self._committed > _SECONDS_A_COMMIT
        if late or len(self._rows) >= _ROWS_A_COMMIT:
            self.commit()
        if self._on_progress is not None:
            self._on_progress(self._tally.progress())

    def commit(self) -> None:
        """Write what waits: new rows and what they replace in one transaction."""
        if self._new or self._touched:
            with self._collection.writing() as table:
                there = known_states(self._collection, [item.source.uri for item in self._new])
                rows = [
                    row
                    for row in self._rows  # another indexer may have been faster
                    if there.get(row["source"], State(0, "")).content_hash != row["content_hash"]
                ]
                sources = sorted({row["source"] for row in rows})
                batch = arrow_rows(table.schema, rows)
                if rows and any(source in there for source in sources):
                    listed = ", ".join(map(sql_text, sources))
                    (
                        table.merge_insert(["source", "window"])
                        .when_matched_update_all()
                        .when_not_matched_insert_all()
                        .when_not_matched_by_source_delete(f"source IN ({listed})")
                        .execute(batch)
                    )
                elif rows:
                    table.add(batch)
                for start in range(0, len(self._touched), _ROWS_A_COMMIT):
                    self._note_times(table, self._touched[start : start + _ROWS_A_COMMIT])
            self._tally.added += sum(not item.known for item in self._new)
            self._tally.replaced += sum(item.known for item in self._new)
        self._note_failures()
        self._rows, self._new, self._touched, self._failed = [], [], [], []
        self._committed = time.monotonic()
        self._commits += 1
        if self._commits % _COMMITS_A_TIDY == 0:
            with self._collection.writing() as table:
                table.optimize()

    def summary(self, passed_over: tuple[str, ...]) -> IndexSummary:
        """After the last commit."""
        return self._tally.summary(self._collection.count(), passed_over)

    def _same(self, item: Work, known: State) -> bool:
        """Whether a source that was touched still has the content it had."""
        try:
            item.open()
        except AudioError:
            return False
        return item.state.content_hash == known.content_hash

    def _note_times(self, table: Table, items: list[Work]) -> None:
        """Their bytes are those of before: the next run need not read them to know."""
        times = [
            {"source": item.source.uri, "source_changed": item.state.changed} for item in items
        ]
        table.merge_insert("source").when_matched_update_all().execute(times)

    def _note_failures(self) -> None:
        settled = [item.source.uri for item in self._new if item.source.uri in self._failing]
        if not (self._failed or settled):
            return
        now = datetime.now(UTC)
        rows = [
            {
                "source": item.source.uri,
                "reason": reason,
                "source_bytes": item.state.bytes,
                "source_changed": item.state.changed,
                "failed_at": now,
            }
            for item, reason in self._failed
        ]
        with self._collection.writing():
            table = self._collection.failures
            if rows:
                merge = table.merge_insert("source").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(rows)
            if settled:
                table.delete(f"source IN ({', '.join(map(sql_text, settled))})")


def _examples(sources: Iterable[Source]) -> dict[str, Value]:
    """Of every further column of the manifests a value that says its type."""
    examples: dict[str, Value] = {}
    for source in sources:
        for name, value in source.extra.items():
            if value is None or isinstance(examples.get(name), str):
                continue
            if name in examples and type(value) is not type(examples[name]):
                numbers = {type(value), type(examples[name])} <= {int, float}
                value = 0.0 if numbers else ""
            examples[name] = value
    return examples
