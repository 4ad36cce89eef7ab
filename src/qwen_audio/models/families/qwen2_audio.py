"""Qwen2-Audio: Whisper's encoder, a linear projector, and Qwen2."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)
from transformers.models.qwen2_audio.modeling_qwen2_audio import (
    Qwen2AudioEncoderLayer,
    Qwen2AudioMultiModalProjector,
)

from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.whisper_language import WhisperLanguageFamily

__all__ = ["Qwen2Audio"]


def _default_template() -> str:
    from transformers import Qwen2AudioProcessor

    default: Any = Qwen2AudioProcessor.default_chat_template  # a property that uses no state
    return str(default.fget(None))


class Qwen2Audio(WhisperLanguageFamily):
    """Windows of at most 30 s, 25 audio tokens a second.

    A base checkpoint takes a plain prompt,
    `<|audio_bos|><|AUDIO|><|audio_eos|>Describe the music:`; an Instruct checkpoint takes its chat
    template.
    """

    title = "Qwen2-Audio"
    config_class = Qwen2AudioConfig
    transformers_class = Qwen2AudioForConditionalGeneration
    encoder_layer = Qwen2AudioEncoderLayer
    projector = Qwen2AudioMultiModalProjector
    feature_mask = "feature_attention_mask"
    text_model_type = "qwen2"
    decoder_layer, norm, rotary = Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding
    prompt_format = PromptFormat(
        title=title,
        audio="<|AUDIO|>",
        before_audio="<|audio_bos|>",
        after_audio="<|audio_eos|>",
        default_template=_default_template,
    )

    @property
    def audio_token_id(self) -> int:
        """Of `<|AUDIO|>`."""
        return int(self.config.audio_token_index)
