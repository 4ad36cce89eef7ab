"""Qwen2-Audio's encoder around its layers: convolutions and positions before, pooling after."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, gelu

from qwen_audio.audio.log_mel import LogMel
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["pool_and_norm", "stem"]


def stem(modules: ModuleStore, config: Any, mel: LogMel) -> Float[Tensor, "rows width"]:
    """Two convolutions and the position embeddings: (bins, mel frames) → (encoder frames, width).

    `mel` holds the frames after the clip that the convolutions reach into; rows beyond the clip
    are dropped.

    Args:
        config: transformers' Qwen2AudioEncoderConfig.
    """
    width = config.d_model
    conv1 = modules.get(
        "audio_tower.conv1.",
        lambda: nn.Conv1d(config.num_mel_bins, width, kernel_size=3, padding=1),
    )
    conv2 = modules.get(
        "audio_tower.conv2.",
        lambda: nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1),
    )
    positions = modules.get(
        "audio_tower.embed_positions.",
        lambda: nn.Embedding(config.max_source_positions, width),
    )
    features = torch.from_numpy(mel.input_features).to(modules.device, modules.dtype)
    frames = gelu(conv2(gelu(conv1(features[None]))))[0].T[: mel.encoder_frames]
    return frames + positions.weight[: len(frames)]


def pool_and_norm(
    modules: ModuleStore, config: Any, frames: Float[Tensor, "rows width"]
) -> Float[Tensor, "pooled width"]:
    """Average pairs of frames, then layer norm. An odd last frame has no row of its own: it only
    reaches its neighbours, through attention."""
    norm = modules.get("audio_tower.layer_norm.", lambda: nn.LayerNorm(config.d_model))
    return norm(avg_pool1d(frames.T[None], kernel_size=2, stride=2)[0].T)
