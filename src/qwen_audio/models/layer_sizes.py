"""Sizes inside the layers of a model."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LayerSizes"]


@dataclass(frozen=True)
class LayerSizes:
    """What the cost of a model's layers depends on, beside its dimensions; 0 where it has none.

    Attributes:
        encoder_ffn_width, lm_ffn_width: of feed-forward blocks; of experts, those of one token.
        attended_rows: rows of the encoder that attend to each other, at most.
        lm_heads, lm_kv_heads, lm_head_dim: of the language model's attention.
        max_positions: of the language model: its context.
    """

    encoder_ffn_width: int
    attended_rows: int
    lm_ffn_width: int = 0
    lm_heads: int = 0
    lm_kv_heads: int = 0
    lm_head_dim: int = 0
    max_positions: int = 0
