"""Collection: recordings in one LanceDB table that can be searched, resumed and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.source_listing import SourceListing, find_sources
from qwen_audio.audio.waveform import Waveform
from qwen_audio.inference.progress_bars import OnProgress

from . import maintenance, verification
from .base import CollectionBase
from .creation import create_table
from .indexing import index_sources
from .indices import update_indices
from .progress import IndexProgress, IndexSummary, index_bar
from .records import load_recording
from .search import check_query, search_by_audio, search_by_row, search_by_vector, search_by_words
from .search_results import SearchResult, SearchResults
from .table import WindowTable

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel
    from qwen_audio.audio.inputs import AudioInput

    from .projection import Projection

__all__ = ["DEFAULT_WINDOW_SECONDS", "Collection"]

DEFAULT_WINDOW_SECONDS = 10.0
"""Short enough to locate a sound in a recording, long enough for a meaningful vector."""


class Collection(CollectionBase):
    """Windows of recordings and their vectors in one LanceDB table, all with one embedding spec.

    Made by `create` or `open`, which need the extra `collections`. The table itself, for LanceDB's
    own API, is `table`.

    Args:
        window_table: the table on disk.
        model: what makes vectors; loaded when first needed if it isn't given.

    Raises OptionError for a path, which `open` takes.
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
            retry: try recordings again that failed before, though they haven't changed.
            on_progress: called after every window and recording, also in threads that read ahead.
            progress: show a bar, without `on_progress`; by default in notebooks only.

        Raises:
            CollectionError: if the model is not the one of the collection.
            OptionError: for inputs that match nothing.
        """
        if not isinstance(inputs, SourceListing):
            inputs = find_sources([inputs] if isinstance(inputs, str | Path) else inputs)
        with index_bar(progress) as bar:
            summary = index_sources(
                self._window_table, self.model, inputs, retry=retry, on_progress=on_progress or bar
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

    def waveform(self, source: str, window: int | None = None) -> Waveform:
        """The audio of one of its recordings, or of a window, as the model gets it.

        Args:
            source, window: as in `SearchResult` and the columns of these names.

        Raises:
            CollectionError: if the collection has no such recording or window.
            AudioError: if it is gone, has changed since it was indexed, or can't be decoded.
        """
        return load_recording(self._window_table, source, window)

    def info(self) -> maintenance.CollectionInfo:
        """Numbers of rows, recordings and failures, size, indices and embedding spec."""
        return maintenance.info(self._window_table)

    def recordings(self, where: str | None = None) -> list[dict[str, Any]]:
        """Source, `duration_seconds`, number of `windows` and `captions` of every recording."""
        return maintenance.list_recordings(self._window_table, where)

    def failures(self) -> list[dict[str, Any]]:
        """Recordings that could not be decoded, and why."""
        return sorted(self._window_table.failure_rows(), key=lambda row: str(row["source"]))

    def prune(self) -> list[str]:
        """Delete the rows of recordings that no longer exist. Returns their sources."""
        return maintenance.prune(self._window_table)

    def remove(self, sources: str | Path | Iterable[str | Path]) -> int:
        """Delete recordings, whether their files exist or not; see `maintenance.remove`."""
        return maintenance.remove(self._window_table, sources)

    def verify(
        self, *, sample: int = 20, seed: int = 0, on_progress: OnProgress | None = None
    ) -> verification.VerifyReport:
        """Check all vectors, counts and indices; encode some recordings again and compare."""
        return verification.verify(
            self._window_table, self.model, sample=sample, seed=seed, on_progress=on_progress
        )

    def export(
        self, target: str | Path, where: str | None = None, on_progress: OnProgress | None = None
    ) -> int:
        """Write it as .parquet, .npz, or a Hugging Face dataset's folder. Returns the rows."""
        from .export import export

        return export(self._window_table, target, where, on_progress)

    def drop(self) -> None:
        """Delete it with all its files; it can't be used afterwards."""
        self._window_table.drop()

    def _repr_html_(self) -> str:
        return self.info()._repr_html_()
