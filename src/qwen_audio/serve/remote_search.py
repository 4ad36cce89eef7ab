"""A model on a server: searches in the server's collection."""

from __future__ import annotations

from typing import Any

from qwen_audio.audio.inputs import AudioInput
from qwen_audio.collection.search_results import SearchResult, SearchResults
from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec

from .client_requests import audio_file
from .remote_base import RemoteBase

__all__ = ["RemoteSearch"]


class RemoteSearch(RemoteBase):
    """The method that searches."""

    def search(
        self,
        audio: AudioInput | None = None,
        *,
        caption: str | None = None,
        limit: int = 10,
        sampling_rate: int | None = None,
    ) -> SearchResults:
        """Windows of the server's collection, best first: similar to a recording, or by the words
        of captions; see `Collection.search`.

        Times in `SearchResult.columns` are ISO 8601 text.
        """
        if (audio is None) == (caption is None):
            raise OptionError("search takes one of audio and caption=")
        body: dict[str, Any] = {"model": self.name, "limit": limit}
        name = ""
        if audio is None:
            body["caption"] = caption
        else:
            file = audio_file(audio, sampling_rate)
            name, body["input"] = file.name, file.base64
        answered = self._connection.post("v1/search", body, name)
        fields = ("rank", "score", "source", "window", "start_seconds", "end_seconds", "caption")
        return SearchResults(
            [
                SearchResult(**{name: item[name] for name in (*fields, "columns")})
                for item in answered["data"]
            ],
            spec=EmbeddingSpec.from_settings(**answered["spec"]),
            metric=answered["metric"],
            typical_score=answered["typical_score"],
        )
