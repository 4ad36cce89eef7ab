"""Qwen3-ASR: the encoder of Qwen3-Omni, an MLP, and Qwen3; it transcribes speech."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import (
    Qwen3ASRConfig,
    Qwen3ASREncoderConfig,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRForConditionalGeneration,
    Qwen3Config,
)
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3DecoderLayer,
    Qwen3RMSNorm,
    Qwen3RotaryEmbedding,
)
from transformers.models.qwen3_asr.modeling_qwen3_asr import (
    Qwen3ASRAudioEncoderLayer,
    Qwen3ASRMultiModalProjector,
    SinusoidsPositionEmbedding,
)

from qwen_audio.audio.log_mel import MEL_FRAMES_PER_SECOND
from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.models.components.config_fields import known_fields
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.qwen3_encoder import Qwen3EncoderFamily
from qwen_audio.models.components.thinker import ThinkerFamily
from qwen_audio.models.components.whisper_features import build_feature_extractor

__all__ = ["Qwen3ASR"]


class Qwen3ASR(ThinkerFamily, Qwen3EncoderFamily):
    """13 audio tokens a second; a window is up to twenty minutes.

    Its chat template has a place for the audio alone, and one for a context before it: words and
    names that may occur, in the system's turn. So a prompt is that context, and there is none by
    default. Its answers begin with the language, "language English<asr_text>". In the layout of its
    authors' code it is the thinker of a model without other parts.
    """

    title = "Qwen3-ASR"
    config_class = Qwen3ASRConfig
    transformers_class = Qwen3ASRForConditionalGeneration
    encoder_layer, sinusoids = Qwen3ASRAudioEncoderLayer, SinusoidsPositionEmbedding
    projector = Qwen3ASRMultiModalProjector
    feature_mask = "input_features_mask"
    min_mel_frames = MEL_FRAMES_PER_SECOND // 2
    fills_short_clips = True
    projector_names = (("audio_tower.proj1.", "linear_1."), ("audio_tower.proj2.", "linear_2."))
    text_model_type = "qwen3"
    decoder_layer, norm, rotary = Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding
    window_limits = WindowLimits(max_seconds=1200.0)  # at which its authors' code divides audio
    prompt_format = PromptFormat(
        *(title, "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
        always_chat=True,
        default_prompt="",
        transcription_prompt="",
        language_end="<asr_text>",
        is_context=True,
    )

    def __init__(self, settings: Mapping[str, Any], name: str) -> None:
        thinker = settings.get("thinker_config")
        if isinstance(thinker, Mapping):
            settings = {**settings, "thinker_config": _thinker(thinker, name)}
        super().__init__(settings, name)

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for a forced aligner, too, which has another head."""
        super().check_config(name)
        model = self.transformers_class.__name__
        if (others := self.config.architectures or [model]) != [model]:
            raise CheckpointError(
                f"{name} is a {others[0]}: only {model} is supported, which transcribes"
            )

    def feature_extractor(self, settings: Any, file: str) -> Any:
        """transformers' own, whose log-mel spectrograms are Whisper's."""
        bins, kinds = self.audio_config.num_mel_bins, ("Qwen3ASR", "Whisper")
        build_feature_extractor(settings, bins, file, self.title, kinds=kinds)
        extractor = Qwen3ASRFeatureExtractor(feature_size=bins)
        for name in ("min_length", "n_window"):
            if settings.get(name, value := getattr(extractor, name)) != value:
                raise CheckpointError(
                    f"{file} has {name}={settings[name]}, but this model takes {value}: other "
                    "feature extractors are not supported"
                )
        return extractor

    def transformers_config(self, depth: int, vocabulary: int) -> Any:
        """A thinker without layers for images."""
        return super(ThinkerFamily, self).transformers_config(depth, vocabulary)

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """With positions, which aren't in files."""
        model.model.audio_tower.positional_embedding = self.positions()
        return super().transformers_modules(model)


def _thinker(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A thinker's configuration as transformers has it. Raises CheckpointError for a forced
    aligner, and for positions that aren't the same on all axes of the rotary embedding."""
    audio, text = (settings.get(part) for part in ("audio_config", "text_config"))
    scaling = text.get("rope_scaling") if isinstance(text, Mapping) else None
    kind = scaling.get("rope_type", "default") if isinstance(scaling, Mapping) else "default"
    if "classify_num" in settings or kind != "default":
        raise CheckpointError(
            f"{name} has classify_num={settings.get('classify_num')} and rope_type={kind!r}; only "
            "models that transcribe (without classify_num), of type 'default', are supported"
        )
    return {
        **{key: settings[key] for key in ("audio_token_id", "dtype") if key in settings},
        "audio_config": known_fields(audio, Qwen3ASREncoderConfig),
        "text_config": known_fields(text, Qwen3Config),
    }
