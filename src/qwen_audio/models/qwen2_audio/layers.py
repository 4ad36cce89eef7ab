"""Qwen2-Audio's transformer layers, and what surrounds the decoder's: rotary embedding, norm, head.

transformers' own modules, built when needed and filled by a `ModuleStore`. Each function takes the
encoder's or the language model's configuration as transformers reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

from qwen_audio.weights.module_store import ModuleStore

from .tensors import LM_HEAD

__all__ = ["decoder_layers", "encoder_layers", "final_norm", "lm_head", "rotary_embedding"]


def encoder_layers(modules: ModuleStore, config: Any, depth: int) -> Iterator[nn.Module]:
    """The first `depth` encoder layers; see `ModuleStore.layers`."""

    def build(_: int) -> nn.Module:
        layer = Qwen2AudioEncoderLayer(config)
        if config.activation_function == "gelu":
            layer.activation_fn = _GeluInPlace()
        return layer

    return modules.layers("audio_tower.layers.", depth, build)


def decoder_layers(modules: ModuleStore, config: Any, depth: int) -> Iterator[nn.Module]:
    """The first `depth` decoder layers; see `ModuleStore.layers`."""
    return modules.layers(
        "language_model.model.layers.", depth, lambda k: Qwen2DecoderLayer(config, layer_idx=k)
    )


def rotary_embedding(config: Any) -> nn.Module:
    """The decoder's rotary position embedding; it has no weights."""
    return Qwen2RotaryEmbedding(config)


def final_norm(modules: ModuleStore, config: Any) -> nn.Module:
    """The norm between the last decoder layer and the head."""
    norm: nn.Module = modules.get(
        "language_model.model.norm.",
        lambda: Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps),
    )
    return norm


def lm_head(modules: ModuleStore, config: Any) -> nn.Module:
    """From normed rows to a logit for every token of the vocabulary."""
    tokens = modules.tensors.shape(LM_HEAD)[0]
    head: nn.Module = modules.get(
        "language_model.lm_head.", lambda: nn.Linear(config.hidden_size, tokens, bias=False)
    )
    return head


class _GeluInPlace(nn.Module):
    """The same numbers as transformers' GELU, in place: its input is a layer's widest tensor, which
    nothing else uses, so that it need not be in memory twice."""

    def forward(self, rows: Tensor) -> Tensor:
        return torch.ops.aten.gelu_(rows)
