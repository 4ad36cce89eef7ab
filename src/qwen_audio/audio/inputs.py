"""Types of audio input that the package accepts, and one input or a list of them as a list."""

from __future__ import annotations

import array
import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np

from qwen_audio.errors import AudioError

from .unwrap import is_wrapped
from .waveform import Waveform

__all__ = [
    "AudioInput",
    "AudioInputs",
    "AudioSamples",
    "SupportsArray",
    "SupportsSamples",
    "as_input_list",
    "check_several",
    "is_single",
]


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays, torch tensors, and other objects that NumPy can convert."""

    def __array__(self) -> np.ndarray: ...


@runtime_checkable
class SupportsSamples(Protocol):
    """torchcodec's AudioDecoder, also as Hugging Face's `datasets` returns it."""

    def get_all_samples(self) -> Any:
        """The decoded samples: `data`, of shape (channels, samples), and `sample_rate`."""


@runtime_checkable
class AudioSamples(Protocol):
    """torchcodec's AudioSamples: `data` of shape (channels, samples)."""

    data: Any
    sample_rate: Any


AudioInput = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Waveform
    | SupportsArray
    | SupportsSamples
    | AudioSamples
    | Mapping[str, Any]
)
"""A path, `-` for standard input, bytes, a binary file object, a Waveform, an array or tensor of
shape (samples,) or (channels, samples) with `sampling_rate=`, or what other libraries load; see
`load_waveform`."""

AudioInputs = Sequence[Any]
"""Several inputs: functions that are given a list return a list of results. (A column of a Hugging
Face dataset is taken for one, too, and a pair of array and sampling rate for one recording.)"""


def is_single(audio: Any) -> bool:
    """Whether it is one recording, not a list of several."""
    if isinstance(audio, str | bytes | bytearray | memoryview | array.array) or is_wrapped(audio):
        return True
    return not isinstance(audio, Sequence)


def check_several(audio: Any, advice: str) -> None:
    """Raises AudioError for one recording, which as an iterable would be something else."""
    if isinstance(audio, str | bytes | os.PathLike | Waveform) or is_wrapped(audio):
        raise AudioError(
            f"{audio!r:.80} is one recording: {advice}, and find_files lists those of a folder"
        )


def as_input_list(audio: AudioInput | AudioInputs) -> tuple[list[Any], bool]:
    """The inputs as a list, and whether the argument was a single input."""
    single = is_single(audio)
    return [audio] if single else list(cast(AudioInputs, audio)), single
