"""Collection: a folder of recordings that can be searched, resumed and trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.source import ColumnValue, Source
from qwen_audio.audio.source_listing import SourceListing, find_sources
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window
from qwen_audio.collection import maintenance as upkeep
from qwen_audio.errors import CollectionError, OptionError
from qwen_audio.inference.pooling import pooled_width

from .export import export
from .indexing import fill
from .progress import IndexProgress, IndexSummary
from .projection import Projection, lay_out
from .search import SearchResult, refresh_indices, search, search_text, similar
from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

    from qwen_audio.api.model import AudioModel

__all__ = ["WINDOW_OF_ROWS", "Collection"]

WINDOW_OF_ROWS = 10.0
"""Seconds: short enough to point at a place, long enough to be something."""


class Collection:
    """Windows of recordings and their vectors in one LanceDB table, all made with one Spec.

    Made by `create` or `open`. The table itself, for LanceDB's own API, is `table`.

    Args:
        rows: what is on disk.
        model: what makes vectors; loaded when first needed where it isn't given.
    """

    def __init__(self, rows: WindowTable, model: AudioModel | None = None) -> None:
        self._rows, self._model = rows, model

    @classmethod
    def open(cls, path: str | Path, model: AudioModel | None = None) -> Collection:
        """What is at `path`.

        Raises:
            CollectionError: if that is no collection.
            MissingExtraError: without the extra `collections`.
        """
        return cls(WindowTable.open(path), model)

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: AudioModel,
        *,
        describe: bool = False,
        float32: bool = False,
        window_seconds: float = WINDOW_OF_ROWS,
        **options: Any,
    ) -> Collection:
        """An empty one, at a path that ends in .lance.

        Args:
            describe: also caption every window.
            float32: keep vectors in float32 instead of float16.
            options: tap, pooling, span, prompt and hop_seconds, as `AudioModel.encode` takes them.

        Raises:
            CollectionError: if there is one already, or it can't be written.
            OptionError: for settings that make no sense.
        """
        if WindowTable.exists(path):
            raise CollectionError(f"{path} is there already: open it, or use another name")
        spec = model.spec(window_seconds=window_seconds, **options)
        if spec.pooling == "none":
            raise OptionError(
                "pooling='none' gives no vector a window: use mean, max, mean+std or last"
            )
        width = pooled_width(spec.pooling, model.dimensions.width(model.dimensions.tap(spec.tap)))
        return cls(
            WindowTable.create(path, spec, width, describes=describe, float32=float32), model
        )

    @property
    def path(self) -> Path:
        """Of the table."""
        return self._rows.path

    @property
    def spec(self) -> EmbeddingSpec:
        """How its vectors are made."""
        return self._rows.spec

    @property
    def describes(self) -> bool:
        """Whether its windows have captions."""
        return self._rows.describes

    @property
    def table(self) -> Table:
        """LanceDB's table, at its newest state."""
        self._rows.table.checkout_latest()
        return self._rows.table

    @property
    def model(self) -> AudioModel:
        """What makes its vectors."""
        if self._model is None:
            from qwen_audio.api.model import load

            spec = self.spec
            local = spec.model == "embedded" or Path(spec.model).is_dir()
            revision = None if local else spec.revision
            self._model = load(spec.model, dtype=spec.dtype, revision=revision)
        return self._model

    def index(
        self,
        inputs: str | Path | SourceListing | Iterable[str | Path | Mapping[str, ColumnValue]],
        *,
        retry: bool = False,
        on_progress: Callable[[IndexProgress], None] | None = None,
    ) -> IndexSummary:
        """Add recordings: folders, files, patterns, manifests (.csv, .jsonl), addresses, rows.

        What is there and unchanged is skipped, what has changed replaced. It may be stopped at any
        time, and goes on when called again.

        Args:
            inputs: a row is a dict with the recording's name as "source", and further columns. Or
                what `find_sources` has found.
            retry: try again what failed before, though it hasn't changed.

        Raises:
            CollectionError: if the model is not the one of the collection.
            OptionError: for inputs that name nothing.
        """
        if not isinstance(inputs, SourceListing):
            inputs = find_sources([inputs] if isinstance(inputs, str | Path) else inputs)
        done = fill(self._rows, self.model, inputs, retry=retry, on_progress=on_progress)
        refresh_indices(self._rows)
        return done

    def search(
        self,
        audio: Any = None,
        *,
        text: str | None = None,
        id: str | None = None,  # noqa: A002 (the column's name)
        where: str | None = None,
        limit: int = 10,
        exact: bool = False,
        sampling_rate: int | None = None,
    ) -> list[SearchResult]:
        """Windows, the best first: by sound, or by words of captions, or by one of its own windows.

        Args:
            audio: any audio input: what sounds like this, by the cosine of the vectors.
            text: words that captions hold. (The model's vectors are no space that text shares.)
            id: a source, or source#window as in `SearchResult.id`: search for what sounds like it,
                without itself.
            where: SQL over the columns, such as "duration_seconds > 5".
            exact: compare every vector, also where there is an index.

        Raises:
            OptionError: for none or several of audio, text and id, or a condition that can't be
                read.
            AudioError: if the recording can't be heard.
            CollectionError: if there is no such id, or are no captions.
        """
        if sum(query is not None for query in (audio, text, id)) != 1:
            raise OptionError("search takes one of audio, text= and id=")
        if text is not None:
            return search_text(self._rows, text, where=where, limit=limit)
        if id is not None:
            return similar(self._rows, id, where=where, limit=limit, exact=exact)
        return search(
            self._rows,
            self.model,
            audio,
            where=where,
            limit=limit,
            exact=exact,
            sampling_rate=sampling_rate,
        )

    def map(
        self, *, method: str | None = None, seed: int = 0, where: str | None = None
    ) -> Projection:
        """Its windows in two dimensions, near what is alike; see `mapping.lay_out`."""
        return lay_out(self._rows, method=method, seed=seed, where=where)

    def waveform(self, source: str, window: Window | None = None) -> Waveform:
        """What one of its recordings sounds like, all of it or a window, as the model hears it.

        Args:
            source: as `SearchResult.source` and the column of that name have it.

        Raises:
            AudioError: if it can't be heard any more.
        """
        whole = load_waveform(Source.from_path(source).audio_input())
        return whole if window is None else Waveform(whole.samples_in(window), whole.name)

    def info(self) -> upkeep.Info:
        """What it holds, counted."""
        return upkeep.info(self._rows)

    def recordings(self, where: str | None = None) -> list[dict[str, Any]]:
        """Every recording with its seconds, how many windows it has, and their captions."""
        return upkeep.listing(self._rows, where)

    def failures(self) -> list[dict[str, Any]]:
        """What could not be heard, and why."""
        rows: list[dict[str, Any]] = self._rows.failures.to_arrow().to_pylist()
        return sorted(rows, key=lambda row: str(row["source"]))

    def prune(self) -> list[str]:
        """Delete the rows of recordings that are gone; returns these."""
        return upkeep.prune(self._rows)

    def verify(self, *, sample: int = 20, seed: int = 0) -> upkeep.VerifyReport:
        """Encode some recordings anew and compare; check counts, hashes and indices."""
        return upkeep.verify(self._rows, self.model, sample=sample, seed=seed)

    def export(self, target: str | Path, where: str | None = None) -> int:
        """Write it as .parquet, .npz, or a Hugging Face dataset's folder; returns the rows."""
        return export(self._rows, target, where)

    def __len__(self) -> int:
        return self._rows.count()

    def __repr__(self) -> str:
        return (
            f"Collection({str(self.path)!r}, {len(self)} rows of {self.spec.tap}, "
            f"spec {self.spec.fingerprint})"
        )
