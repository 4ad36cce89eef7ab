"""Whisper's feature extractor, and log-mel spectrograms by it without padding.

The extractor pads every clip to 30 s (3000 frames). Here only the frames are computed that an
encoder frame of the clip depends on; they equal the extractor's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32
from transformers import WhisperFeatureExtractor

from qwen_audio.audio.log_mel import (
    FFT_SAMPLES,
    HOP_SAMPLES,
    MEL_FRAMES_PER_SECOND,
    LogMel,
    mel_frame_count,
)
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.errors import CheckpointError

__all__ = [
    "CHUNK_FRAMES",
    "CHUNK_SECONDS",
    "build_feature_extractor",
    "chunked_log_mel",
    "conv_frame_count",
    "log_mel_frames",
]

CHUNK_SECONDS = 30.0
"""What Whisper's encoder, with its 1500 positions of 20 ms, processes at once."""
CHUNK_FRAMES = round(CHUNK_SECONDS * MEL_FRAMES_PER_SECOND)
"""3000 mel frames."""
_CHUNK_SAMPLES = CHUNK_FRAMES * HOP_SAMPLES


def conv_frame_count(mel_frames: int) -> int:
    """Frames (50 Hz) after a convolution of width 3, stride 2 and padding 1."""
    return (mel_frames - 1) // 2 + 1


def chunked_log_mel(
    samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
) -> LogMel:
    """The log-mel spectrogram of a window, each 30 s of which are a chunk by itself.

    All chunks but the last one have 3000 frames, and no more.
    """
    chunks = [
        _chunk_features(samples[start : start + _CHUNK_SAMPLES], extractor)
        for start in range(0, samples.size, _CHUNK_SAMPLES)
    ]
    features = chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=1)
    return LogMel(features, mel_frame_count(samples.size))


def _chunk_features(
    samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
) -> Float32[np.ndarray, "mel_bins frames"]:
    """Features of at most 30 s, (mel bins, frames), those after the clip included that its encoder
    rows depend on."""
    # Encoder frame j depends on mel frames 2j−2 … 2j+2 (two convolutions of width 3, the second
    # of stride 2), so the last one, j = E−1, depends on frames up to index 2E.
    rows = conv_frame_count(mel_frame_count(samples.size))
    return log_mel_frames(samples, extractor, min(2 * rows + 1, CHUNK_FRAMES))


def log_mel_frames(
    samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor, frames: int
) -> Float32[np.ndarray, "mel_bins frames"]:
    """The first frames of what the extractor makes of a clip, all that hold audio at least; every
    frame equals the extractor's.

    The extractor clamps values to 8 decades below the maximum over what it pads to. Frames beyond
    those computed here hold padding only, so the maximum is among the computed ones.
    """
    # Frame t spans samples 160t−200 … 160t+199. Two more hops of padding move the STFT's
    # reflection at the end out of the returned frames, and include the clip's last samples in
    # the maximum.
    padded_samples = min((frames + 2) * HOP_SAMPLES, extractor.n_samples)
    features = extractor(
        samples,
        sampling_rate=SAMPLE_RATE_HZ,
        padding="max_length",
        max_length=padded_samples,
        truncation=False,
        return_tensors="np",
    )["input_features"][0]
    return np.ascontiguousarray(features[:, :frames], dtype=np.float32)


def build_feature_extractor(
    settings: Any,
    mel_bins: int,
    file: str,
    family: str,
    chunk_seconds: float = CHUNK_SECONDS,
    kinds: tuple[str, ...] = ("Whisper",),
) -> WhisperFeatureExtractor:
    """transformers' feature extractor with the settings of a file.

    Args:
        family: its name, for error messages.
        chunk_seconds: what it pads to.
        kinds: how names of its type begin.

    Raises:
        CheckpointError: naming `file`, for invalid settings, or for another type, sampling rate,
            FFT, hop, window or number of mel bins.
    """
    kind = settings.get("feature_extractor_type") if isinstance(settings, dict) else None
    try:
        extractor = WhisperFeatureExtractor(**settings)
    except Exception as error:  # the constructor computes with them, and can raise anything
        raise CheckpointError(f"{file} is not valid ({error}): download it again") from error
    if kind is not None and not str(kind).startswith(kinds):
        raise CheckpointError(
            f"{file} describes a {kind}, but {family} takes a {kinds[0]}FeatureExtractor: save the "
            "processor of the model that it was made from beside it"
        )
    expected = {
        "feature_size": mel_bins,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": FFT_SAMPLES,
        "chunk_length": round(chunk_seconds),
        "dither": 0.0,
    }
    for name, value in expected.items():
        actual = getattr(extractor, name)
        if actual != value:
            raise CheckpointError(
                f"{file} has {name}={actual}, but this model takes {value}: other feature "
                "extractors are not supported"
            )
    return extractor
