"""The case of Whisper."""

from __future__ import annotations

from pathlib import Path

import transformers

from .base import Case, write_checkpoint


def _write_whisper(folder: Path) -> None:
    config = transformers.WhisperConfig(
        num_mel_bins=80,
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=64,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    write_checkpoint(folder, "WhisperForConditionalGeneration", config, extractor)


CASE = Case(
    "whisper",
    "WhisperForConditionalGeneration",
    _write_whisper,
    tower="model.encoder",
    projector="",
    language_model="",
    ignored="proj_out.weight",
    read_processor=transformers.WhisperFeatureExtractor.from_pretrained,
    unsupported={"max_source_positions": (750, "750 positions")},
)
