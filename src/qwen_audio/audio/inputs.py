"""Types of audio input that the package accepts, and one input or a list of them as a list."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np

from qwen_audio.errors import AudioError

from .waveform import Waveform

__all__ = ["AudioInput", "AudioInputs", "SupportsArray", "as_input_list"]


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays, torch tensors, and other objects that NumPy can convert."""

    def __array__(self) -> np.ndarray: ...


AudioInput = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Waveform | SupportsArray
)
"""A path, `-` for standard input, bytes, a binary file object, a Waveform, or (with
`sampling_rate=`) an array or tensor of shape (samples,) or (channels, samples)."""

AudioInputs = list[Any] | tuple[Any, ...]
"""Several inputs: functions that are given a list return a list of results."""


def as_input_list(audio: AudioInput | AudioInputs) -> tuple[list[Any], bool]:
    """The inputs as a list, and whether the argument was a single input.

    Raises:
        AudioError: for a pair of array and sampling rate, which is no list of recordings.
    """
    if isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], int | float):
        raise AudioError(
            f"a pair of {type(audio[0]).__name__} and {audio[1]}, as librosa and soundfile return "
            "it: pass the array, and the number as sampling_rate="
        )
    single = not isinstance(audio, list | tuple)
    return [audio] if single else list(cast(AudioInputs, audio)), single
