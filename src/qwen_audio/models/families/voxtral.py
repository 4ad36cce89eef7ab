"""Voxtral: Whisper's encoder over padded chunks, an MLP, and Llama, with Mistral's prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)
from transformers.models.voxtral.modeling_voxtral import (
    VoxtralEncoderLayer,
    VoxtralMultiModalProjector,
)

from qwen_audio.audio.log_mel import HOP_SAMPLES, mel_frame_count
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.audio.window import WindowLimits
from qwen_audio.models.components.padded_encoder import STACKED_ROWS, PaddedEncoderFamily
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.recording_features import RecordingFeaturesFamily
from qwen_audio.models.components.whisper_encoder import POSITIONS
from qwen_audio.models.components.whisper_features import CHUNK_FRAMES, conv_frame_count
from qwen_audio.models.tap import Stage

__all__ = ["Voxtral"]

_TEMPLATE = """\
{%- set audio = namespace(heard=false) -%}
{{- '<s>' -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' and not loop.first -%}
{{- raise_exception('a system message comes first') -}}
{%- endif -%}
{%- set turn -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
{%- else -%}{%- set audio.heard = true -%}{{- '[BEGIN_AUDIO][AUDIO]' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endset -%}
{%- if message['role'] == 'system' -%}{{- '[SYSTEM_PROMPT]' ~ turn ~ '[/SYSTEM_PROMPT]' -}}
{%- elif message['role'] == 'user' -%}{{- '[INST]' ~ turn ~ '[/INST]' -}}
{%- else -%}{{- turn ~ '</s>' -}}
{%- endif -%}
{%- endfor -%}
{%- if audio.heard and messages[0]['role'] == 'system' -%}
{{- raise_exception('Voxtral takes no system message with audio') -}}
{%- endif -%}"""
"""What mistral-common makes of a conversation: Voxtral's checkpoints have tekken.json alone."""


class Voxtral(RecordingFeaturesFamily, PaddedEncoderFamily):
    """375 audio tokens for each 30 s begun, those of padding included; a window is asked about as a
    whole, and encoded in chunks of 30 s; a recording is normalised as a whole.

    All checkpoints take Mistral's template.
    """

    title = "Voxtral"
    config_class = VoxtralConfig
    transformers_class = VoxtralForConditionalGeneration
    encoder_layer = VoxtralEncoderLayer
    projector = VoxtralMultiModalProjector
    feature_mask = ""
    text_model_type = "llama"
    decoder_layer, norm, rotary = LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding
    float32_names = (POSITIONS,)
    # 30,000 audio tokens, in a context of 32k that model cards state; its processor has no limit.
    window_limits = WindowLimits(max_seconds=2400.0)
    prompt_format = PromptFormat(
        title=title,
        audio="[AUDIO]",
        text_start="<s>",
        before_audio="[BEGIN_AUDIO]",
        turn_start="[INST]",
        turn_end="</s>",
        always_chat=True,
        transcription_prompt="<s>[INST][BEGIN_AUDIO][AUDIO][/INST][TRANSCRIBE]",
        default_template=lambda: _TEMPLATE,
    )

    def chunk_features(
        self, samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
    ) -> Float32[np.ndarray, "chunks mel_bins frames"]:
        """Chunks that are normalised together: by the maximum over all of them."""
        features = extractor(
            samples,
            sampling_rate=SAMPLE_RATE_HZ,
            padding="longest",
            pad_to_multiple_of=extractor.n_samples,
            truncation=False,
            return_tensors="np",
        )["input_features"][0]
        chunks: np.ndarray = features.reshape(len(features), -1, CHUNK_FRAMES).swapaxes(0, 1)
        return chunks

    def padded_samples(self, samples: int) -> int:
        """A multiple of 30 s."""
        return self.window_frames(samples) * HOP_SAMPLES

    def window_frames(self, samples: int) -> int:
        """Those of padding included."""
        return -(-mel_frame_count(samples) // CHUNK_FRAMES) * CHUNK_FRAMES

    def rows(self, stage: Stage, mel_frames: int) -> int:
        """Of the projector's rows, those that hold any audio."""
        if stage <= Stage.ENCODER:
            return super().rows(stage, mel_frames)
        return -(-conv_frame_count(mel_frames) // STACKED_ROWS)

    def audio_tokens(self, mel_frames: int) -> int:
        """The language model is given the rows of padding, too."""
        return self.encoder_rows(mel_frames) // STACKED_ROWS

    def transformers_inputs(
        self, samples: Float32[np.ndarray, "samples"], extractor: Any
    ) -> dict[str, Tensor]:
        """No mask."""
        features = self.chunk_features(samples, extractor)
        return {"input_features": torch.from_numpy(np.ascontiguousarray(features))}
