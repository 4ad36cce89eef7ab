"""Indexing: plan, encode, commit; resumable, each recording complete or absent.

`IndexPlan` says which sources are to be encoded, an `Engine` encodes them, in this process or on
other machines, and `IndexWriter` commits their rows. Only the process that was asked plans and
commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from qwen_audio.audio.source_listing import SourceListing
from qwen_audio.errors import AudioError, CollectionError

from .columns import plan_columns
from .encoding import EncodingSettings, PendingSource
from .engines.engine import Engine
from .planning import IndexPlan
from .progress import IndexCounter, IndexProgress, IndexSummary
from .schema import standard_schema
from .table import WindowTable
from .writer import IndexWriter

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["index_sources"]


def index_sources(
    collection: WindowTable,
    model: AudioModel,
    found: SourceListing,
    engine: Engine,
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
        OptionError: for a manifest column that can't be stored in the collection, a model that
            overflows in float16, or an engine that can't run.
        CheckpointError: for a model that overflows in another dtype.
        NotFiniteError: for the only recording, if it overflows.
    """
    spec = collection.spec
    collection.check(model.spec(**spec.options))
    collection.table.checkout_latest()
    new, columns, sources = plan_columns(found.sources, collection.table.schema)
    counter = IndexCounter(len(sources))
    writer = IndexWriter(collection, new, counter)
    plan = IndexPlan(collection, columns, writer, counter, retry=retry)
    settings = EncodingSettings(
        spec,
        standard_schema(collection.table.schema),
        collection.has_captions,
        is_proven=collection.count() > 0,
    )

    def report() -> None:
        if on_progress is not None:
            on_progress(counter.progress())

    def pending() -> Iterator[PendingSource]:
        for source in sources:
            item = plan.settle(source)
            if item is None:
                report()
            else:
                yield item

    def reached(end_seconds: float) -> None:
        counter.reached_seconds = end_seconds
        report()

    with closing(engine.encode(model, settings, pending(), reached)) as results:
        try:
            for item, result in results:
                counter.reached_seconds = 0.0
                if isinstance(result, AudioError):
                    plan.fail(item, result)
                else:
                    writer.add_recording(item.source, result)
                    counter.encoded += 1
                    counter.audio_seconds += result.duration_seconds
                writer.commit_if_due()
                report()
        except BaseException:
            with suppress(CollectionError):  # which would hide the error
                writer.commit()
            raise
    writer.commit()
    return counter.summary(collection.count(), found.skipped)
