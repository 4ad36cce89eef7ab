"""Audio Flamingo 3: Whisper's encoder, an MLP, and Qwen2; a window is up to ten minutes."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration
from transformers.models.audioflamingo3.modeling_audioflamingo3 import (
    AudioFlamingo3EncoderLayer,
    AudioFlamingo3MultiModalProjector,
)
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)

from qwen_audio.audio.window import WindowLimits
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.whisper_language import WhisperLanguageFamily

__all__ = ["AudioFlamingo3"]


class AudioFlamingo3(WhisperLanguageFamily):
    """25 audio tokens a second; a window is encoded in chunks of 30 s, and asked about as a whole.

    All checkpoints take the chat template.
    """

    title = "Audio Flamingo 3"
    config_class: ClassVar[type] = AudioFlamingo3Config
    transformers_class: ClassVar[type] = AudioFlamingo3ForConditionalGeneration
    encoder_layer = AudioFlamingo3EncoderLayer
    projector: ClassVar[type[nn.Module]] = AudioFlamingo3MultiModalProjector
    feature_mask = "input_features_mask"
    text_model_type = "qwen2"
    decoder_layer, norm, rotary = Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding
    window_limits = WindowLimits(max_seconds=600.0)  # after which its processor truncates
    prompt_format = PromptFormat(title=title, audio="<sound>", always_chat=True)
