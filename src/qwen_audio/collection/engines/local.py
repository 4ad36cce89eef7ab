"""The engine of one machine: the model of this process encodes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from qwen_audio.collection.encoding import (
    EncodedSource,
    EncodingSettings,
    PendingSource,
    encode_sources,
)
from qwen_audio.inference.progress_bars import OnWindow

if TYPE_CHECKING:
    from qwen_audio.api.model import AudioModel

__all__ = ["LocalEngine"]


class LocalEngine:
    """Encodes in this process, in order; decoding runs ahead in threads."""

    def encode(
        self,
        model: AudioModel,
        settings: EncodingSettings,
        pending: Iterator[PendingSource],
        on_window: OnWindow,
    ) -> Generator[EncodedSource]:
        """See `Engine.encode`."""
        yield from encode_sources(model, settings, pending, on_window)
