"""What a collection holds, as its owner looks after it: lists, checks, deletion, export."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import OptionError, counted
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.progress_bars import OnProgress

from . import maintenance, verification
from .database import check_installed
from .records import load_recording
from .stored_model import load_stored_model
from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

    from qwen_audio.api.model import AudioModel

__all__ = ["CollectionBase"]


class CollectionBase:
    """A table of windows and the model of its vectors.

    Args:
        window_table: the table on disk.
        model: what makes vectors; loaded when first needed if it isn't given.

    Raises:
        MissingExtraError: without the extra `collections`.
        OptionError: for a path, which `Collection.open` takes.
    """

    def __init__(self, window_table: WindowTable, model: AudioModel | None = None) -> None:
        check_installed()
        if type(window_table) is not WindowTable:
            raise OptionError(
                f"Collection({str(window_table)!r}): use Collection.open for one that exists, and "
                "Collection.create for a new one"
            )
        self._window_table, self._model = window_table, model

    @property
    def path(self) -> Path:
        """Folder of the table. Raises CollectionError on object storage; see `location`."""
        return self._window_table.location.path

    @property
    def location(self) -> str:
        """Path or URI of the table."""
        return str(self._window_table.location)

    @property
    def name(self) -> str:
        """The last part of `location`, such as music.lance."""
        return self._window_table.location.name

    @property
    def spec(self) -> EmbeddingSpec:
        """How its vectors are made."""
        return self._window_table.spec

    @property
    def has_captions(self) -> bool:
        """Whether its windows have captions."""
        return self._window_table.has_captions

    @property
    def table(self) -> Table:
        """LanceDB's table, at its newest version."""
        self._window_table.table.checkout_latest()
        return self._window_table.table

    @property
    def model(self) -> AudioModel:
        """What makes its vectors."""
        if self._model is None:
            self._model = load_stored_model(self.spec, self._window_table.location)
        return self._model

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

    def count(self, where: str | None = None) -> int:
        """Number of rows. Raises OptionError for a condition that can't be used."""
        return self._window_table.count(self._window_table.condition(where))

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

    def __len__(self) -> int:
        return self._window_table.count()

    def __repr__(self) -> str:
        return (
            f"Collection({self.location!r}, {counted(len(self), 'row')} of {self.spec.tap}, "
            f"spec {self.spec.fingerprint})"
        )

    def _repr_html_(self) -> str:
        return self.info()._repr_html_()
