"""Music Flamingo: Audio Flamingo 3 with rotary time embeddings; a window is up to 20 minutes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import MusicFlamingoConfig, MusicFlamingoForConditionalGeneration
from transformers.models.musicflamingo.modeling_musicflamingo import (
    MusicFlamingoMultiModalProjector,
    MusicFlamingoRotaryEmbedding,
    apply_rotary_time_emb,
)

from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.weights.module_store import ModuleStore

from .audio_flamingo_3 import AudioFlamingo3

__all__ = ["MusicFlamingo"]

_CHUNK_TOKENS = 750
"""Of a chunk of 30 s. transformers pads every chunk to it, and angles depend on it."""


class MusicFlamingo(AudioFlamingo3):
    """Rows at `audio_tower` are rotated by their time in the window, in seconds, and the number of
    their chunk; markers stand around the rows of each audio in the language model."""

    title = "Music Flamingo"
    config_class = MusicFlamingoConfig
    transformers_class = MusicFlamingoForConditionalGeneration
    projector = MusicFlamingoMultiModalProjector
    window_limits = WindowLimits(max_seconds=1200.0)  # after which its processor truncates
    prompt_format = PromptFormat(
        title=title,
        audio="<sound>",
        before_rows="<|sound_bos|>",
        after_rows="<|sound_eos|>",
        always_chat=True,
    )

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for rotary time embeddings that transformers' module lacks."""
        super().check_config(name)
        rope = self.config.rope_parameters
        kind, theta = rope["rope_type"], rope["rope_theta"]
        if kind != "default" or theta < _CHUNK_TOKENS:  # it has angles for `theta` rows
            raise CheckpointError(
                f"{name} has rotary time embeddings with rope_type={kind!r} and "
                f"rope_theta={theta:g}; only 'default', with at least {_CHUNK_TOKENS}, is supported"
            )

    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "pooled width"]:
        """Pooled, normed and rotated: what the projector is given."""
        chunks = super().tower(modules, frames).split(_CHUNK_TOKENS)
        return torch.cat([self._rotated(chunk, number) for number, chunk in enumerate(chunks)])

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """Those with weights; the rotary time embedding, which has none, is put in its place."""
        model.model.pos_emb = MusicFlamingoRotaryEmbedding(self.config)
        return super().transformers_modules(model)

    @cached_property
    def _time_embedding(self) -> MusicFlamingoRotaryEmbedding:
        """Buffers in float32, whatever the dtype of the weights."""
        return MusicFlamingoRotaryEmbedding(self.config)

    def _rotated(
        self, rows: Float[Tensor, "pooled width"], number: int
    ) -> Float[Tensor, "pooled width"]:
        """The rows of a window's chunk, which begins after `number` of them."""
        step_seconds = self.config.audio_frame_step * 4  # two mel frames a row, pooled by two
        chunk = torch.tensor([[number]], device=rows.device)
        offsets = torch.arange(_CHUNK_TOKENS, device=rows.device, dtype=torch.float32)
        times = chunk * _CHUNK_TOKENS * step_seconds + offsets * step_seconds
        angles = self._time_embedding.to(rows.device)(times, seq_len=_CHUNK_TOKENS)
        cosines, sines = (part[0, : len(rows)] for part in angles)
        rotated: Tensor = apply_rotary_time_emb(rows, cosines, sines)
        return rotated
