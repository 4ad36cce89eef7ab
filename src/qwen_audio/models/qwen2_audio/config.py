"""Read config.json and check that this package supports the model and its feature extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from transformers import Qwen2AudioConfig, WhisperFeatureExtractor

from qwen_audio.audio.log_mel import FFT_SAMPLES, HOP_SAMPLES, MAX_FRAMES
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import CheckpointError
from qwen_audio.models.unsupported import check_model_type
from qwen_audio.weights.json_file import parse_json

__all__ = ["build_feature_extractor", "read_config"]

_ROPE_TYPES = ("default", "linear", "yarn", "llama3")
"""Of rotary embeddings by which a position doesn't depend on how many there are."""


def read_config(folder: Path, name: str) -> Qwen2AudioConfig:
    """config.json of a checkpoint folder. Raises CheckpointError if it isn't a Qwen2-Audio's."""
    settings = parse_json(folder / "config.json")
    check_model_type(settings, name)
    try:
        config = Qwen2AudioConfig(**settings)
    except Exception as error:  # transformers' strict configs raise several types
        raise CheckpointError(f"{name}: config.json is not valid ({error})") from error
    text: Any = config.text_config
    if text.model_type != "qwen2" or set(text.layer_types) != {"full_attention"}:
        raise CheckpointError(
            f"{name} has a language model of type {text.model_type!r} with {set(text.layer_types)} "
            "layers; only 'qwen2' with full attention is supported"
        )
    rope = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in _ROPE_TYPES:
        raise CheckpointError(
            f"{name} has rotary position embeddings of type {rope!r}, which differ with the length "
            f"of the input; only {', '.join(_ROPE_TYPES)} are supported"
        )
    positions = cast(Any, config.audio_config).max_source_positions
    if positions != MAX_FRAMES // 2:
        raise CheckpointError(
            f"{name} has an audio encoder of {positions} positions; only {MAX_FRAMES // 2} (30 s) "
            "are supported"
        )
    return config


def build_feature_extractor(settings: Any, mel_bins: int, file: str) -> WhisperFeatureExtractor:
    """transformers' feature extractor with the settings of a file.

    Raises:
        CheckpointError: naming `file`, for invalid settings, or for another type, sampling rate,
            FFT, hop, window or number of mel bins.
    """
    kind = settings.get("feature_extractor_type") if isinstance(settings, dict) else None
    try:
        extractor = WhisperFeatureExtractor(**settings)
    except Exception as error:  # the constructor computes with them, and can raise anything
        raise CheckpointError(f"{file} is not valid ({error}): download it again") from error
    if kind is not None and not str(kind).startswith("Whisper"):
        raise CheckpointError(
            f"{file} describes a {kind}, but Qwen2-Audio takes a WhisperFeatureExtractor: save the "
            "processor of the model that it was made from beside it"
        )
    expected = {
        "feature_size": mel_bins,
        "sampling_rate": SAMPLE_RATE_HZ,
        "hop_length": HOP_SAMPLES,
        "n_fft": FFT_SAMPLES,
        "chunk_length": round(WINDOW_SECONDS),
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
