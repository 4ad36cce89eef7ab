"""The fewest bytes of weights that a pass holds in memory at once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import torch

from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Tap
from qwen_audio.models.tensors import EMBEDDINGS

__all__ = ["least_weight_bytes"]

_LAYER = re.compile(r"(.+\.layers)\.(\d+)\.")


def least_weight_bytes(checkpoint: Checkpoint, tap: Tap | None, dtype: torch.dtype) -> int:
    """Of one module, or of two layers, as one is read while another computes; with an expert each,
    as others are read in its place.

    Args:
        tap: the deepest; None for text.
    """
    resident: dict[str, Counter[str]] = defaultdict(Counter)
    streamed: dict[str, Counter[str]] = defaultdict(Counter)
    experts = checkpoint.family.experts_prefix
    for name in checkpoint.required_tensors(tap):
        if name == EMBEDDINGS:
            continue
        match = _LAYER.match(name)
        module, layer = (match[1], match[2]) if match else (name.rpartition(".")[0], "")
        size = checkpoint.weight_bytes(name, dtype)
        resident[module][layer] += size
        inner = name[match.end() :] if match else name
        if not experts or not inner.startswith(experts) or inner.startswith(f"{experts}0."):
            streamed[module][layer] += size
    at_once = (
        min(layers.total(), 2 * max(streamed[module].values()))
        for module, layers in resident.items()
    )
    return max(at_once, default=0)
