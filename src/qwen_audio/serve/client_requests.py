"""Requests of a client to a server, and its errors as those of the package."""

from __future__ import annotations

import base64
import io
import json
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import httpx2

from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.errors import AudioError, OptionError, QwenAudioError
from qwen_audio.paths import is_file, printable

__all__ = ["AudioFile", "ServerConnection", "audio_file"]

_SECONDS = 600.0
"""For a response, while others are in the queue."""
_CONNECT_SECONDS = 10.0
_AUDIO_CODES = frozenset({"invalid_audio", "audio_too_large", "too_large"})


class AudioFile:
    """Bytes of a file, and what the recording is called in results."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self._data = name, data

    @cached_property
    def base64(self) -> str:
        """As requests have it."""
        return base64.b64encode(self._data).decode()


def audio_file(audio: Any, sampling_rate: int | None) -> AudioFile:
    """An audio input as a file: bytes and files as they are, others as samples at 16 kHz.

    Raises:
        AudioError: for what can't be loaded.
    """
    if sampling_rate is None and isinstance(audio, bytes | bytearray | memoryview):
        return AudioFile(f"bytes ({len(audio)})", bytes(audio))
    if sampling_rate is None and isinstance(audio, str | PathLike) and is_file(fspath(audio)):
        return AudioFile(printable(fspath(audio)), Path(audio).read_bytes())
    waveform = load_waveform(audio, sampling_rate=sampling_rate)
    data = waveform.samples.astype("<f4").tobytes()
    # 32-bit floats in WAV: what the server decodes is exactly this.
    header = io.BytesIO()
    header.write(struct.pack("<4sI4s4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16))
    header.write(struct.pack("<HHIIHH", 3, 1, SAMPLE_RATE_HZ, 4 * SAMPLE_RATE_HZ, 4, 32))
    header.write(struct.pack("<4sI", b"data", len(data)))
    return AudioFile(waveform.name, header.getvalue() + data)


class ServerConnection:
    """Connections to one server, for any number of threads.

    Attributes:
        url: of the server, with a slash at its end.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self.url = f"{url.rstrip('/').removesuffix('/v1')}/"
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        timeout = httpx2.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
        try:
            self._client = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as error:
            raise OptionError(f"url={url!r}: use one such as 'http://127.0.0.1:8000'") from error
        self.close = weakref.finalize(self, self._client.close)
        """Closes the connections; so does forgetting this object."""

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with self._errors():
            return self._checked(self._client.get(path), "").json()

    def post(self, path: str, body: dict[str, Any], name: str) -> Any:
        """The JSON that answers a request about a recording."""
        with self._errors():
            return self._checked(self._client.post(path, json=body), name).json()

    def post_for_file(self, path: str, body: dict[str, Any], name: str) -> tuple[bytes, float]:
        """The file of hidden states that answers a request, and the seconds of the recording."""
        with self._errors():
            response = self._checked(self._client.post(path, json=body), name)
            return response.content, float(response.headers["audio-seconds"])

    def events(self, path: str, body: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
        """The events of a stream."""
        with self._errors(), self._client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
            self._checked(response, name)
            for line in response.iter_lines():
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise _error(500, event["error"], name)
                yield event

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise QwenAudioError(
                f"{self.url} doesn't answer ({reason}): check the address, and that `qwen-audio "
                "serve` runs there"
            ) from error

    def _checked(self, response: Any, name: str) -> Any:
        """A response, if it is one of success."""
        if response.status_code == 200:
            return response
        try:
            described = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            described = {"message": f"{self.url} answered with status {response.status_code}"}
        raise _error(response.status_code, described, name)


def _error(status: int, described: dict[str, Any], name: str) -> QwenAudioError:
    """The package's error for one of the server's, with the recording's own name."""
    message, param = str(described.get("message")), described.get("param")
    if described.get("code") in _AUDIO_CODES:
        return AudioError(message.replace(param, name, 1) if param else f"{name}: {message}")
    return OptionError(message) if status in (400, 404, 413) else QwenAudioError(message)
