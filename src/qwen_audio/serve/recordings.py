"""Uploads decoded and divided into windows, within a server's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.waveform import RecordingInfo
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow, stream_windows
from qwen_audio.errors import AudioError, DecodeLimitError
from qwen_audio.inference.pipeline import Pipeline

from .decoding import UploadDecoder
from .limits import ApiLimits

__all__ = ["Recording", "RecordingReader", "Upload"]


class Upload(NamedTuple):
    """Bytes of a file, and what they are called in messages."""

    name: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Recording:
    """A decoded recording, divided into windows.

    Attributes:
        info: metadata; `info.name` is what it is called in messages.
        windows: of which the engine's thread computes the spectrograms: threads that compute with
            torch each have worker threads, which would be more than there are cores.
    """

    info: RecordingInfo
    windows: tuple[SampledWindow, ...]


class RecordingReader:
    """Decodes uploads from any number of threads; their limits are those of `UploadDecoder`."""

    def __init__(self, pipeline: Pipeline, limits: ApiLimits) -> None:
        self._window_limits = pipeline.checkpoint.family.window_limits
        self._new_peak = pipeline.new_peak
        self._limits = limits
        self._decoder = UploadDecoder(limits)

    def read(
        self, uploads: Sequence[Upload], window_config: WindowConfig | None
    ) -> list[Recording]:
        """The recordings of one request.

        Args:
            window_config: how they are divided; None: each is one window.

        Raises:
            AudioError: if one can't be decoded, or is longer than a window where it has to be one.
            DecodeLimitError: if one of them, or all together, are longer than the limits.
            RequestError: (503) if too many long recordings wait.
        """
        recordings: list[Recording] = []
        seconds = 0.0
        for upload in uploads:
            recordings.append(self._read(upload, window_config))
            seconds += recordings[-1].info.duration_seconds
            if seconds > self._limits.request_seconds:
                raise DecodeLimitError(
                    "max_seconds",
                    f"the recordings of one request are longer than "
                    f"{self._limits.request_seconds:g} s together, the limit of this server: send "
                    "them in several requests",
                )
        return recordings

    def _read(self, upload: Upload, window_config: WindowConfig | None) -> Recording:
        waveform = self._decoder.decode(upload.name, upload.data)
        limits = self._window_limits
        if window_config is None and waveform.duration_seconds > limits.max_seconds:
            raise AudioError(
                f"{upload.name} lasts {waveform.duration_seconds:.1f} s, but each audio of a "
                f"conversation is encoded at once, up to {limits.max_seconds:g} s: cut it, or ask "
                "about it alone, in a conversation of one turn, which divides it into windows"
            )
        config = window_config or WindowConfig(limits.max_seconds, limits=limits)
        windows = stream_windows(waveform, LoadOptions(), config, self._new_peak)
        return Recording(waveform.info, tuple(windows))
