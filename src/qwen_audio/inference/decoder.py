"""Prompt and audio together → hidden states up to layer k, and the logits of the next token."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2DecoderLayer,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
)

from qwen_audio.errors import OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.packed_attention import ATTENTION, Packing
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["DecoderInput", "LanguageModel"]

T = TypeVar("T")


@dataclass(frozen=True)
class DecoderInput:
    """What the language model reads of one clip: token ids, and where audio stands in their place.

    Attributes:
        ids: one per position; audio positions hold the audio token's id.
        audio: shape (audio positions, width): the projector's rows, for those positions in order.
    """

    ids: tuple[int, ...]
    audio: Float[Tensor, "rows width"] | None = None

    def after(self, start: int, audio_id: int) -> DecoderInput:
        """The positions from `start` on."""
        heard = self.ids[:start].count(audio_id)
        return DecoderInput(self.ids[start:], None if self.audio is None else self.audio[heard:])


class LanguageModel:
    """The decoder, built only as deep as it has been asked to read."""

    def __init__(self, checkpoint: Checkpoint, parts: ModuleStore) -> None:
        self._checkpoint, self._modules = checkpoint, parts
        self._device = parts.device
        self._config = copy.deepcopy(checkpoint.text_config)
        self._config._attn_implementation = ATTENTION
        self._audio_id: int = checkpoint.config.audio_token_index
        self._rotary = Qwen2RotaryEmbedding(self._config).to(self._device)
        self._embeddings: dict[int, Tensor] = {}

    def new_cache(self, clips: int) -> KeyValueCache:
        """An empty cache for the whole depth of this model."""
        return KeyValueCache(self._config.num_hidden_layers, clips)

    @torch.inference_mode()
    def forward(
        self,
        clips: Sequence[DecoderInput],
        taps: Iterable[Tap],
        keep: Callable[[Tap, int, Float[Tensor, "_rows _width"]], T],
        cache: KeyValueCache | None = None,
        places: tuple[int, ...] | None = None,
    ) -> dict[Tap, list[T]]:
        """Read every tap asked for, for all clips in one pass.

        Args:
            clips: what to read now.
            taps: `lm.k` and `lm.norm`; layers below the deepest are not built.
            keep: what to keep of a tap and a clip (its place in `clips`), called as soon as its
                rows, (positions, width), are there.
            cache: what was read before, and is extended by what is read now.
            places: which of the cache's clips these are; all of them where None.

        Returns:
            For each tap what was kept of every clip.

        Raises:
            OptionError: if a clip and its prompt are longer than the model's context.
        """
        wanted = set(taps)
        deepest = max(wanted)
        held = places if places is not None else tuple(range(len(clips)))
        starts = [cache.rows(place) if cache else 0 for place in held]
        packing = Packing(tuple(len(clip.ids) for clip in clips), cache, places, any(starts))
        self._check_context(packing.lengths, starts)
        position_ids = torch.cat(
            [
                torch.arange(start, start + length, device=self._device)
                for start, length in zip(starts, packing.lengths, strict=True)
            ]
        )
        hidden_states = torch.cat([self._embed(clip) for clip in clips])
        position_embeddings = self._rotary(hidden_states[None], position_ids[None])
        depth = self._config.num_hidden_layers
        if deepest.stage is Stage.LM:
            depth = deepest.level or 0

        read: dict[Tap, list[T]] = {}

        def kept(tap: Tap, rows: Tensor) -> None:
            if tap in wanted:
                parts = enumerate(rows.split(packing.lengths))
                read[tap] = [keep(tap, place, part) for place, part in parts]

        kept(Tap(Stage.LM, 0), hidden_states)
        layers = self._modules.layers("language_model.model.layers.", depth, self._new_layer)
        for k, layer in enumerate(layers, start=1):
            hidden_states = layer(
                hidden_states[None], position_embeddings=position_embeddings, packing=packing
            )[0]
            kept(Tap(Stage.LM, k), hidden_states)
        if Tap(Stage.LM_NORM) in wanted:
            kept(Tap(Stage.LM_NORM), self._norm()(hidden_states))
        return read

    @torch.inference_mode()
    def logits(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """The head over rows of `lm.norm`: a score for each token that may come next."""
        head = self._modules.get(
            "language_model.lm_head.",
            lambda: nn.Linear(self._config.hidden_size, self._config.vocab_size, bias=False),
        )
        return head(rows)

    @torch.inference_mode()
    def read_out(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Final norm and head over rows of any `lm.k`: what would be said, had it ended there."""
        return self.logits(self._norm()(rows))

    def _embed(self, clip: DecoderInput) -> Float[Tensor, "rows width"]:
        """Text embeddings, with the projector's rows in place of the audio tokens'."""
        if clip.audio is None:
            return self._token_rows(clip.ids)
        is_audio = torch.tensor([token == self._audio_id for token in clip.ids])
        text = self._token_rows([token for token in clip.ids if token != self._audio_id])
        embedded = text.new_empty(len(clip.ids), self._config.hidden_size)
        is_audio = is_audio.to(self._device)
        embedded[is_audio] = clip.audio.to(embedded)
        embedded[~is_audio] = text
        return embedded

    def _token_rows(self, ids: Sequence[int]) -> Float[Tensor, "rows width"]:
        """Embeddings of tokens: read one by one, as most of the table's are never needed."""
        if not ids:  # a prompt that is nothing but audio
            width = self._config.hidden_size
            return torch.empty(0, width, dtype=self._modules.dtype, device=self._device)
        unread = [token for token in dict.fromkeys(ids) if token not in self._embeddings]
        rows = self._checkpoint.embedding_rows(unread) if unread else []
        for token, row in zip(unread, rows, strict=True):
            self._embeddings[token] = row.to(self._modules.dtype)
        return torch.stack([self._embeddings[token] for token in ids]).to(self._device)

    def _check_context(self, lengths: Sequence[int], starts: Sequence[int]) -> None:
        limit = self._config.max_position_embeddings
        longest = max(start + length for start, length in zip(starts, lengths, strict=True))
        if longest > limit:
            raise OptionError(
                f"{longest} positions of audio and text, but the model reads at most {limit}: "
                "use a shorter prompt or conversation, or shorter windows"
            )

    def _new_layer(self, k: int) -> nn.Module:
        return Qwen2DecoderLayer(self._config, layer_idx=k)

    def _norm(self) -> nn.Module:
        return self._modules.get(
            "language_model.model.norm.",
            lambda: Qwen2RMSNorm(self._config.hidden_size, eps=self._config.rms_norm_eps),
        )
