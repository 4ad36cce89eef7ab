"""Audio as other libraries hold it: dicts, decoders, pairs of array and rate → what is in them.

Recognised by their form, so that none of these libraries is needed.
"""

from __future__ import annotations

import array
import io
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np

from qwen_audio.errors import AudioError, as_number

__all__ = ["Unwrapped", "is_pair", "is_wrapped", "unwrapped"]

_SAMPLES, _RATES = ("array", "raw"), ("sampling_rate", "sample_rate")
"""Keys of samples and of their rate: of `datasets`, and of transformers' pipelines."""
_KEYS = {*_SAMPLES, "bytes", "path"}


class Unwrapped(NamedTuple):
    """An audio input without what another library has put around it.

    Attributes:
        audio: samples (`is_array`), or any other input of `load_waveform`.
        is_array: whether it is an array, a tensor or a list of samples.
        sampling_rate: that was beside the samples, if any.
        name: of the recording, where it is known.
    """

    audio: Any
    is_array: bool = False
    sampling_rate: Any = None
    name: str = ""


def is_pair(audio: Any) -> bool:
    """Whether it is a pair of array and sampling rate, in either order.

    torchaudio, librosa and soundfile return (array, rate), Gradio (rate, array).
    """
    if not isinstance(audio, tuple) or len(audio) != 2:
        return False
    return (as_number(audio[0]) is None) != (as_number(audio[1]) is None)


def is_wrapped(audio: Any) -> bool:
    """Whether it is audio as another library holds it: a dict, a decoder or its samples, a pair."""
    if isinstance(audio, Mapping):
        return not _KEYS.isdisjoint(audio) or is_wrapped(audio.get("audio"))
    is_samples = hasattr(audio, "data") and hasattr(audio, "sample_rate")
    return is_pair(audio) or hasattr(audio, "get_all_samples") or is_samples


def unwrapped(audio: Any) -> Unwrapped:
    """What is in an audio input of another library; any other input as it is.

    - `datasets`: {"array", "sampling_rate"}, {"bytes", "path"}, and a row that has it as "audio";
      its decoder of torchcodec. transformers' {"raw", "sampling_rate"}.
    - torchcodec: an AudioDecoder (`get_all_samples`), AudioSamples (`data`, `sample_rate`).
    - torchaudio, librosa, soundfile, Gradio: a pair of array and rate.

    Raises:
        AudioError: for a dict without audio, and for what the other library can't decode.
    """
    if isinstance(audio, Mapping):
        return _from_mapping(audio)
    if is_pair(audio):
        samples, rate = audio if as_number(audio[1]) is not None else audio[::-1]
        return Unwrapped(samples, True, rate)
    if hasattr(audio, "get_all_samples"):
        try:
            samples = audio.get_all_samples()
        except (RuntimeError, ValueError, OSError) as error:
            raise AudioError(
                f"{_decoder_name(audio) or type(audio).__name__} can't be decoded ({error}): use "
                "an intact copy of the file"
            ) from error
        return Unwrapped(samples.data, True, samples.sample_rate, _decoder_name(audio))
    if isinstance(audio, np.ndarray) or hasattr(audio, "__array__"):
        return Unwrapped(audio, True)
    if hasattr(audio, "data") and hasattr(audio, "sample_rate"):
        return Unwrapped(audio.data, True, audio.sample_rate)
    is_view_of_numbers = isinstance(audio, memoryview) and audio.format not in ("B", "b", "c")
    if isinstance(audio, array.array) or is_view_of_numbers:
        return Unwrapped(np.asarray(audio), True)
    return Unwrapped(audio)


def _from_mapping(audio: Mapping[str, Any]) -> Unwrapped:
    name = str(audio.get("path") or "")
    rate = next((audio[key] for key in _RATES if audio.get(key) is not None), None)
    for key in _SAMPLES:
        if audio.get(key) is not None:
            if rate is None:
                raise AudioError(f"a dict with {key!r} has no sampling rate: add 'sampling_rate'")
            return Unwrapped(audio[key], True, rate, name)
    if audio.get("bytes") is not None:
        file = io.BytesIO(audio["bytes"])
        file.name = PurePath(name).name or f"bytes ({len(audio['bytes'])})"
        return Unwrapped(file)
    if audio.get("path") is not None:
        return Unwrapped(audio["path"])
    inner = audio.get("audio")
    if (
        isinstance(inner, list)
        and inner
        and not (isinstance(inner[0], list) or as_number(inner[0]) is not None)
    ):
        raise AudioError(
            "a dict of columns holds several recordings: give the list of its column 'audio'"
        )
    if isinstance(inner, list):
        return Unwrapped(inner, True, rate)
    if inner is not None:
        found = unwrapped(inner)
        keeps_rate = rate is None or found.sampling_rate is not None or not found.is_array
        return found if keeps_rate else found._replace(sampling_rate=rate)
    keys = ", ".join(repr(key) for key in audio) or "no keys"
    raise AudioError(
        f"a dict with {keys} is not audio: give {{'array': …, 'sampling_rate': …}}, "
        "{'bytes': …, 'path': …}, or one of these as 'audio'"
    )


def _decoder_name(decoder: Any) -> str:
    """The file's name, which `datasets` notes in the decoder's metadata."""
    return str(getattr(getattr(decoder, "metadata", None), "path", None) or "")
