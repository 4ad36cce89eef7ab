"""Indexing: recordings → rows of a collection; resumable, each recording complete or absent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.damage import without_partial_advice
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_content import SourceVersion, hash_source
from qwen_audio.audio.source_listing import SourceListing
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import AudioError, CollectionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec

from .columns import plan_columns
from .progress import IndexCounter, IndexProgress, IndexSummary
from .records import (
    PendingSource,
    failed_versions,
    indexed_versions,
    manifest_values,
    recording_rows,
)
from .table import WindowTable
from .writer import IndexWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from qwen_audio.api.model import AudioModel
    from qwen_audio.inference.pooling import PooledWindow, Pooling
    from qwen_audio.inference.reader import CapturedRecording

__all__ = ["encode_windows", "index_sources"]


def index_sources(
    collection: WindowTable,
    model: AudioModel,
    found: SourceListing,
    *,
    retry: bool = False,
    on_progress: Callable[[IndexProgress], None] | None = None,
) -> IndexSummary:
    """Add the windows of all recordings that `find_sources` found.

    Recordings that are unchanged (same size and modification time, else same hash) are not encoded
    again, but manifest columns that differ are updated. Changed recordings are replaced. Failed
    ones are tried again when they have changed, or with `retry`. Columns that a manifest does not
    have stay as they are.

    A recording that overflows in the collection's dtype is a failed one if others don't. Where the
    first recordings of a collection all do, nothing is written: see `hold_overflows`.

    Raises:
        CollectionError: if the model is not the one of the collection.
        OptionError: for a manifest column that can't be stored in the collection, or a model that
            overflows in float16.
        CheckpointError: for a model that overflows in another dtype.
        NotFiniteError: for the only recording, if it overflows.
    """
    from qwen_audio.inference.reader import capture_recordings

    spec = collection.spec
    collection.check(model.spec(**spec.options))
    tap, pooling = model.dimensions.tap(spec.tap), _pooling(spec)
    collection.table.checkout_latest()
    new, columns, sources = plan_columns(found.sources, collection.table.schema)
    run = _IndexRun(collection, columns, new, len(sources), retry, on_progress)
    window_config = model.pipeline.window_config(spec.window_seconds, spec.hop_seconds)
    options = (window_config, spec.track, model.pipeline.new_peak)
    readings = capture_recordings(
        model.pipeline,
        (partial(pending.windows, *options) for pending in run.pending(sources)),
        [tap],
        pooling.pool_window,
        prompt_text=spec.prompt,
        window_config=window_config,
        caption_prompt=model.pipeline.tokenizer.render(None) if collection.has_captions else None,
        is_proven=collection.count() > 0,
        on_window=run.reached,
    )
    try:
        for reading in readings:
            run.add(reading, lambda pooled: pooling.combine([pooled[tap]]))
    except BaseException:
        with suppress(CollectionError):  # which would hide the error
            run.writer.commit()
        raise
    run.writer.commit()
    return run.summary(found.skipped)


def encode_windows(
    model: AudioModel, audio: Any, spec: EmbeddingSpec
) -> list[Float32[np.ndarray, "width"]]:
    """The vectors of one recording's windows, encoded as `index_sources` does.

    Raises:
        AudioError: if it can't be decoded.
    """
    from qwen_audio.inference.reader import capture_recordings

    tap, pooling = model.dimensions.tap(spec.tap), _pooling(spec)
    window_config = model.pipeline.window_config(spec.window_seconds, spec.hop_seconds)
    (reading,) = capture_recordings(
        model.pipeline,
        [audio],
        [tap],
        pooling.pool_window,
        prompt_text=spec.prompt,
        window_config=window_config,
        load_options=LoadOptions(track=None if isinstance(audio, Waveform) else spec.track),
    )
    if isinstance(reading, AudioError):
        raise reading
    return [pooling.combine([pooled[tap]]) for pooled in reading.outputs]


def _pooling(spec: EmbeddingSpec) -> Pooling:
    from qwen_audio.inference.pooling import Pooling

    options = spec.options
    return Pooling(options["pooling"], options["span"])


class _IndexRun:
    """State of one index operation: what is stored, and what is being encoded.

    Args:
        columns: manifest columns of this run.
        new_columns: those of them that the table lacks.
        total: number of recordings.
    """

    def __init__(
        self,
        collection: WindowTable,
        columns: tuple[str, ...],
        new_columns: list[pa.Field],
        total: int,
        retry: bool,
        on_progress: Callable[[IndexProgress], None] | None,
    ) -> None:
        self._collection, self._retry = collection, retry
        self._on_progress = on_progress
        self._indexed = indexed_versions(collection)
        stored = [name for name in columns if name in collection.table.schema.names]
        self._stored_values = manifest_values(collection, stored)
        self._failed_before = failed_versions(collection)
        self._counter = IndexCounter(total)
        self._in_progress: deque[PendingSource] = deque()
        self.writer = IndexWriter(collection, new_columns, self._counter)

    def pending(self, sources: Iterable[Source]) -> Iterator[PendingSource]:
        """The sources to encode, in order; unchanged and unreachable ones are settled here."""
        for source in sources:
            pending = self._settle(source)
            if pending is None:
                self._report()
            else:
                self._in_progress.append(pending)
                yield pending

    def _settle(self, source: Source) -> PendingSource | None:
        """None for a source that is unchanged or can't be reached; else it is to be encoded."""
        indexed = self._indexed.get(source.uri)
        try:
            version = SourceVersion(*source.stat())
        except AudioError as error:
            self._fail(PendingSource(source, SourceVersion(-1, "")), error)
            return None
        if indexed is not None and (indexed.size_bytes, indexed.modified) == (
            version.size_bytes,
            version.modified,
        ):
            self._keep(source, indexed, version)
            return None
        failed_before = self._failed_before.get(source.uri)
        if failed_before and not self._retry and failed_before[0] == version:
            self._counter.failures[source.uri] = failed_before[1]
            self._counter.known_failures.append(source.uri)
            return None
        if (
            indexed is not None
            and indexed.size_bytes == version.size_bytes
            and _has_content(source, indexed)
        ):
            self._keep(source, indexed, version)
            return None
        return PendingSource(source, version)

    def add(
        self,
        reading: CapturedRecording[PooledWindow] | AudioError,
        vector_of: Callable[[dict[Any, PooledWindow]], np.ndarray],
    ) -> None:
        """Queue the rows, or the error, of the next recording that `pending` gave."""
        pending = self._in_progress.popleft()
        self._counter.reached_seconds = 0.0
        try:
            if isinstance(reading, AudioError):
                raise reading
            rows = list(recording_rows(pending, reading, vector_of))
        except AudioError as error:
            self._fail(pending, error)
        else:
            self.writer.add_recording(pending, rows)
            self._counter.encoded += 1
            self._counter.audio_seconds += reading.recording.duration_seconds
        self.writer.commit_if_due()
        self._report()

    def reached(self, end_seconds: float) -> None:
        """The recording that is being encoded is done up to this second."""
        self._counter.reached_seconds = end_seconds
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._counter.progress())

    def summary(self, skipped: tuple[str, ...]) -> IndexSummary:
        """The result, after the last commit."""
        return self._counter.summary(self._collection.count(), skipped)

    def _fail(self, pending: PendingSource, error: AudioError) -> None:
        reason = without_partial_advice(str(error))
        self._counter.failures[pending.source.uri] = reason
        if self._failed_before.get(pending.source.uri, (None,))[0] == pending.version:
            self._counter.known_failures.append(pending.source.uri)
        self.writer.add_failure(pending, reason)

    def _keep(self, source: Source, indexed: SourceVersion, version: SourceVersion) -> None:
        """Keep the rows of unchanged content; update time and manifest columns if they differ."""
        stored = self._stored_values.get(source.uri, {})
        differs = any(not _equal(value, stored.get(name)) for name, value in source.extra.items())
        if differs or indexed.modified != version.modified:
            row = {"source": source.uri, "source_changed": version.modified}
            self.writer.add_update({**row, **source.extra})
        if source.uri in self._failed_before:  # repaired, or there again
            self.writer.add_repaired(source.uri)
        if differs:
            self._counter.updated += 1
        else:
            self._counter.unchanged += 1


def _has_content(source: Source, indexed: SourceVersion) -> bool:
    """Whether a source whose modification time differs has the hash it had."""
    try:
        return hash_source(source) == indexed.content_hash
    except AudioError:
        return False


def _equal(one: ColumnValue, other: ColumnValue) -> bool:
    return one == other or (one != one and other != other)  # NaN equals NaN here
