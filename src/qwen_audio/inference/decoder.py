"""The decoder's pass: token ids and audio rows → hidden states of any layer, and logits."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.errors import OptionError
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import CachePass, KeyValueCache
from qwen_audio.models.packed_attention import ATTENTION, Packing
from qwen_audio.models.qwen2_audio.layers import (
    decoder_layers,
    final_norm,
    lm_head,
    rotary_embedding,
)
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.device import to_device
from qwen_audio.weights.module_store import ModuleStore

from .finite import FiniteCheck
from .reducers import TapReducer
from .spans import Segment, SpanKind

__all__ = ["DecoderInput", "LanguageModel"]

T = TypeVar("T")


@dataclass(frozen=True)
class DecoderInput:
    """One input of the language model: text and audio, merged.

    Attributes:
        token_ids: one per position; audio positions hold the audio token's id.
        audio_rows: shape (audio positions, width): the projector's rows for those positions, in
            order; None where there are none.
    """

    token_ids: tuple[int, ...]
    audio_rows: Float[Tensor, "rows width"] | None = None

    def suffix(self, start: int, audio_id: int) -> DecoderInput:
        """The positions from `start` on."""
        before = self.token_ids[:start].count(audio_id)
        rows = None if self.audio_rows is None else self.audio_rows[before:]
        return DecoderInput(self.token_ids[start:], rows)

    def segments(self, audio_id: int) -> tuple[Segment, ...]:
        """Which positions are prompt and which audio, in order."""
        segments: list[Segment] = []
        for token in self.token_ids:
            kind: SpanKind = "audio" if token == audio_id else "prompt"
            if segments and segments[-1][0] == kind:
                segments[-1] = (kind, segments[-1][1] + 1)
            else:
                segments.append((kind, 1))
        return tuple(segments)


class LanguageModel:
    """The decoder and its head; only as many layers as needed are built."""

    def __init__(self, checkpoint: Checkpoint, modules: ModuleStore) -> None:
        self._checkpoint, self._modules = checkpoint, modules
        self._device = modules.device
        self._config = copy.deepcopy(checkpoint.text_config)
        self._config._attn_implementation = ATTENTION
        self.audio_token_id: int = checkpoint.config.audio_token_index
        self._rotary = rotary_embedding(self._config).to(self._device)
        self._embeddings: dict[int, Tensor] = {}

    @property
    def repetition_penalty(self) -> float:
        """The checkpoint's, of generated tokens; 1 for none."""
        return self._checkpoint.repetition_penalty

    @property
    def max_positions(self) -> int:
        """Of audio and text together, prompt and answer: the model's context."""
        return int(self._config.max_position_embeddings)

    def check_context(self, positions: int) -> None:
        """Raises OptionError for an input of more positions than the model's context."""
        if positions > self.max_positions:
            raise OptionError(
                f"{positions} positions of audio and text, but the model reads at most "
                f"{self.max_positions}: use a shorter prompt or conversation, or shorter windows"
            )

    def new_cache(self) -> KeyValueCache:
        """An empty cache for all layers of this model."""
        config = self._config
        head_dim = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        return KeyValueCache(
            config.num_hidden_layers,
            config.num_key_value_heads,
            head_dim,
            self._modules.dtype,
            self._device,
        )

    @torch.no_grad()
    def forward(
        self,
        inputs: Sequence[DecoderInput],
        taps: Iterable[Tap],
        reducer: TapReducer[T],
        cached: CachePass | None = None,
        finite: FiniteCheck | None = None,
    ) -> dict[Tap, list[T]]:
        """One pass over all inputs, as deep as the deepest tap.

        Args:
            inputs: the positions to process now.
            taps: `lm.k` and `lm.norm`; layers below the deepest are not built.
            reducer: called with the rows, (positions, width), of each input at each tap.
            cached: keys and values of the positions before, in a cache that is extended by those of
                `inputs`. Later passes may use them if this one goes through all layers.
            finite: takes what is to be checked, and the caller checks it later. None: rows are
                checked before they are reduced, for which a GPU is waited for.

        Returns:
            For each tap what the reducer made of every input.

        Raises:
            OptionError: if audio and prompt are longer than the model's context.
            NotFiniteError: if rows overflow at a tap up to the deepest (see `FiniteCheck.check`).
        """
        wanted = set(taps)
        deepest = max(wanted)
        lengths = tuple(len(item.token_ids) for item in inputs)
        starts = (0,) * len(inputs) if cached is None else cached.starts
        self.check_context(max(a + n for a, n in zip(starts, lengths, strict=True)))
        packing = Packing(lengths, cached)
        positions = [p for a, n in zip(starts, lengths, strict=True) for p in range(a, a + n)]
        position_ids = to_device(positions, torch.long, self._device)
        hidden_states = torch.cat([self._embed(item) for item in inputs])
        position_embeddings = self._rotary(hidden_states[None], position_ids[None])
        depth = self._config.num_hidden_layers
        if deepest.stage is Stage.LM:
            depth = deepest.layer or 0

        outputs: dict[Tap, list[T]] = {}
        is_checked_now = finite is None
        watched = self.new_check() if finite is None else finite

        def reduce_rows(tap: Tap, rows: Tensor) -> None:
            watched.watch(tap, rows)
            if tap in wanted:
                if is_checked_now:
                    watched.check()
                rows_by_clip = enumerate(rows.split(lengths))
                outputs[tap] = [reducer(tap, clip, rows) for clip, rows in rows_by_clip]

        reduce_rows(Tap(Stage.LM, 0), hidden_states)
        for k, layer in enumerate(decoder_layers(self._modules, self._config, depth), start=1):
            hidden_states = layer(
                hidden_states[None], position_embeddings=position_embeddings, packing=packing
            )[0]
            reduce_rows(Tap(Stage.LM, k), hidden_states)
        if Tap(Stage.LM_NORM) in wanted:
            norm = final_norm(self._modules, self._config)
            reduce_rows(Tap(Stage.LM_NORM), norm(hidden_states))
        return outputs

    def load_head(self) -> None:
        """Read the head, if it isn't in memory: packing takes its memory twice for a moment, for
        which there is more room before the layers are read than after."""
        lm_head(self._modules, self._config)

    def new_check(self) -> FiniteCheck:
        """What a pass of this model has to watch."""
        return FiniteCheck(self._checkpoint, self._embeddings)

    @torch.no_grad()
    def logits(
        self, rows: Float[Tensor, "rows width"], finite: FiniteCheck | None = None
    ) -> Float[Tensor, "rows vocabulary"]:
        """The head over rows of `lm.norm`: a score for each possible next token.

        Args:
            finite: see `forward`.

        Raises:
            NotFiniteError: if they overflow (see `FiniteCheck.check`).
        """
        scores: Tensor = lm_head(self._modules, self._config)(rows)
        watched = self.new_check() if finite is None else finite
        watched.watch(None, scores)
        if finite is None:
            watched.check()
        return scores

    @torch.no_grad()
    def lens_logits(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logit lens: final norm and head over rows of any `lm.k`."""
        return self.logits(final_norm(self._modules, self._config)(rows))

    def _embed(self, item: DecoderInput) -> Float[Tensor, "rows width"]:
        """Text embeddings, with the projector's rows at the audio positions."""
        if item.audio_rows is None:
            return self._token_embeddings(item.token_ids)
        places: dict[bool, list[int]] = {True: [], False: []}
        for position, token in enumerate(item.token_ids):
            places[token == self.audio_token_id].append(position)
        text = self._token_embeddings([item.token_ids[position] for position in places[False]])
        embedded = text.new_empty(len(item.token_ids), self._config.hidden_size)
        for is_audio, rows in ((True, item.audio_rows.to(embedded)), (False, text)):
            embedded.index_copy_(0, to_device(places[is_audio], torch.long, self._device), rows)
        return embedded

    def _token_embeddings(self, token_ids: Sequence[int]) -> Float[Tensor, "rows width"]:
        """Embeddings of tokens: read one by one, as most of the table is never needed."""
        if not token_ids:  # a prompt of nothing but audio
            width = self._config.hidden_size
            return torch.empty(0, width, dtype=self._modules.dtype, device=self._device)
        unread = [token for token in dict.fromkeys(token_ids) if token not in self._embeddings]
        rows = self._checkpoint.embedding_rows(unread) if unread else []
        for token, row in zip(unread, rows, strict=True):
            self._embeddings[token] = row.to(self._device, self._modules.dtype)
        return torch.stack([self._embeddings[token] for token in token_ids])
