"""Text generation: greedy by default, sampled on request, for all inputs of a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.models.kv_cache import KeyValueCache, common_prefix_length
from qwen_audio.models.qwen2_audio.prompt import PromptTokenizer
from qwen_audio.models.tap import Stage, Tap

from .decoder import DecoderInput, LanguageModel
from .options import AnswerEnd, Sampling
from .reducers import all_rows
from .sampling import TokenSampler

__all__ = ["CachedContext", "GeneratedText", "TextStream", "generate_tokens", "generated_text"]

_LM_NORM = Tap(Stage.LM_NORM)


@dataclass(frozen=True)
class GeneratedText:
    """What the language model generated for one input, and what it was given.

    Attributes:
        text: without special tokens, stripped.
        token_ids: generated, the stop token included.
        ended_by: why generation ended.
        audio_tokens, prompt_tokens: positions of the input; audio markers count as prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    ended_by: AnswerEnd
    audio_tokens: int
    prompt_tokens: int


def generated_text(
    tokenizer: PromptTokenizer,
    item: DecoderInput,
    new_ids: tuple[int, ...],
    stop_ids: frozenset[int],
    max_new_tokens: int,
) -> GeneratedText:
    """The tokens generated for an input, as text."""
    audio_tokens = 0 if item.audio_rows is None else len(item.audio_rows)
    ended_by: AnswerEnd = "max_new_tokens" if len(new_ids) >= max_new_tokens else "context"
    return GeneratedText(
        text=tokenizer.decode(new_ids).strip(),
        token_ids=new_ids,
        ended_by="stop token" if new_ids[-1] in stop_ids else ended_by,
        audio_tokens=audio_tokens,
        prompt_tokens=len(item.token_ids) - audio_tokens,
    )


@dataclass(eq=False)
class CachedContext:
    """Token ids that the language model has processed for one input, and their keys and values.

    Passed to `Pipeline.generate` again and again, it saves computing the positions that a new input
    shares with the one before. Where memory is needed for others, it is emptied.

    Attributes:
        owner: what contexts that are used together have in common.
    """

    owner: object = None
    token_ids: tuple[int, ...] = ()
    cache: KeyValueCache | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    def clear(self) -> None:
        """Free the keys and values."""
        self.token_ids, self.cache = (), None

    def shared_with(self, token_ids: Sequence[int]) -> KeyValueCache | None:
        """A cache of the longest common prefix; None where nothing has been processed.

        The last position is always left out: its hidden state decides the next token.
        """
        if self.cache is None:
            return None
        shared = min(common_prefix_length(self.token_ids, token_ids), len(token_ids) - 1)
        return self.cache.truncated(0, shared)


class TextStream:
    """Emits text as soon as its tokens form whole characters.

    The pieces emitted add up to the final text: whitespace at both ends is held back.
    """

    def __init__(self, tokenizer: PromptTokenizer, emit: Callable[[str], None]) -> None:
        self._tokenizer, self._emit = tokenizer, emit
        self._emitted = ""

    def update(self, token_ids: Sequence[int]) -> None:
        """Called with all tokens so far."""
        text = self._tokenizer.decode(token_ids).strip()
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.finish(text)

    def finish(self, text: str) -> None:
        """Emit the part of the text that has not been emitted yet."""
        if len(text) > len(self._emitted):
            self._emit(text[len(self._emitted) :])
            self._emitted = text


def generate_tokens(
    model: LanguageModel,
    last_rows: Sequence[Float[Tensor, "1 width"]],
    cache: KeyValueCache,
    *,
    context_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: frozenset[int],
    repetition_penalty: float = 1.0,
    on_tokens: Callable[[Sequence[int]], None] | None = None,
) -> list[tuple[int, ...]]:
    """Continue every input until a stop token, the limit, or the end of the model's context.

    Each step processes one token an input, all inputs together; one that has stopped costs nothing.

    Args:
        last_rows: for each input the row of `lm.norm` at its last position.
        cache: keys and values of the inputs; extended by all generated tokens but the last.
        context_ids: for each input its token ids (the repetition penalty counts them).
        on_tokens: called after each step with the first input's tokens so far.

    Returns:
        For each input its new tokens, the stop token included.
    """
    sample = TokenSampler(sampling, repetition_penalty, context_ids)
    new_ids: list[list[int]] = [[] for _ in last_rows]
    active = list(range(len(last_rows)))
    rows = torch.cat(list(last_rows))
    while active:
        logits = model.logits(rows).float()
        for scores, clip in zip(logits, active, strict=True):
            new_ids[clip].append(sample(scores, clip, new_ids[clip]))
        if on_tokens is not None and 0 in active:
            on_tokens(new_ids[0])
        active = [
            clip
            for clip in active
            if new_ids[clip][-1] not in stop_ids
            and len(new_ids[clip]) < sampling.max_new_tokens
            and cache.length(clip) < model.max_positions
        ]
        if active:
            step = [DecoderInput((new_ids[clip][-1],)) for clip in active]
            outputs = model.forward(step, [_LM_NORM], all_rows, cache, tuple(active))
            rows = torch.cat(outputs[_LM_NORM])
    return [tuple(ids) for ids in new_ids]
