"""Qwen2-Audio's encoder around its layers: convolutions and positions before, pooling after."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, gelu, linear, pad

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
    frames = gelu(_convolve(conv2, gelu(_convolve(conv1, features)))).T[: mel.encoder_frames]
    return frames + positions.weight[: len(frames)]


def _convolve(
    conv: nn.Conv1d, features: Float[Tensor, "channels frames"]
) -> Float[Tensor, "width rows"]:
    """A convolution; on an NVIDIA GPU as a matrix product.

    There cuDNN would compute a float32 convolution in TF32 by default, with errors of 4e-4, and
    what turns that off is a setting of the whole process. Products are in float32 by default.
    """
    return _as_product(conv, features) if features.is_cuda else conv(features[None])[0]


def _as_product(
    conv: nn.Conv1d, features: Float[Tensor, "channels frames"]
) -> Float[Tensor, "width rows"]:
    """A convolution as the product of its weight and the frames that each row is made of."""
    padding = int(conv.padding[0])
    padded = pad(features, (padding, padding))
    patches = padded.unfold(1, conv.kernel_size[0], conv.stride[0])  # channels, rows, size
    return linear(patches.transpose(0, 1).flatten(1), conv.weight.flatten(1), conv.bias).T


def pool_and_norm(
    modules: ModuleStore, config: Any, frames: Float[Tensor, "rows width"]
) -> Float[Tensor, "pooled width"]:
    """Average pairs of frames, then layer norm. An odd last frame has no row of its own: it only
    reaches its neighbours, through attention."""
    norm = modules.get("audio_tower.layer_norm.", lambda: nn.LayerNorm(config.d_model))
    return norm(avg_pool1d(frames.T[None], kernel_size=2, stride=2)[0].T)
