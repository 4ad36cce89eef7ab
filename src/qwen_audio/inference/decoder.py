"""The decoder's pass: token ids and audio rows → hidden states of any layer, and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias, TypeVar

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

from .decoder_input import DecoderInput
from .edited_pass import EditedPositions, parts_called
from .finite import FiniteCheck
from .interventions import is_leaf, outside_gradients
from .reducers import TapReducer

__all__ = ["LanguageModel"]

T = TypeVar("T")

ReduceRows: TypeAlias = Callable[[Tap, Tensor], Tensor]


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

    @outside_gradients
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
            reducer: called with the rows, (positions, width), of each input at each tap, after its
                edits.
            cached: keys and values of the positions before, in a cache that is extended by those of
                `inputs`. Later passes may use them if this one goes through all layers.
            finite: takes what is to be checked, and the caller checks it later. None: rows are
                checked before they are reduced, for which a GPU is waited for.
            recorder: of the pass's attention weights.

        Returns:
            For each tap what the reducer made of every input.

        Raises:
            OptionError: if audio and prompt are longer than the model's context; for edits whose
                rows can't be used.
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
        edited = EditedPositions(self._modules, inputs, cached, self.audio_token_id)

        def reduce_rows(tap: Tap, rows: Tensor) -> Tensor:
            rows = edited.apply(tap, rows)
            if tap.part is None:  # parts add up to what is watched after the layer
                watched.watch(tap, rows)
            if tap in wanted:
                if is_checked_now:
                    watched.check()
                clips = rows.split(lengths)
                if is_leaf(self._modules, tap):
                    clips = tuple(clip.detach().clone().requires_grad_() for clip in clips)
                    rows = torch.cat(clips)
                outputs[tap] = [reducer(tap, clip, rows) for clip, rows in enumerate(clips)]
            return rows

        inner = {tap for tap in wanted | edited.taps if tap.part is not None}
        hidden_states = reduce_rows(Tap(Stage.LM, 0), hidden_states)
        for k, layer in enumerate(self._family.decoder_layers(self._modules, depth), start=1):
            parts = {tap.part: tap for tap in inner if tap.layer == k}
            with self._parts_reduced(layer, parts, reduce_rows):
                hidden_states = self.run_layer(layer, hidden_states, arguments)
            hidden_states = reduce_rows(Tap(Stage.LM, k), hidden_states)
        if Tap(Stage.LM_NORM) in wanted:
            reduce_rows(Tap(Stage.LM_NORM), self.final_norm()(hidden_states))
        return outputs

    def _parts_reduced(
        self, layer: nn.Module, parts: Mapping[str | None, Tap], reduce_rows: ReduceRows
    ) -> AbstractContextManager[None]:
        """While a layer runs, `reduce_rows` is called at the taps inside it."""
        if not parts:
            return nullcontext()
        modules = self._family.layer_parts(layer)
        chosen = {part: module for part, module in modules.items() if part in parts}
        return parts_called(chosen, lambda part, rows: reduce_rows(parts[part], rows))

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

    @outside_gradients
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

    @outside_gradients
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
