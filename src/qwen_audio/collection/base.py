"""What a collection is made of: its table, its embedding spec and the model of its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qwen_audio.errors import OptionError, counted
from qwen_audio.inference.embedding_spec import EmbeddingSpec

from .database import check_installed
from .stored_model import load_stored_model
from .table import WindowTable

if TYPE_CHECKING:
    from lancedb.table import Table

    from qwen_audio.api.model import AudioModel

__all__ = ["CollectionBase"]


class CollectionBase:
    """The parts of a `Collection`, without what is done with them."""

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

    def __len__(self) -> int:
        return self._window_table.count()

    def __repr__(self) -> str:
        return (
            f"Collection({self.location!r}, {counted(len(self), 'row')} of {self.spec.tap}, "
            f"spec {self.spec.fingerprint})"
        )
