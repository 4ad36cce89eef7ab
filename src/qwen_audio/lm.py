"""Prompt and audio together → hidden states up to layer k, and the logits of the next token."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)

from .errors import OptionError
from .packed import ATTENTION, KeyValueCache, Packing
from .tap import Stage, Tap
from .weights import Checkpoint, Parts

__all__ = ["LanguageModel", "Positions"]


@dataclass(frozen=True)
class Positions:
    """What the language model reads of one clip: token ids, and where audio stands in their place.

    Attributes:
        ids: one per position; audio positions hold the audio token's id.
        audio: shape (audio positions, width): the projector's rows, for those positions in order.
    """

    ids: tuple[int, ...]
    audio: Float[Tensor, "rows width"] | None = None

    def after(self, start: int, audio_id: int) -> Positions:
        """The positions from `start` on."""
        heard = self.ids[:start].count(audio_id)
        return Positions(self.ids[start:], None if self.audio is None else self.audio[heard:])


class LanguageModel:
    """The decoder, built only as deep as it has been asked to read."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
        self._checkpoint = checkpoint
        self._device = device
        self._config = copy.deepcopy(checkpoint.text_config)
        self._config._attn_implementation = ATTENTION
        self._audio_id: int = checkpoint.config.audio_token_index
        self._parts = Parts(checkpoint, device, dtype)
        self._rotary = Qwen2RotaryEmbedding(self._config).to(device)

    def new_cache(self, clips: int) -> KeyValueCache:
        """An empty cache for the whole depth of this model."""
        return KeyValueCache(self._config.num_hidden_layers, clips)

    @torch.inference_mode()
    def forward(
        self,
        clips: Sequence[Positions],
        taps: Iterable[Tap],
        cache: KeyValueCache | None = None,
        places: tuple[int, ...] | None = None,
    ) -> dict[Tap, list[Float[Tensor, "_rows _width"]]]:
        """Read every tap asked for, for all clips in one pass.

        Args:
            clips: what to read now.
            taps: `lm.k` and `lm.norm`; layers below the deepest are not built.
            cache: what was read before, and is extended by what is read now.
            places: which of the cache's clips these are; all of them where None.

        Returns:
            For each tap one tensor a clip, (positions, width).

        Raises:
            OptionError: if a clip and its prompt are longer than the model's context.
        """
        wanted = set(taps)
        deepest = max(wanted)
        packing = Packing(tuple(len(clip.ids) for clip in clips), cache, places)
        places = places if places is not None else tuple(range(len(clips)))
        starts = [cache.rows(place) if cache else 0 for place in places]
        self._check_context(packing.lengths, starts)
        position_ids = torch.cat(
            [
                torch.arange(start, start + length, device=self._device)
                for start, length in zip(starts, packing.lengths, strict=True)
            ]
        )
        hidden_states = torch.cat([self._embed(clip) for clip in clips])
        position_embeddings = self._rotary(hidden_states[None], position_ids[None])
        depth = deepest.level if deepest.stage is Stage.LM else self._config.num_hidden_layers

        read: dict[Tap, list[Tensor]] = {}
        for k in range((depth or 0) + 1):
            if Tap(Stage.LM, k) in wanted:
                read[Tap(Stage.LM, k)] = list(hidden_states.split(packing.lengths))
            if k < (depth or 0):
                hidden_states = self._layer(k)(
                    hidden_states[None], position_embeddings=position_embeddings, packing=packing
                )[0]
        if Tap(Stage.LM_NORM) in wanted:
            normed = self._norm()(hidden_states)
            read[Tap(Stage.LM_NORM)] = list(normed.split(packing.lengths))
        return read

    @torch.inference_mode()
    def logits(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """The head over rows of `lm.norm`: a score for each token that may come next."""
        head = self._parts.get(
            "language_model.lm_head.",
            lambda: nn.Linear(self._config.hidden_size, self._config.vocab_size, bias=False),
        )
        return head(rows)

    def _embed(self, clip: Positions) -> Float[Tensor, "rows width"]:
        """Text embeddings, with the projector's rows in place of the audio tokens'."""
        table = self._parts.get(
            "language_model.model.embed_tokens.",
            lambda: nn.Embedding(self._config.vocab_size, self._config.hidden_size),
        )
        ids = torch.tensor(clip.ids, device=self._device)
        rows = table(ids)
        if clip.audio is not None:
            rows[ids == self._audio_id] = clip.audio.to(rows)
        return rows

    def _check_context(self, lengths: Sequence[int], starts: Sequence[int]) -> None:
        limit = self._config.max_position_embeddings
        longest = max(start + length for start, length in zip(starts, lengths, strict=True))
        if longest > limit:
            raise OptionError(
                f"{longest} positions of audio and text, but the model reads at most {limit}: "
                "use a shorter prompt or conversation, or shorter windows"
            )

    def _layer(self, k: int) -> nn.Module:
        return self._parts.get(
            f"language_model.model.layers.{k}.",
            lambda: Qwen2DecoderLayer(self._config, layer_idx=k),
        )

    def _norm(self) -> nn.Module:
        return self._parts.get(
            "language_model.model.norm.",
            lambda: Qwen2RMSNorm(self._config.hidden_size, eps=self._config.rms_norm_eps),
        )
