"""From the last position to words: greedy by default, sampled on request, for all clips at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import OptionError
from .lm import LanguageModel, Positions
from .packed import KeyValueCache, whole_rows
from .prompt import Prompts
from .tap import Stage, Tap

__all__ = ["Sampling", "TextStream", "generate"]

_NORM = Tap(Stage.LM_NORM)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: where an answer is cut off; `Answer.complete` says whether it was.
        temperature: 0 takes the most likely token each time.
        top_p: sample from the most likely tokens that together have this probability.
        seed: makes sampling repeatable (greedy always is); each clip's draws are its own,
            whatever stands beside it.

    Raises:
        OptionError: for values without meaning.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            if not isinstance(getattr(self, name), int | float):
                raise OptionError(f"{name}={getattr(self, name)!r} is not a number")
        if not (isinstance(self.max_new_tokens, int) and self.max_new_tokens >= 1):
            raise OptionError(
                f"max_new_tokens={self.max_new_tokens!r}: use a whole number, 1 or more"
            )
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"temperature={self.temperature!r}: use 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p={self.top_p!r}: use a probability above 0, at most 1")
        if self.top_p < 1 and self.temperature == 0:
            raise OptionError(f"top_p={self.top_p!r} does nothing at temperature 0: set both")
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise OptionError(f"seed={self.seed!r}: use a whole number from 0 to 2**63 - 1")


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
    choose = _Chooser(sampling, repetition_penalty, read)
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
            step = [Positions((new[clip][-1],)) for clip in going]
            read_now = model.forward(step, [_NORM], whole_rows, cache, tuple(going))
            rows = torch.cat(read_now[_NORM])
    return [tuple(tokens) for tokens in new]


class _Chooser:
    """Logits → the next token, by transformers' own processors, in transformers' order."""

    def __init__(
        self, sampling: Sampling, repetition_penalty: float, read: Sequence[Sequence[int]]
    ) -> None:
        from transformers.generation import logits_process

        self._read = read
        self._processors = logits_process.LogitsProcessorList()
        if repetition_penalty != 1.0:
            self._processors.append(
                logits_process.RepetitionPenaltyLogitsProcessor(repetition_penalty)
            )
        self._generators: list[torch.Generator] | None = None
        if sampling.temperature > 0:
            self._processors.append(logits_process.TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_p < 1:
                self._processors.append(logits_process.TopPLogitsWarper(sampling.top_p))
            seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
            self._generators = [torch.Generator().manual_seed(seed) for _ in read]

    def __call__(self, logits: Float[Tensor, " vocabulary"], clip: int, new: Sequence[int]) -> int:
        if not self._processors:
            return int(logits.argmax())
        ids: Any = torch.tensor([[*self._read[clip], *new]], device=logits.device)
        scores = self._processors(ids, logits[None])[0]
        if self._generators is None:
            return int(scores.argmax())
        probabilities = scores.softmax(-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generators[clip]))
