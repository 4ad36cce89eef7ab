"""A model on a server: methods of `AudioModel`, which return the same objects."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Required, TypedDict, TypeVar, Unpack, overload

import numpy as np

from qwen_audio.api.answer import Answer, Description
from qwen_audio.api.embeddings import Embeddings
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list, is_single
from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.options import Sampling, SpanName, VectorPoolingName
from qwen_audio.inference.row_index import ALL_WINDOWS, RowIndex
from qwen_audio.models.tap import Tap

from .client_requests import AudioFile, ServerConnection, audio_file
from .remote_states import hidden_states

__all__ = ["RemoteModel", "connect"]

T = TypeVar("T")

_THREADS = 8
"""Requests at the same time, for several recordings: the server computes them together."""


class _Options(TypedDict, total=False):
    prompt: str | None
    sampling_rate: int | None
    window_seconds: float
    hop_seconds: float | None


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


class RemoteModel:
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

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        (self._model,) = connection.get("v1/models")["data"]
        self.name: str = self._model["id"]
        self.dtype: str = self._model["dtype"]
        self.taps = tuple(Tap.parse(tap["name"]) for tap in self._model["taps"])

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
            return Description(file.name, answers, _named(answered["notes"], file.name))

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

    def close(self) -> None:
        """Close the connections; a `with` does so at its end."""
        self._connection.close()

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RemoteModel({self.name!r} at {self._connection.url}, {self.dtype})"


def _answer(source: str, fields: dict[str, Any]) -> Answer:
    names = {field.name for field in dataclasses.fields(Answer)} - {"source", "token_ids", "edits"}
    known = {name: fields[name] for name in names}
    return Answer(**known, source=source, token_ids=tuple(fields["token_ids"]))


def _named(notes: Iterable[str], name: str) -> list[str]:
    """Notes, with the recording's own name in place of its place in the request."""
    return [f"{name}:{note.partition(':')[2]}" for note in notes]
