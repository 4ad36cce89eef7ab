"""What an engine does, and the choice of one by its name."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Protocol

from qwen_audio.collection.encoding import EncodedSource, EncodingSettings, PendingSource
from qwen_audio.inference.progress_bars import OnWindow

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["Engine"]


class Engine(Protocol):
    """Encodes the recordings of an index operation."""

    def encode(
        self,
        model: AudioModel,
        settings: EncodingSettings,
        pending: Iterator[PendingSource],
        on_window: OnWindow,
    ) -> Generator[EncodedSource]:
        """Every source of `pending` once, in any order; closing the generator ends the work.

        Args:
            pending: may be taken in another thread, ahead of what is yielded.
            on_window: told how far a recording is, where the engine knows it.
        """
