"""Recordings → rows of a collection: resumed where it ended, each recording whole or not at all."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from .audio import Windowing
from .errors import AudioError
from .pooling import Pooled, Pooling
from .reading import Reading, read
from .rows import Rows, sql_text
from .sources import Source, Value, find_sources
from .spec import Spec

if TYPE_CHECKING:
    import pyarrow as pa

    from .model import QwenAudio

__all__ = ["IndexProgress", "IndexSummary", "fill", "pooled_windows"]

_ROWS_A_COMMIT = 512
_SECONDS_A_COMMIT = 2.0
"""Whichever comes first is written: what a kill can lose besides the batch that is computed."""
_COMMITS_A_TIDY = 200
"""Every commit adds files to the table; so many of them are put together."""


@dataclass(frozen=True)
class IndexProgress:
    """How far it is: recordings heard, unchanged and failed, of `total`; seconds of audio."""

    total: int
    heard: int = 0
    unchanged: int = 0
    failed: int = 0
    audio_seconds: float = 0.0
    elapsed_seconds: float = 0.0


@dataclass(frozen=True)
class IndexSummary:
    """What `fill` did.

    Attributes:
        failures: source → why it can't be heard, those of earlier runs that haven't changed too.
        passed_over: files in the folders that are no audio by their suffix.
    """

    added: int
    replaced: int
    unchanged: int
    rows: int
    audio_seconds: float
    elapsed_seconds: float
    failures: Mapping[str, str]
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class _State:
    """Which version of a source is meant."""

    bytes: int
    changed: str
    content_hash: str = ""


@dataclass
class _Tally:
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    heard: int = 0
    audio_seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)


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
    run = _Run(collection, len(found.sources), retry, on_progress)
    work = run.work(found.sources)
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


class _Work:
    """One recording that is to be heard."""

    def __init__(self, source: Source, state: _State, known: bool) -> None:
        self.source, self.state, self.known = source, state, known

    def open(self) -> Any:
        """Called in a thread when its turn comes."""
        audio, digest = self.source.content()
        self.state = replace(self.state, content_hash=digest)
        return audio


class _Run:
    def __init__(
        self,
        collection: Rows,
        total: int,
        retry: bool,
        on_progress: Callable[[IndexProgress], None] | None,
    ) -> None:
        self._collection, self._total, self._retry = collection, total, retry
        self._on_progress = on_progress
        self._known = _known(collection)
        self._failing = _failing(collection)
        self._tally = _Tally()
        self._started = self._committed = time.monotonic()
        self._commits = 0
        self._begun: deque[_Work] = deque()
        self._rows: list[dict[str, Any]] = []
        self._new: list[_Work] = []
        self._failed: list[tuple[_Work, str]] = []
        self._touched: list[_Work] = []

    def work(self, sources: Iterable[Source]) -> Iterator[_Work]:
        """What is to be heard, in order; the rest is settled on the way."""
        for source in sources:
            known = self._known.get(source.uri)
            try:
                state = _State(*source.state())
            except AudioError as error:
                self._tally.failures[source.uri] = str(error)
                self._failed.append((_Work(source, _State(-1, ""), False), str(error)))
                continue
            if known is not None and (known.bytes, known.changed) == (state.bytes, state.changed):
                self._tally.unchanged += 1
                continue
            failing = self._failing.get(source.uri)
            if failing and not self._retry and failing[0] == state:
                self._tally.failures[source.uri] = failing[1]
                continue
            item = _Work(source, state, known is not None)
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
            self._rows += _rows(item, reading, vector_of)
            self._new.append(item)
            self._tally.heard += 1
            self._tally.audio_seconds += reading.recording.duration_seconds
        late = time.monotonic() - self._committed > _SECONDS_A_COMMIT
        if late or len(self._rows) >= _ROWS_A_COMMIT:
            self.commit()
        self._report()

    def commit(self) -> None:
        """Write what waits: new rows and what they replace in one transaction."""
        if self._new or self._touched:
            with self._collection.writing() as table:
                there = _known(self._collection, [item.source.uri for item in self._new])
                rows = [
                    row
                    for row in self._rows  # another indexer may have been faster
                    if there.get(row["source"], _State(0, "")).content_hash != row["content_hash"]
                ]
                sources = sorted({row["source"] for row in rows})
                batch = self._arrow(rows)
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
                for item in self._touched:
                    table.update(
                        where=f"source = {sql_text(item.source.uri)}",
                        values={"source_changed": item.state.changed},
                    )
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
        tally = self._tally
        return IndexSummary(
            added=tally.added,
            replaced=tally.replaced,
            unchanged=tally.unchanged,
            rows=self._collection.count(),
            audio_seconds=tally.audio_seconds,
            elapsed_seconds=time.monotonic() - self._started,
            failures=dict(tally.failures),
            passed_over=passed_over,
        )

    def _same(self, item: _Work, known: _State) -> bool:
        """Whether a source that was touched still has the content it had."""
        try:
            item.open()
        except AudioError:
            return False
        return item.state.content_hash == known.content_hash

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

    def _arrow(self, rows: list[dict[str, Any]]) -> pa.Table:
        import pyarrow as pa

        schema = self._collection.table.schema
        columns = []
        for column in schema:
            values: list[Any] = [row.get(column.name) for row in rows]
            if column.name == "vector":
                flat = np.concatenate(values) if values else np.zeros(0, np.float32)
                numbers = pa.array(flat.astype(column.type.value_type.to_pandas_dtype()))
                columns.append(pa.FixedSizeListArray.from_arrays(numbers, column.type.list_size))
            else:
                columns.append(pa.array(values, column.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def _report(self) -> None:
        if self._on_progress is not None:
            tally = self._tally
            self._on_progress(
                IndexProgress(
                    total=self._total,
                    heard=tally.heard,
                    unchanged=tally.unchanged,
                    failed=len(tally.failures),
                    audio_seconds=tally.audio_seconds,
                    elapsed_seconds=time.monotonic() - self._started,
                )
            )


def _rows(
    item: _Work, reading: Reading[Pooled], vector_of: Callable[[dict[Any, Pooled]], np.ndarray]
) -> Iterator[dict[str, Any]]:
    about, now = reading.recording, datetime.now(UTC)
    for number, (window, kept) in enumerate(zip(reading.windows, reading.kept, strict=True)):
        vector = vector_of(kept).astype(np.float64)
        norm = math.sqrt(float(vector @ vector))
        yield {
            **item.source.extra,
            "source": item.source.uri,
            "window": number,
            "start_seconds": window.start_seconds,
            "end_seconds": window.end_seconds,
            "duration_seconds": about.duration_seconds,
            "sampling_rate": about.rate_hz,
            "channels": about.channels,
            "format": about.format,
            "title": about.tags.get("title"),
            "artist": about.tags.get("artist"),
            "album": about.tags.get("album"),
            "caption": reading.said[number] if reading.said else None,
            "source_bytes": item.state.bytes,
            "source_changed": item.state.changed,
            "content_hash": item.state.content_hash,
            "indexed_at": now,
            "norm": norm,
            "vector": (vector / max(norm, 1e-30)).astype(np.float32),
        }


def _known(collection: Rows, sources: list[str] | None = None) -> dict[str, _State]:
    """Which version of each source is in the collection."""
    where = '"window" = 0'
    if sources is not None:
        if not sources:
            return {}
        where += f" AND source IN ({', '.join(map(sql_text, sources))})"
    names = ("source", "source_bytes", "source_changed", "content_hash")
    table = collection.columns(names, where)
    uris, *states = (table[name].to_pylist() for name in names)
    return {uri: _State(*state) for uri, *state in zip(uris, *states, strict=True)}


def _failing(collection: Rows) -> dict[str, tuple[_State, str]]:
    table = collection.failures.to_arrow()
    names = ("source", "source_bytes", "source_changed", "reason")
    columns = (table[name].to_pylist() for name in names)
    return {
        uri: (_State(size, changed), reason)
        for uri, size, changed, reason in zip(*columns, strict=True)
    }


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
