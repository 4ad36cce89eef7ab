"""What all methods of a model on a server share: its connection, and requests for recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypedDict, TypeVar

from qwen_audio.audio.inputs import as_input_list
from qwen_audio.models.tap import Tap

from .client_requests import AudioFile, ServerConnection, audio_file

__all__ = ["RemoteBase", "RemoteOptions", "named_notes"]

T = TypeVar("T")

_THREADS = 8
"""Requests at the same time, for several recordings: the server computes them together."""


class RemoteOptions(TypedDict, total=False):
    """Keyword options of every method, for type checkers."""

    sampling_rate: int | None
    window_seconds: float
    hop_seconds: float | None


class RemoteBase:
    """A model on a server: see `RemoteModel`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        (self._model,) = connection.get("v1/models")["data"]
        self.name: str = self._model["id"]
        self.dtype: str = self._model["dtype"]
        self.taps = tuple(Tap.parse(tap["name"]) for tap in self._model["taps"])

    def _each(
        self, audio: Any, sampling_rate: int | None, request: Callable[[AudioFile], T]
    ) -> T | list[T]:
        """The result of a request for each recording; of a single one, that alone."""
        inputs, single = as_input_list(audio)
        if single:
            return request(audio_file(inputs[0], sampling_rate))
        with ThreadPoolExecutor(_THREADS) as threads:
            work = threads.map(lambda item: request(audio_file(item, sampling_rate)), inputs)
            return list(work)

    def close(self) -> None:
        """Close the connections; a `with` does so at its end."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteModel({self.name!r} at {self._connection.url}, {self.dtype})"


def named_notes(notes: Iterable[str], name: str) -> list[str]:
    """Notes, with the recording's own name in place of its place in the request."""
    return [f"{name}:{note.partition(':')[2]}" for note in notes]
