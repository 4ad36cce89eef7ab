"""Log-probabilities of given continuations: all choices of an input in one pass, as a tree.

Choices share the tokens that they begin with, and all share prompt and audio: each such token is
one position of the pass, which attends to those that lead to it (`DecoderInput.tree`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from qwen_audio.errors import OptionError
from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.device import to_device

from .decoder import LanguageModel
from .decoder_input import DecoderInput
from .finite import FiniteCheck
from .generation import CachedContext
from .out_of_memory import explains_out_of_memory
from .pipeline_stages import PipelineStages
from .reducers import TapReducer
from .token_tree import END, TokenTree, check_choices, split_choices

__all__ = ["ChoiceScores", "ScoringStages", "step_log_probabilities"]

_LM_NORM = Tap(Stage.LM_NORM)

_ROWS_AT_ONCE = 64
"""Whose logits are computed together: 39 MB in float32, of 152 000 tokens."""


@dataclass(frozen=True)
class ChoiceScores:
    """How likely each choice is as the continuation of one input.

    Attributes:
        token_log_probabilities: for each choice those of its tokens, each after the ones before it;
            last that of the answer's end, where it is included.
        is_greedy: for each choice whether each of its tokens is the likeliest at its place.
        last_row: of the input's last position at `lm.norm`, shape (width,): it decides the first
            tokens.
        audio_tokens, padding_tokens, prompt_tokens: positions of the input.
    """

    token_log_probabilities: tuple[tuple[float, ...], ...]
    is_greedy: tuple[bool, ...]
    last_row: Tensor
    audio_tokens: int
    padding_tokens: int
    prompt_tokens: int

    @property
    def log_probability(self) -> Float64[np.ndarray, " choices"]:
        """Of each choice as a whole: the sum over its tokens."""
        return np.array([math.fsum(steps) for steps in self.token_log_probabilities])

    @property
    def mass(self) -> float:
        """The probability of all choices together."""
        return float(np.exp(self.log_probability).sum())


class ScoringStages(PipelineStages):
    """Stages that score given continuations: see `PipelineStages` for the arguments."""

    @explains_out_of_memory
    def score(
        self,
        prompt_text: str,
        audio_rows: Sequence[Sequence[Tensor]],
        choices: Sequence[tuple[int, ...]],
        *,
        include_end: bool = False,
        chat: bool | None = None,
        context: CachedContext | None = None,
    ) -> list[ChoiceScores]:
        """Log-probabilities of choices as continuations of a prompt, for a batch of inputs that
        differ in their audio. No repetition penalty is applied.

        Args:
            prompt_text, audio_rows: see `build_inputs`.
            choices: token ids of each.
            include_end: whether the answer ends after the choice, by any token that ends one.
            chat: whether the end of a turn is one of these; None: as the checkpoint was loaded.
            context: for a single input: what was processed before, not computed again where the
                input begins with it; updated to this input.

        Raises:
            OptionError: for choices that `check_choices` refuses, or an input that doesn't fit the
                prompt or, with the longest choice, the model's context.
            OutOfMemoryError: if the device has less memory than it takes.
        """
        check_choices(choices, list(map(self.tokenizer.decode, choices)), include_end=include_end)
        stop_ids = self.tokenizer.stop_token_ids(chat)
        if include_end and not stop_ids:
            raise OptionError(
                f"include_end=True, but {self.checkpoint.name} names no token that ends an answer "
                "(eos_token_id in generation_config.json): leave it out"
            )
        self.fetch_weights(None)
        if not audio_rows:
            return []
        items = self.build_inputs(prompt_text, audio_rows)
        longest = max(len(item.token_ids) for item in items)
        self.lm.check_context(longest + max(map(len, choices)))
        parts = split_choices(choices)
        if len(parts) == 1 and context is None:
            tree = TokenTree.of(choices, include_end=include_end)
            return self._score_batches(items, tree, stop_ids)
        trees = [
            TokenTree.of([choices[number] for number in part], include_end=include_end)
            for part in parts
        ]
        if self.edits_language_model:  # which act on whole prompts: nothing is cached
            by_tree = [self._score_batches(items, tree, stop_ids) for tree in trees]
            return [_joined(of_parts, parts) for of_parts in zip(*by_tree, strict=True)]
        scores = []
        for item in items:
            shared = CachedContext() if context is None else context
            of_parts = [self._score_in_context(item, tree, stop_ids, shared) for tree in trees]
            scores.append(_joined(of_parts, parts))
        return scores

    def _score_batches(
        self, items: Sequence[DecoderInput], tree: TokenTree, stop_ids: frozenset[int]
    ) -> list[ChoiceScores]:
        """In one pass for as many inputs as fit in memory, without a cache."""

        def positions(item: DecoderInput) -> tuple[int, int]:
            return self.positions(len(item.token_ids) + len(tree.token_ids), None)

        self.memory.divide(None, max(positions(item)[1] for item in items))
        self.lm.load_head()
        scores: list[ChoiceScores] = []
        for batch in self.memory.batches(items, positions):
            self.memory.make_room(sum(positions(item)[1] for item in batch))
            scores += _score_tree(self.lm, batch, tree, stop_ids)
        return scores

    def _score_in_context(
        self,
        item: DecoderInput,
        tree: TokenTree,
        stop_ids: frozenset[int],
        context: CachedContext,
    ) -> ChoiceScores:
        """Of one input; its positions are in the context afterwards, without those of the tree."""
        _, positions = self.positions(len(item.token_ids) + len(tree.token_ids), None)
        self.memory.divide(None, positions)
        self.memory.make_room(positions, context)
        self.lm.load_head()
        cache, slot = context.take(item.token_ids, self.lm.new_cache)
        # The last position's hidden state decides the first tokens.
        cache.truncate(slot, len(item.token_ids) - 1)
        try:
            (scores,) = _score_tree(self.lm, [item], tree, stop_ids, (cache, slot))
        finally:
            context.keep(cache, slot, item.token_ids)
            self.memory.keep(context)
        return scores


def _joined(scores: Sequence[ChoiceScores], parts: Sequence[Sequence[int]]) -> ChoiceScores:
    """Scores of parts of the choices, by their indices, as those of all."""
    by_number = {
        number: of_choice
        for of_part, part in zip(scores, parts, strict=True)
        for number, *of_choice in zip(
            part, of_part.token_log_probabilities, of_part.is_greedy, strict=True
        )
    }
    steps, is_greedy = zip(*(by_number[number] for number in range(len(by_number))), strict=True)
    return replace(scores[0], token_log_probabilities=steps, is_greedy=is_greedy)


def _score_tree(
    model: LanguageModel,
    items: Sequence[DecoderInput],
    tree: TokenTree,
    stop_ids: frozenset[int],
    cached: tuple[KeyValueCache, int] | None = None,
) -> list[ChoiceScores]:
    """One pass over inputs, each with the tree of choices after it.

    Args:
        items: without the tree.
        stop_ids: tokens that end an answer.
        cached: for a single input, a cache and its slot with the first positions of the input, at
            most all but one; it has all of them afterwards.

    Raises:
        NotFiniteError: if rows of one of them overflow.
    """
    inputs = [tree.continue_input(item) for item in items]
    finite = model.new_check()
    if cached is None:
        rows = model.forward(inputs, [_LM_NORM], _rows_of(tree), None, finite)[_LM_NORM]
    else:
        cache, slot = cached
        rest = inputs[0].suffix(cache.length(slot), model.audio_token_id)
        with cache.extend([slot], [len(rest.token_ids)]) as cache_pass:
            rows = model.forward([rest], [_LM_NORM], _rows_of(tree), cache_pass, finite)[_LM_NORM]
        cache.truncate(slot, len(items[0].token_ids))
    asked = [step_log_probabilities(model, of_tree, tree, stop_ids, finite) for of_tree in rows]
    numbers = iter(finite.check_and_read(torch.cat(asked)))
    results = []
    for item, of_tree in zip(items, rows, strict=True):
        steps = list(itertools.islice(numbers, len(tree.steps)))
        is_best = list(itertools.islice(numbers, len(tree.steps)))
        by_choice = tuple(tuple(steps[step] for step in path) for path in tree.paths)
        is_greedy = tuple(all(is_best[step] for step in path) for path in tree.paths)
        audio, padding = (sum(counts) for counts in zip((0, 0), *item.audios, strict=True))
        prompt = len(item.token_ids) - audio - padding
        results.append(ChoiceScores(by_choice, is_greedy, of_tree[0], audio, padding, prompt))
    return results


def _rows_of(tree: TokenTree) -> TapReducer[Tensor]:
    """Keeps the rows that a tree's steps are of, and not the prompt's."""

    def reduce(_tap: Tap, _clip: int, rows: Tensor) -> Tensor:
        return rows[-1 - len(tree.token_ids) :].clone()

    return reduce


def step_log_probabilities(
    model: LanguageModel,
    rows: Float[Tensor, "rows width"],
    tree: TokenTree,
    stop_ids: frozenset[int],
    finite: FiniteCheck,
) -> Float32[Tensor, " numbers"]:
    """Of the steps of a tree, a part of the rows at a time; and then for each step whether its
    token is the likeliest, 1 or 0."""
    result = torch.empty(2, len(tree.steps), device=rows.device)
    stops = to_device(sorted(stop_ids), torch.long, rows.device)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        logits = model.logits(rows[start : start + _ROWS_AT_ONCE], finite).float()
        end = logits[:, stops].logsumexp(-1, keepdim=True)
        both = torch.cat([logits, end], dim=-1) - logits.logsumexp(-1, keepdim=True)
        here = [
            (number, row - start, token)
            for number, (row, token) in enumerate(tree.steps)
            if start <= row < start + _ROWS_AT_ONCE
        ]
        numbers, of_rows, tokens = to_device(here, torch.long, rows.device).T
        best = logits.argmax(-1)[of_rows]
        ends = (tokens == END) & torch.isin(best, stops)
        result[0, numbers] = both[of_rows, tokens]
        result[1, numbers] = ((tokens == best) | ends).float()
    return result.flatten()
