"""Qwen2-Audio's projector: from the encoder's width to the language model's."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioMultiModalProjector

from qwen_audio.weights.module_store import ModuleStore

__all__ = ["project"]


def project(
    modules: ModuleStore, config: Any, rows: Float[Tensor, "rows width"]
) -> Float[Tensor, "rows lm_width"]:
    """Pooled encoder rows → rows in the text embedding space.

    Args:
        config: transformers' Qwen2AudioConfig.
    """
    projector = modules.get("multi_modal_projector.", lambda: Qwen2AudioMultiModalProjector(config))
    return projector(rows)
