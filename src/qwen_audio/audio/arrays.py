"""Samples in arrays as a Waveform: one recording, scaled to [-1, 1], mixed to mono, resampled."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError, OptionError, number_option

from .resample import resample
from .track import check_rate_and_channels
from .waveform import Waveform

__all__ = ["MAX_ARRAY_CHANNELS", "waveform_from_array"]

MAX_ARRAY_CHANNELS = 8
"""Most rows of an array that are taken for channels (7.1 has 8). More mean a batch, or an array of
shape (samples, channels)."""


def waveform_from_array(audio: Any, sampling_rate: Any, name: str = "") -> Waveform:
    """An array, a tensor or a list of samples as a Waveform; see `load_waveform`.

    Args:
        name: of the recording; its shape if there is none.

    Raises:
        AudioError: for a missing or implausible rate, and for a shape or type that is not audio.
    """
    if hasattr(audio, "detach"):  # a torch tensor; NumPy has no bfloat16
        audio = audio.detach().cpu()
        audio = audio.float() if audio.is_floating_point() else audio
    try:
        array = np.asarray(audio)
    except ValueError as error:  # lists of different lengths
        raise AudioError(
            f"{name or 'a list of samples'} is not one array: its rows have different lengths"
        ) from error
    name = name or f"array {array.shape}"
    if sampling_rate is None:
        raise AudioError(f"{name} has no sampling rate: pass sampling_rate= in Hz")
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise AudioError(
            f"{name} of {array.dtype} is not audio: use numbers of shape (samples,) or "
            "(channels, samples)"
        )
    channels = array.shape[0] if array.ndim == 2 else 1
    if channels > MAX_ARRAY_CHANNELS:
        transposed = array.shape[1] <= MAX_ARRAY_CHANNELS
        hint = "transpose it" if transposed else "give several recordings as a list"
        raise AudioError(
            f"{name} has {channels} rows, but an array is one recording, (samples,) or (channels, "
            f"samples) with up to {MAX_ARRAY_CHANNELS} channels: {hint}"
        )
    try:
        rate = number_option("sampling_rate", sampling_rate, "a number of Hz")
    except OptionError as error:  # of a pair or dict, which states its own
        raise AudioError(f"{name}: {error}") from None
    check_rate_and_channels(name, rate, channels)
    scaled = _scaled_to_float32(array, name)
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=0, dtype=np.float32)
    return Waveform(
        resample([mono], rate), name=name, source_rate_hz=round(rate), source_channels=channels
    )


def _scaled_to_float32(array: np.ndarray, name: str) -> Float32[np.ndarray, "..."]:
    """Floats as they are; integers divided by their full scale, unsigned ones centred first."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is infinite, which Waveform refuses
            return array.astype(np.float32)
    bits = np.iinfo(array.dtype).bits
    full_scale = 2 ** (bits - 1)
    zero = 0 if array.dtype.kind == "i" else full_scale
    scaled = ((array.astype(np.float64) - zero) / full_scale).astype(np.float32)
    peak = np.abs(scaled).max(initial=0)
    if bits > 32 or (bits == 32 and 0 < peak < 2**-16):
        raise AudioError(
            f"{name} of {array.dtype} has an unknown full scale: taken as {full_scale:.3g}, it "
            f"is silent (peak {peak:.1e}): convert it to the width it was recorded with, such as "
            "int16, or to float in [-1, 1]"
        )
    return scaled
