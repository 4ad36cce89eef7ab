"""A model on a server: text, embeddings and hidden states, as `AudioModel` has them."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Required, Unpack, overload

import numpy as np

from qwen_audio.api.answer import Answer, Description
from qwen_audio.api.embeddings import Embeddings
from qwen_audio.audio.inputs import AudioInput, AudioInputs, is_single
from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.options import Sampling, SpanName, VectorPoolingName
from qwen_audio.inference.row_index import ALL_WINDOWS, RowIndex
from qwen_audio.models.tap import Tap

from .client_requests import AudioFile, ServerConnection
from .remote_base import RemoteOptions, named_notes
from .remote_scores import RemoteScores
from .remote_search import RemoteSearch
from .remote_states import hidden_states

__all__ = ["RemoteModel", "connect"]


class _Options(RemoteOptions, total=False):
    prompt: str | None


class _DescribeOptions(_Options, total=False):
    stream: Callable[[str], None] | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None


class _ActivationsOptions(_Options, total=False):
    taps: Required[Iterable[str | Tap]]
    generate: int


def connect(url: str, *, api_key: str | None = None) -> RemoteModel:
    """The model that `qwen-audio serve` serves at an address.

    Args:
        url: such as "http://127.0.0.1:8000".
        api_key: that the server asks for.

    Raises:
        QwenAudioError: if it can't be reached, or refuses the key.
    """
    return RemoteModel(ServerConnection(url, api_key))


class RemoteModel(RemoteScores, RemoteSearch):
    """A model on a server; returned by `connect`.

    Methods and results are those of `AudioModel`; a list of recordings is sent in several requests
    at the same time. Files are sent as they are; what else can be loaded, as samples at 16 kHz.

    Every method raises AudioError for recordings that the server can't decode, or that exceed its
    limits, OptionError for options that it refuses, and QwenAudioError if it doesn't answer.

    Attributes:
        name: of the model, for clients.
        taps: every tap, shallowest first.
        dtype: of the computation.
    """

    @overload
    def describe(self, audio: AudioInput, **options: Unpack[_DescribeOptions]) -> Description: ...
    @overload
    def describe(
        self, audio: AudioInputs, **options: Unpack[_DescribeOptions]
    ) -> list[Description]: ...
    def describe(
        self,
        audio: AudioInput | AudioInputs,
        *,
        prompt: str | None = None,
        stream: Callable[[str], None] | None = None,
        max_new_tokens: int = Sampling.max_new_tokens,
        temperature: float = Sampling.temperature,
        top_p: float = Sampling.top_p,
        seed: int | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = WINDOW_SECONDS,
        hop_seconds: float | None = None,
    ) -> Description | list[Description]:
        """Describe each recording, or answer a question about it; see `AudioModel.describe`."""
        if stream is not None and not is_single(audio):
            raise OptionError("stream= takes one recording at a time, not a list")
        text = self._model["default_prompt"] if prompt is None else prompt
        options = {
            "model": self.name,
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
        }

        def ask(file: AudioFile) -> Description:
            parts = [{"type": "input_audio", "input_audio": {"data": file.base64}}]
            parts += [{"type": "text", "text": text}] if text else []
            body = {**options, "messages": [{"role": "user", "content": parts}]}
            if stream is None:
                answered = self._connection.post("v1/chat/completions", body, file.name)
            else:
                answered = self._streamed(body, file.name, stream)
            answers = [_answer(file.name, fields) for fields in answered["answers"]]
            return Description(file.name, answers, named_notes(answered["notes"], file.name))

        return self._each(audio, sampling_rate, ask)

    def encode(
        self,
        audio: AudioInput | AudioInputs,
        *,
        tap: str | Tap = "audio_tower",
        pooling: VectorPoolingName = "mean",
        span: SpanName = "audio",
        prompt: str | None = None,
        sampling_rate: int | None = None,
        window_seconds: float = WINDOW_SECONDS,
        hop_seconds: float | None = None,
    ) -> Embeddings:
        """A vector for each recording; see `AudioModel.encode`."""
        options = {
            "model": self.name,
            "encoding_format": "base64",
            "tap": str(tap),
            "pooling": pooling,
            "span": span,
            "prompt": prompt,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
        }

        def embed(file: AudioFile) -> Embeddings:
            body = {**options, "input": file.base64}
            answered = self._connection.post("v1/embeddings", body, file.name)
            (item,) = answered["data"]
            vector = np.frombuffer(base64.b64decode(item["embedding"]), "<f4")
            index = RowIndex.of_recording(
                file.name,
                np.array([ALL_WINDOWS], np.int64),
                np.array([item["start_seconds"]], np.float64),
                np.array([item["end_seconds"]], np.float64),
                np.array([span]),
            )
            return Embeddings(vector, index, EmbeddingSpec.from_settings(**answered["spec"]))

        vectors = self._each(audio, sampling_rate, embed)
        if not isinstance(vectors, list):
            return vectors
        if not vectors:
            raise OptionError("the list of recordings is empty: give at least one")
        return Embeddings.concatenate(vectors)

    @overload
    def activations(
        self, audio: AudioInput, **options: Unpack[_ActivationsOptions]
    ) -> dict[str, HiddenStates]: ...
    @overload
    def activations(
        self, audio: AudioInputs, **options: Unpack[_ActivationsOptions]
    ) -> list[dict[str, HiddenStates]]: ...
    def activations(
        self,
        audio: AudioInput | AudioInputs,
        *,
        taps: Iterable[str | Tap],
        prompt: str | None = None,
        generate: int = 0,
        sampling_rate: int | None = None,
        window_seconds: float = WINDOW_SECONDS,
        hop_seconds: float | None = None,
    ) -> dict[str, HiddenStates] | list[dict[str, HiddenStates]]:
        """The hidden states of any set of taps; see `AudioModel.activations`."""
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        options = {
            "model": self.name,
            "taps": [str(tap) for tap in taps],
            "prompt": prompt,
            "generate": generate,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
        }

        def capture(file: AudioFile) -> dict[str, HiddenStates]:
            body = {**options, "input": file.base64}
            data, seconds = self._connection.post_for_file("v1/activations", body, file.name)
            return hidden_states(data, seconds, file.name, self._model, window_seconds, hop_seconds)

        return self._each(audio, sampling_rate, capture)

    def _streamed(
        self, body: dict[str, Any], name: str, stream: Callable[[str], None]
    ) -> dict[str, Any]:
        """The last event of a stream that has answers, after all text has been passed on."""
        last: dict[str, Any] = {}
        for event in self._connection.events("v1/chat/completions", {**body, "stream": True}, name):
            if text := event["choices"][0]["delta"].get("content"):
                stream(text)
            if "answers" in event:
                last = event
        return last


def _answer(source: str, fields: dict[str, Any]) -> Answer:
    names = {field.name for field in dataclasses.fields(Answer)} - {"source", "token_ids", "edits"}
    known = {name: fields[name] for name in names}
    return Answer(**known, source=source, token_ids=tuple(fields["token_ids"]))
