"""Log-mel spectrograms of windows that are parts of their recording's, as transformers makes one of
a whole recording: with the audio around a window, and floored by the recording's loudest frame."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.audio.log_mel import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    LogMel,
    SpectrogramPeak,
    Surroundings,
    mel_frame_count,
)
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.models.family import Family

__all__ = ["RecordingFeaturesFamily"]

_REACH_SAMPLES = FFT_SAMPLES // 2
"""How far a frame reaches beyond its middle. Frame t has its middle at t hops; what lies beyond the
ends of a recording is its reflection."""
_DECADES = 8.0
"""From the loudest frame down to the floor, as in Whisper's feature extractor."""
_LEAST_POWER = 1e-10
_BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
"""Of which frames are computed at once: 5 MB of them."""


class RecordingFeaturesFamily(Family):
    """A family whose recordings of several windows have one spectrogram, of which a window has its
    frames."""

    @abstractmethod
    def padded_samples(self, samples: int) -> int:
        """To how many samples transformers pads a recording."""

    def window_frames(self, samples: int) -> int:
        """How many frames the encoder is given of a window: by default those of audio."""
        return mel_frame_count(samples)

    def recording_peak(self, extractor: Any) -> SpectrogramPeak:
        """Over the frames that transformers computes of the padded recording."""
        return _Peak(extractor, self.padded_samples)

    def log_mel_within(
        self, samples: Float32[np.ndarray, "samples"], around: Surroundings, extractor: Any
    ) -> LogMel:
        """Frames of audio are the recording's; those after them are of silence, as in a clip that
        ends 12.5 ms after the window."""
        frames = self.window_frames(samples.size)
        signal = np.concatenate([around.before, samples, around.after])
        missing = around.before.size + (frames - 1) * HOP_SAMPLES + _REACH_SAMPLES - signal.size
        size = samples.size + around.after.size
        silence = np.zeros(max(0, min(missing, self.padded_samples(size) - size)), np.float32)
        signal = np.concatenate([signal, silence])
        reflected = (_REACH_SAMPLES - around.before.size, max(0, missing - silence.size))
        signal = np.pad(signal, reflected, mode="reflect")
        powers = _log_powers(signal, extractor)[:, :frames]
        features = (powers.clamp(min=around.peak - _DECADES) + 4.0) / 4.0  # as the extractor
        return LogMel(features.numpy(), self.mel_frames(samples.size))


class _Peak(SpectrogramPeak):
    """The largest of a recording's powers, computed in blocks."""

    def __init__(self, extractor: Any, padded_samples: Callable[[int], int]) -> None:
        self._extractor, self._padded_samples = extractor, padded_samples
        self._parts: list[np.ndarray] = []
        self._size = self._pending = self._frames = 0
        self._peak = -np.inf

    def add(self, samples: Float32[np.ndarray, "part"]) -> None:
        """Frames that are complete are computed, many at a time."""
        self._parts.append(samples)
        self._size += samples.size
        self._pending += samples.size
        if self._pending > _BLOCK_SAMPLES:
            self._measure(self._joined())

    def finish(self) -> float:
        """With the recording's padding, of which no more is computed than has audio in it."""
        padded = self._padded_samples(self._size)
        silence = min(padded - self._size, 2 * FFT_SAMPLES)
        signal = np.pad(self._joined(), (0, silence))
        if self._size + silence == padded:
            signal = np.pad(signal, (0, _REACH_SAMPLES), mode="reflect")
        self._measure(signal, padded // HOP_SAMPLES - self._frames)
        return float(self._peak)

    def _joined(self) -> Float32[np.ndarray, "samples"]:
        signal = np.concatenate(self._parts)
        return signal if self._frames else np.pad(signal, (_REACH_SAMPLES, 0), mode="reflect")

    def _measure(
        self, signal: Float32[np.ndarray, "samples"], most_frames: int | None = None
    ) -> None:
        powers = _log_powers(signal, self._extractor)[:, :most_frames]
        self._peak = max(self._peak, float(powers.max()))
        self._frames += powers.shape[1]
        self._parts, self._pending = [signal[powers.shape[1] * HOP_SAMPLES :]], 0


def _log_powers(
    signal: Float32[np.ndarray, "samples"], extractor: Any
) -> Float32[Tensor, "mel_bins frames"]:
    """Base-10 logarithms of mel powers, without padding: the first frame begins with the signal."""
    spectrum = torch.stft(
        torch.from_numpy(signal),
        FFT_SAMPLES,
        HOP_SAMPLES,
        window=torch.hann_window(FFT_SAMPLES),
        center=False,
        return_complex=True,
    )
    filters = torch.from_numpy(extractor.mel_filters).float()
    return (filters.T @ spectrum.abs() ** 2).clamp(min=_LEAST_POWER).log10()
