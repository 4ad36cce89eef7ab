"""Recordings → rows of a collection: resumed where it ended, each recording whole or not at all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_listing import SourceListing
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.inference.pooling import Pooled, Pooling
from qwen_audio.inference.reader import Reading, read

from .progress import IndexingProgress, IndexProgress, IndexSummary
from .records import (
    PendingSource,
    SourceVersion,
    arrow_rows,
    failed_states,
    fitted,
    known_extras,
    known_states,
    window_rows,
)
from .table import WindowTable, sql_text

if TYPE_CHECKING:
    from lancedb.table import Table

    from qwen_audio.api.model import AudioModel

__all__ = ["fill", "pooled_windows"]

_ROWS_A_COMMIT = 512
_SECONDS_A_COMMIT = 2.0
"""Whichever comes first is written: what a kill can lose besides the batch that is computed."""
_COMMITS_A_TIDY = 200
"""Every commit adds files to the table; so many of them are put together."""


def fill(
    collection: WindowTable,
    model: AudioModel,
    found: SourceListing,
    *,
    retry: bool = False,
    on_progress: Callable[[IndexProgress], None] | None = None,
) -> IndexSummary:
    """Add windows of all recordings that `find_sources` found.

    What is there and unchanged (by size and time, else by hash) is not heard again, though what a
    manifest says of it is written anew where it differs; what has changed is replaced; what failed
    before is tried again when it has changed, or with `retry`. Columns that a manifest does not
    have stay as they are.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for a column of a manifest that can't stand in the collection.
    """
    spec = collection.spec
    collection.check(model.spec(**spec.options))
    tap, how = model.dimensions.tap(spec.tap), _pooling(spec)
    examples = _examples(found.sources)
    collection.add_columns(examples)
    sources = list(fitted(found.sources, collection.table.schema))
    run = _Run(collection, tuple(examples), len(sources), retry, on_progress)
    work = run.work(sources)
    readings = read(
        model.pipeline,
        (item.open for item in work),
        [tap],
        how.window,
        prompt_text=spec.prompt,
        window_config=WindowConfig(spec.window_seconds, spec.hop_seconds),
        question=model.pipeline.prompts.render(None) if collection.describes else None,
    )
    try:
        for reading in readings:
            run.take(reading, lambda kept: how.recording([kept[tap]]))
    finally:
        run.commit()
    return run.summary(found.skipped)


def pooled_windows(
    model: AudioModel, audio: Any, spec: EmbeddingSpec, config: WindowConfig
) -> list[Float32[np.ndarray, "width"]]:
    """The vectors of one recording's windows, as `fill` makes them.

    Raises:
        AudioError: if it can't be heard.
    """
    tap, how = model.dimensions.tap(spec.tap), _pooling(spec)
    (reading,) = read(
        model.pipeline, [audio], [tap], how.window, prompt_text=spec.prompt, window_config=config
    )
    if isinstance(reading, AudioError):
        raise reading
    return [how.recording([kept[tap]]) for kept in reading.kept]


def _pooling(spec: EmbeddingSpec) -> Pooling:
    options = spec.options
    return Pooling(options["pooling"], options["span"])


class _Run:
    def __init__(
        self,
        collection: WindowTable,
        columns: tuple[str, ...],
        total: int,
        retry: bool,
        on_progress: Callable[[IndexProgress], None] | None,
    ) -> None:
        self._collection, self._columns, self._retry = collection, columns, retry
        self._on_progress = on_progress
        self._known = known_states(collection)
        self._said = known_extras(collection, columns)
        self._failing = failed_states(collection)
        self._tally = IndexingProgress(total)
        self._committed = time.monotonic()
        self._commits = 0
        self._begun: deque[PendingSource] = deque()
        self._rows: list[dict[str, Any]] = []
        self._new: list[PendingSource] = []
        self._failed: list[tuple[PendingSource, str]] = []
        self._notes: list[dict[str, Any]] = []

    def work(self, sources: Iterable[Source]) -> Iterator[PendingSource]:
        """What is to be heard, in order; the rest is settled on the way."""
        for source in sources:
            known = self._known.get(source.uri)
            try:
                state = SourceVersion(*source.stat())
            except AudioError as error:
                self._tally.failures[source.uri] = str(error)
                self._failed.append(
                    (PendingSource(source, SourceVersion(-1, ""), False), str(error))
                )
                continue
            if known is not None and (known.bytes, known.changed) == (state.bytes, state.changed):
                self._leave(source, known, known)
                continue
            failing = self._failing.get(source.uri)
            if failing and not self._retry and failing[0] == state:
                self._tally.failures[source.uri] = failing[1]
                continue
            item = PendingSource(source, state, known is not None)
            if known is not None and known.bytes == state.bytes and self._same(item, known):
                self._leave(source, known, state)
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
        if self._new or self._notes:
            with self._collection.writing() as table:
                there = known_states(self._collection, [item.source.uri for item in self._new])
                rows = [
                    row
                    for row in self._rows  # another indexer may have been faster
                    if there.get(row["source"], SourceVersion(0, "")).content_hash
                    != row["content_hash"]
                ]
                sources = sorted({row["source"] for row in rows})
                replaced = [source for source in sources if source in there]
                said = known_extras(self._collection, self._collection.further_columns, replaced)
                rows = [{**said.get(row["source"], {}), **row} for row in rows]
                batch = arrow_rows(table.schema, rows)
                if replaced:
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
                if self._notes:
                    self._write_notes(table)
            self._tally.added += sum(not item.known for item in self._new)
            self._tally.replaced += sum(item.known for item in self._new)
        self._note_failures()
        self._rows, self._new, self._notes, self._failed = [], [], [], []
        self._committed = time.monotonic()
        self._commits += 1
        if self._commits % _COMMITS_A_TIDY == 0:
            with self._collection.writing() as table:
                table.optimize()

    def summary(self, skipped: tuple[str, ...]) -> IndexSummary:
        """After the last commit."""
        return self._tally.summary(self._collection.count(), skipped)

    def _same(self, item: PendingSource, known: SourceVersion) -> bool:
        """Whether a source that was touched still has the content it had."""
        try:
            item.open()
        except AudioError:
            return False
        return item.state.content_hash == known.content_hash

    def _leave(self, source: Source, known: SourceVersion, now: SourceVersion) -> None:
        """Its bytes are those of before: at most its time, or what is said of it, is another."""
        said = self._said.get(source.uri, {})
        differs = any(not _same_value(value, said[name]) for name, value in source.extra.items())
        if differs or known.changed != now.changed:
            note = {"source": source.uri, "source_changed": now.changed}
            self._notes.append({**note, **said, **source.extra})
        if differs:
            self._tally.updated += 1
        else:
            self._tally.unchanged += 1

    def _write_notes(self, table: Table) -> None:
        """Of all windows of a recording, in one transaction."""
        import pyarrow as pa

        names = ("source", "source_changed", *self._columns)
        schema = pa.schema([table.schema.field(name) for name in names])
        notes = pa.Table.from_pylist(self._notes, schema)
        table.merge_insert("source").when_matched_update_all().execute(notes)

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


def _same_value(one: ColumnValue, other: ColumnValue) -> bool:
    return one == other or (one != one and other != other)  # NaN is what differs from itself


def _examples(sources: Iterable[Source]) -> dict[str, ColumnValue]:
    """Of every further column of the manifests a value that says its type."""
    examples: dict[str, ColumnValue] = {}
    for source in sources:
        for name, value in source.extra.items():
            if value is None or isinstance(examples.get(name), str):
                continue
            if name in examples and type(value) is not type(examples[name]):
                numbers = {type(value), type(examples[name])} <= {int, float}
                value = 0.0 if numbers else ""
            examples[name] = value
    return examples
