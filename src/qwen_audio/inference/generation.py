"""From the last position to words: greedy by default, sampled on request, for all clips at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from qwen_audio.models.kv_cache import KeyValueCache
from qwen_audio.models.qwen2_audio.prompt import Prompts
from qwen_audio.models.tap import Stage, Tap

from .decoder import DecoderInput, LanguageModel
from .reducers import whole_rows
from .sampling import Sampling, TokenSampler

__all__ = ["TextStream", "generate"]

_NORM = Tap(Stage.LM_NORM)


class TextStream:
    """Hands text on as soon as its tokens are whole characters.

    What has been handed on, put together, is the final text: space at both ends is held back.
    """

    def __init__(self, prompts: Prompts, emit: Callable[[str], None]) -> None:
        self._prompts, self._emit = prompts, emit
        self._sent = ""

    def update(self, ids: Sequence[int]) -> None:
        """Called with all tokens so far."""
        text = self._prompts.text(ids).strip()
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self.finish(text)

    def finish(self, text: str) -> None:
        """Hand on what of the text has not been."""
        if len(text) > len(self._sent):
            self._emit(text[len(self._sent) :])
            self._sent = text


def generate(
    model: LanguageModel,
    last: Sequence[Float[Tensor, "1 width"]],
    cache: KeyValueCache,
    *,
    read: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: frozenset[int],
    repetition_penalty: float = 1.0,
    on_tokens: Callable[[Sequence[int]], None] | None = None,
) -> list[tuple[int, ...]]:
    """Continue every clip until it stops or reaches the limit.

    Each step reads one token a clip, all clips together; a clip that has stopped costs no more.

    Args:
        last: for each clip the row of `lm.norm` at its last position.
        cache: what the clips have read; extended by all tokens generated but the last.
        read: for each clip the merged ids it has read (the repetition penalty counts them).
        on_tokens: called after each step with the first clip's tokens so far.

    Returns:
        For each clip its new tokens, the stopping one included.
    """
    choose = TokenSampler(sampling, repetition_penalty, read)
    new: list[list[int]] = [[] for _ in last]
    going = list(range(len(last)))
    rows = torch.cat(list(last))
    while going:
        logits = model.logits(rows).float()
        for row, clip in zip(logits, going, strict=True):
            new[clip].append(choose(row, clip, new[clip]))
        if on_tokens is not None and 0 in going:
            on_tokens(new[0])
        going = [
            clip
            for clip in going
            if new[clip][-1] not in stop_ids and len(new[clip]) < sampling.max_new_tokens
        ]
        if going:
            step = [DecoderInput((new[clip][-1],)) for clip in going]
            read_now = model.forward(step, [_NORM], whole_rows, cache, tuple(going))
            rows = torch.cat(read_now[_NORM])
    return [tuple(tokens) for tokens in new]
