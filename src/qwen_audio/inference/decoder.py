"""The decoder's pass: token ids and audio rows → hidden states of any layer, and logits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qwen_audio.errors import OptionError
from qwen_audio.models.attention_recorder import AttentionRecorder
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.kv_cache import CachePass, KeyValueCache
from qwen_audio.models.packed_attention import Packing
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
        tree: the parents of the last positions, where these are a tree of continuations: indices
            among them, each smaller than its child's, and -1 for the position before the tree.
            Those with the same parent share their place in the sequence, and don't see each other.
    """

    token_ids: tuple[int, ...]
    audio_rows: Float[Tensor, "rows width"] | None = None
    tree: tuple[int, ...] = ()

    def suffix(self, start: int, audio_id: int) -> DecoderInput:
        """The positions from `start` on, which is not in a tree."""
        before = self.token_ids[:start].count(audio_id)
        rows = None if self.audio_rows is None else self.audio_rows[before:]
        return DecoderInput(self.token_ids[start:], rows, self.tree)

    def segments(self, audio_id: int, audio_rows: int | None = None) -> tuple[Segment, ...]:
        """Which positions are prompt and which audio, in order; those of a tree are generated.

        Args:
            audio_rows: how many of the audio positions hold audio; those after them, padding.
        """
        segments: list[Segment] = []
        places = itertools.count()
        for token in self.token_ids[: len(self.token_ids) - len(self.tree)]:
            kind: SpanKind = "prompt"
            if token == audio_id:
                kind = "audio" if audio_rows is None or next(places) < audio_rows else "padding"
            if segments and segments[-1][0] == kind:
                segments[-1] = (kind, segments[-1][1] + 1)
            else:
                segments.append((kind, 1))
        return (*segments, *((("generated", len(self.tree)),) if self.tree else ()))


class LanguageModel:
    """The decoder and its head; only as many layers as needed are built."""

    def __init__(self, checkpoint: Checkpoint, modules: ModuleStore) -> None:
        self._checkpoint, self._modules = checkpoint, modules
        self._device = modules.device
        self._family = checkpoint.family
        self.audio_token_id = self._family.audio_token_id
        self._rotary = self._family.rotary_embedding().to(self._device)
        self._embeddings: dict[int, Tensor] = {}

    @property
    def repetition_penalty(self) -> float:
        """The checkpoint's, of generated tokens; 1 for none."""
        return self._checkpoint.repetition_penalty

    @property
    def max_positions(self) -> int:
        """Of audio and text together, prompt and answer: the model's context."""
        return self._family.sizes.max_positions

    def check_context(self, positions: int) -> None:
        """Raises OptionError for an input of more positions than the model's context."""
        if positions > self.max_positions:
            raise OptionError(
                f"{positions} positions of audio and text, but the model reads at most "
                f"{self.max_positions}: use a shorter prompt or conversation, or shorter windows"
            )

    def new_cache(self) -> KeyValueCache:
        """An empty cache for all layers of this model."""
        sizes = self._family.sizes
        return KeyValueCache(
            self._family.dimensions.lm_layers,
            sizes.lm_kv_heads,
            sizes.lm_head_dim,
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
        recorder: AttentionRecorder | None = None,
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
            recorder: of the pass's attention weights.

        Returns:
            For each tap what the reducer made of every input.

        Raises:
            OptionError: if audio and prompt are longer than the model's context.
            NotFiniteError: if rows overflow at a tap up to the deepest (see `FiniteCheck.check`).
        """
        wanted = set(taps)
        deepest = max(wanted)
        lengths = tuple(len(item.token_ids) for item in inputs)
        hidden_states = torch.cat([self._embed(item) for item in inputs])
        arguments = self.layer_arguments(
            hidden_states, lengths, cached, [item.tree for item in inputs], recorder
        )
        depth = self._family.dimensions.lm_layers
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
        for k, layer in enumerate(self._family.decoder_layers(self._modules, depth), start=1):
            hidden_states = self.run_layer(layer, hidden_states, arguments)
            reduce_rows(Tap(Stage.LM, k), hidden_states)
        if Tap(Stage.LM_NORM) in wanted:
            reduce_rows(Tap(Stage.LM_NORM), self.final_norm()(hidden_states))
        return outputs

    def layer_arguments(
        self,
        hidden_states: Float[Tensor, "rows width"],
        lengths: Sequence[int],
        cached: CachePass | None = None,
        trees: Sequence[tuple[int, ...]] = (),
        recorder: AttentionRecorder | None = None,
    ) -> tuple[Any, Packing]:
        """What `run_layer` takes beside hidden states: their positions, and where clips end.

        Args:
            trees: see `DecoderInput.tree`; empty where no clip has one.

        Raises:
            OptionError: for more positions than the model's context.
        """
        packing = Packing(tuple(lengths), cached, tuple(trees) if any(trees) else (), recorder)
        positions: list[int] = []
        for index, length in enumerate(lengths):
            start, tree = packing.past(index), packing.tree(index)
            chain = length - len(tree)
            places = list(range(start, start + chain))
            for parent in tree:
                places.append(start + chain if parent < 0 else places[chain + parent] + 1)
            positions += places
        self.check_context(max(positions) + 1)
        position_ids = to_device(positions, torch.long, self._device)
        return self._family.position_embeddings(self._rotary, hidden_states, position_ids), packing

    def layers(self) -> Iterator[nn.Module]:
        """All layers in order; see `ModuleStore.layers`."""
        return self._family.decoder_layers(self._modules, self._family.dimensions.lm_layers)

    def run_layer(
        self, layer: nn.Module, hidden_states: Float[Tensor, "rows width"], arguments: Any
    ) -> Float[Tensor, "rows width"]:
        """Hidden states after a layer, of those before it and `layer_arguments`."""
        return self._family.run_decoder_layer(layer, hidden_states, *arguments)

    def final_norm(self) -> nn.Module:
        """The norm before the head."""
        return self._family.final_norm(self._modules)

    def load_head(self) -> None:
        """Read the head, if it isn't in memory: packing takes its memory twice for a moment, for
        which there is more room before the layers are read than after."""
        self._family.lm_head(self._modules)

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
        scores: Tensor = self._family.lm_head(self._modules)(rows)
        watched = self.new_check() if finite is None else finite
        watched.watch(None, scores)
        if finite is None:
            watched.check()
        return scores

    @torch.no_grad()
    def lens_logits(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logit lens: final norm and head over rows of any `lm.k`."""
        return self.logits(self.final_norm()(rows))

    def _embed(self, item: DecoderInput) -> Float[Tensor, "rows width"]:
        """Text embeddings, with the projector's rows at the audio positions."""
        if item.audio_rows is None:
            return self._token_embeddings(item.token_ids)
        places: dict[bool, list[int]] = {True: [], False: []}
        for position, token in enumerate(item.token_ids):
            places[token == self.audio_token_id].append(position)
        text = self._token_embeddings([item.token_ids[position] for position in places[False]])
        embedded = text.new_empty(len(item.token_ids), self._family.dimensions.lm_width)
        for is_audio, rows in ((True, item.audio_rows.to(embedded)), (False, text)):
            embedded.index_copy_(0, to_device(places[is_audio], torch.long, self._device), rows)
        return embedded

    def _token_embeddings(self, token_ids: Sequence[int]) -> Float[Tensor, "rows width"]:
        """Embeddings of tokens: read one by one, as most of the table is never needed."""
        if not token_ids:  # a prompt of nothing but audio
            width = self._family.dimensions.lm_width
            return torch.empty(0, width, dtype=self._modules.dtype, device=self._device)
        unread = [token for token in dict.fromkeys(token_ids) if token not in self._embeddings]
        rows = self._checkpoint.embedding_rows(unread) if unread else []
        for token, row in zip(unread, rows, strict=True):
            self._embeddings[token] = row.to(self._device, self._modules.dtype)
        return torch.stack([self._embeddings[token] for token in token_ids])
