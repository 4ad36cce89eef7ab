"""Collection: recordings in one LanceDB table that can be searched, resumed and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.source_listing import SourceListing, find_sources
from qwen_audio.inference.progress_bars import OnProgress

from .base import CollectionBase
from .creation import create_table
from .engines.engine import open_engine
from .indexing import index_sources
from .indices import update_indices
from .progress import IndexProgress, IndexSummary, index_bar
from .search import check_query, search_by_audio, search_by_row, search_by_vector, search_by_words
from .search_results import SearchResult, SearchResults
from .table import WindowTable

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.inputs import AudioInput

    from .projection import Projection
    from .rows import CollectionRows

__all__ = ["DEFAULT_WINDOW_SECONDS", "Collection"]

DEFAULT_WINDOW_SECONDS = 10.0
"""Short enough to locate a sound in a recording, long enough for a meaningful vector."""


class Collection(CollectionBase):
    """Windows of recordings and their vectors in one LanceDB table, all with one embedding spec.

    Made by `create` or `open`, which need the extra `collections`. The table itself, for LanceDB's
    own API, is `table`.
    """

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: AudioModel | None = None,
        *,
        storage_options: Mapping[str, str] | None = None,
    ) -> Collection:
        """The collection in a folder, or on object storage (`s3://…`, `gs://…`, `az://…`).

        Args:
            storage_options: of object storage, as LanceDB takes them, such as {"endpoint": …};
                what they leave out comes from environment variables.

        Raises CollectionError if there is none, or it can't be reached.
        """
        return cls(WindowTable.open(path, storage_options), model)

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: AudioModel,
        *,
        describe: bool = False,
        float32: bool = False,
        window_seconds: float = DEFAULT_WINDOW_SECONDS,
        storage_options: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Collection:
        """An empty collection, at a path or URI that ends in .lance.

        Args:
            describe: also caption every window.
            float32: store vectors in float32 instead of float16.
            storage_options: see `open`.
            options: tap, pooling, span, prompt, hop_seconds and track, as `AudioModel.encode` takes
                them.

        Raises:
            CollectionError: if there is one already, or it can't be written.
            OptionError: for settings that give no vector per window.
        """
        table = create_table(
            path,
            model,
            {"window_seconds": window_seconds, **options},
            has_captions=describe,
            float32=float32,
            storage_options=storage_options,
        )
        return cls(table, model)

    def index(
        self,
        inputs: str | Path | SourceListing | Iterable[str | Path | Mapping[str, Any]],
        *,
        engine: str | None = None,
        address: str | None = None,
        workers: int | None = None,
        cpus_per_worker: int | None = None,
        gpus_per_worker: float | None = None,
        retry: bool = False,
        on_progress: Callable[[IndexProgress], None] | None = None,
        progress: bool | None = None,
    ) -> IndexSummary:
        """Add recordings: folders, files, patterns, manifests (.csv, .jsonl), URIs, rows.

        Unchanged recordings are skipped, changed ones replaced. It may be interrupted at any time
        and resumes when called again.

        Args:
            inputs: a row is a dict with the recording's path or URI as "source", and further
                columns. Or the result of `find_sources`.
            engine: "ray": recordings are encoded on a Ray cluster, as docs/scale.md describes; by
                default in this process.
            address: of the cluster, "host:port"; "auto" for the one that this machine is part of;
                by default RAY_ADDRESS, or else this machine alone.
            workers: number of processes, each with a model; by default as many as fit.
            cpus_per_worker, gpus_per_worker: what each takes of its machine: 1 and 0; a GPU can be
                shared, such as 0.5.
            retry: try recordings again that failed before, though they haven't changed.
            on_progress: called after every window and recording, also in threads that read ahead.
            progress: show a bar, without `on_progress`; by default in notebooks only.

        Raises:
            CollectionError: if the model is not the one of the collection.
            OptionError: for inputs that match nothing, or a cluster that can't be used.
            MissingExtraError: for "ray" without the extra `ray`.
        """
        opened = open_engine(
            engine,
            address=address,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
        )
        if not isinstance(inputs, SourceListing):
            inputs = find_sources([inputs] if isinstance(inputs, str | Path) else inputs)
        with index_bar(progress) as bar:
            summary = index_sources(
                self._window_table,
                self.model,
                inputs,
                opened,
                retry=retry,
                on_progress=on_progress or bar,
            )
        update_indices(self._window_table)
        return summary

    def search(
        self,
        audio: AudioInput | None = None,
        *,
        caption: str | None = None,
        like: str | SearchResult | None = None,
        vector: Any = None,
        where: str | None = None,
        limit: int = 10,
        include_self: bool = False,
        exact: bool = False,
        sampling_rate: int | None = None,
    ) -> SearchResults:
        """Windows, best first: similar to audio, another window or a vector, or by captions, and
        what their scores mean.

        Args:
            audio: any audio input, for similarity search by the cosine of vectors.
            caption: words for full-text search over captions, without a model. (Text and vectors
                share no embedding space.)
            like: a row, for windows similar to it, without a model: a source (its first window),
                source#window as in `SearchResult.id`, or a result of an earlier search.
            vector: similarity search with any vector of the collection's width, of any length.
            where: SQL over the columns, such as "duration_seconds > 5".
            include_self: also return the query's own row (`like`), or the windows of a recording
                that is in the collection under the path that is given as `audio`.
            exact: compare every vector, even where there is an index.
            sampling_rate: of `audio` that is an array, in Hz.

        Raises:
            OptionError: for none or several of the four; for options that have no effect on it, a
                vector that is zero or not finite, or a condition that can't be used.
            AudioError: if the recording can't be decoded.
            CollectionError: if there is no such row, or there are no captions.
        """
        check_query(
            {"audio": audio, "caption": caption, "like": like, "vector": vector},
            {"include_self": include_self, "exact": exact, "sampling_rate": sampling_rate},
        )
        table = self._window_table
        options: dict[str, Any] = {"where": where, "limit": limit}
        if caption is not None:
            return search_by_words(table, caption, **options)
        options["exact"] = exact
        if vector is not None:
            return search_by_vector(table, vector, **options)
        options["include_self"] = include_self
        if like is not None:
            return search_by_row(table, like, **options)
        query: Any = audio
        return search_by_audio(table, self.model, query, sampling_rate=sampling_rate, **options)

    def map(
        self,
        *,
        method: str | None = None,
        seed: int = 0,
        where: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Projection:
        """Two-dimensional projection of its vectors; see `projection.project`."""
        from .projection import project

        table = self._window_table
        return project(table, method=method, seed=seed, where=where, on_progress=on_progress)

    def rows(self) -> CollectionRows:
        """All rows of the newest version by source and window, without their vectors."""
        from .rows import read_rows_without_vectors

        return read_rows_without_vectors(self._window_table)
