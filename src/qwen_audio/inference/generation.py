"""Text generation: greedy by default, sampled on request, for all inputs of a batch at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qwen_audio.models.components.prompt import PromptTokenizer
from qwen_audio.models.kv_cache import KeyValueCache, common_prefix_length
from qwen_audio.models.tap import Stage, Tap

from .decoder import LanguageModel
from .decoder_input import DecoderInput
from .options import AnswerEnd, Sampling
from .reducers import last_row
from .sampling import TokenSampler, sample_tokens
from .token_probability import TokenProbability, read_probabilities, token_probabilities

__all__ = [
    "CachedContext",
    "GeneratedText",
    "GeneratingSequence",
    "GenerationBatch",
    "generated_text",
]

_LM_NORM = Tap(Stage.LM_NORM)


@dataclass(frozen=True)
class GeneratedText:
    """What the language model generated for one input, and what it was given.

    Attributes:
        text: without special tokens, stripped.
        token_ids: generated, the stop token included.
        ended_by: why generation ended.
        audio_tokens, prompt_tokens: positions of the input; those of padding count as audio, and
            audio markers as prompt.
    """

    text: str
    token_ids: tuple[int, ...]
    ended_by: AnswerEnd
    audio_tokens: int
    prompt_tokens: int


def generated_text(tokenizer: PromptTokenizer, sequence: GeneratingSequence) -> GeneratedText:
    """The tokens of a sequence that has ended, as text."""
    item, ended_by = sequence.item, sequence.ended_by
    if ended_by is None:
        raise ValueError("the sequence has not ended")
    audio_tokens = 0 if item.audio_rows is None else len(item.audio_rows)
    return GeneratedText(
        text=tokenizer.decode(sequence.token_ids).strip(),
        token_ids=tuple(sequence.token_ids),
        ended_by=ended_by,
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
        cache: of this context alone, in one slot.
    """

    owner: object = None
    token_ids: tuple[int, ...] = ()
    cache: KeyValueCache | None = None
    slot: int = 0

    def __len__(self) -> int:
        """Positions that take memory."""
        return 0 if self.cache is None else self.cache.reserved_positions

    def clear(self) -> None:
        """Free the keys and values."""
        self.token_ids, self.cache = (), None

    def take(
        self, token_ids: Sequence[int], new_cache: Callable[[], KeyValueCache]
    ) -> tuple[KeyValueCache, int]:
        """A cache, and its slot with the longest prefix of token ids that has been processed.

        The context is empty until `keep`: no one else continues what is being written.
        """
        cache, slot, known_ids = self.cache, self.slot, self.token_ids
        self.clear()
        if cache is None:
            cache = new_cache()
            slot = cache.add()
        cache.truncate(slot, common_prefix_length(known_ids, token_ids))
        return cache, slot

    def keep(self, cache: KeyValueCache, slot: int, token_ids: Sequence[int]) -> None:
        """Hold a cache, whose slot has the first positions of `token_ids`, for the next input."""
        self.cache, self.slot = cache, slot
        self.token_ids = tuple(token_ids[: cache.length(slot)])


@dataclass(eq=False)
class GeneratingSequence:
    """One input of the language model, and the tokens generated for it so far.

    Attributes:
        slot: in the cache.
        max_positions: that it will have at most: of prompt, audio and answer.
        token_ids: generated, the stop token included.
        ended_by: why generation ended; None while it goes on, and where the sequence left before.
        last_row: of the last position of an item that is cached whole, shape (1, width), until the
            first token.
        top_count: how many of the likeliest tokens `probabilities` have; None: there are none.
        probabilities: of the tokens generated.
    """

    item: DecoderInput
    sampling: Sampling
    stop_ids: frozenset[int]
    sampler: TokenSampler
    slot: int
    owns_slot: bool
    max_positions: int
    token_ids: list[int] = field(default_factory=list)
    ended_by: AnswerEnd | None = None
    last_row: Tensor | None = None
    top_count: int | None = None
    probabilities: list[TokenProbability] = field(default_factory=list)


class GenerationBatch:
    """Texts that are generated together: sequences join and leave between steps.

    A step is one pass over all sequences: all positions of those that have joined since the last
    step that are not cached yet, and one for each other. A sequence's tokens don't depend on the
    others. One that has ended costs nothing.

    Args:
        cache: of whose slots sequences may continue; None: an empty one.
    """

    def __init__(self, model: LanguageModel, cache: KeyValueCache | None = None) -> None:
        self.cache = model.new_cache() if cache is None else cache
        self.sequences: list[GeneratingSequence] = []
        self._model = model

    def join(
        self,
        item: DecoderInput,
        sampling: Sampling,
        *,
        stop_ids: frozenset[int],
        slot: int | None = None,
        last_row: Tensor | None = None,
        top_count: int | None = None,
    ) -> GeneratingSequence:
        """Add a sequence, from the next step on.

        Args:
            stop_ids: tokens that end it.
            slot: with the first positions of the item; the caller's, and kept when the sequence
                leaves. None: one is added, and released then.
            last_row: of the item's last position at `lm.norm`, shape (1, width), where the slot has
                all positions: none is computed again.
            top_count: see `GeneratingSequence`.

        Raises:
            OptionError: if the item is longer than the model's context.
        """
        length = len(item.token_ids)
        self._model.check_context(length)
        sampler = TokenSampler(sampling, self._model.repetition_penalty, item.token_ids)
        if slot is not None and last_row is None:
            # The last position's hidden state decides the next token.
            self.cache.truncate(slot, length - 1)
        sequence = GeneratingSequence(
            item,
            sampling,
            stop_ids,
            sampler,
            slot=self.cache.add() if slot is None else slot,
            owns_slot=slot is None,
            max_positions=min(length + sampling.max_new_tokens, self._model.max_positions),
            last_row=last_row,
            top_count=top_count,
        )
        self.sequences.append(sequence)
        return sequence

    def leave(self, sequence: GeneratingSequence) -> None:
        """Remove a sequence, whether it has ended or not."""
        self.sequences.remove(sequence)
        if sequence.owns_slot:
            self.cache.release(sequence.slot)

    def step(self) -> list[GeneratingSequence]:
        """Generate one token for every sequence; those that end leave. If it fails, all do.

        Returns:
            The sequences that have one more token: `ended_by` says which have ended.

        Raises:
            NotFiniteError: if rows of one of them overflow.
        """
        batch = list(self.sequences)
        try:
            tokens = self._next_tokens(batch) if batch else []
        except BaseException:
            for sequence in batch:
                self.leave(sequence)
            raise
        for sequence, token in zip(batch, tokens, strict=True):
            sequence.token_ids.append(token)
            sequence.last_row = None
            sequence.ended_by = self._end(sequence)
            if sequence.ended_by is not None:
                self.leave(sequence)
        return batch

    def run(self, on_token: Callable[[GeneratingSequence], None] | None = None) -> None:
        """Step until no sequences are left.

        Args:
            on_token: called with every sequence after each of its tokens; may call `join` and
                `leave`.
        """
        while self.sequences:
            for sequence in self.step():
                if on_token is not None:
                    on_token(sequence)

    def _next_tokens(self, batch: Sequence[GeneratingSequence]) -> list[int]:
        joined = [sequence for sequence in batch if not sequence.token_ids]
        self.cache.reserve({sequence.slot: sequence.max_positions for sequence in joined})
        unread = [sequence for sequence in batch if sequence.last_row is None]
        inputs = [self._unprocessed(sequence) for sequence in unread]
        lengths = [len(item.token_ids) for item in inputs]
        finite = self._model.new_check()
        with self.cache.extend([sequence.slot for sequence in unread], lengths) as cached:
            computed: Iterator[Tensor] = iter(())
            if inputs:
                by_tap = self._model.forward(inputs, [_LM_NORM], last_row, cached, finite)
                computed = iter(by_tap[_LM_NORM])
            rows = [next(computed) if each.last_row is None else each.last_row for each in batch]
            logits = self._model.logits(torch.cat(rows), finite).float()
            tokens = sample_tokens([sequence.sampler for sequence in batch], logits)
            counts = [sequence.top_count for sequence in batch]
            asked = token_probabilities(logits, tokens, counts)
            numbers = finite.check_and_read(torch.cat([tokens.float(), asked]))
        new = [int(token) for token in numbers[: len(batch)]]
        found = read_probabilities(numbers[len(batch) :], new, counts)
        for sequence, probability in zip(batch, found, strict=True):
            sequence.probabilities += [] if probability is None else [probability]
        return new

    def _unprocessed(self, sequence: GeneratingSequence) -> DecoderInput:
        if sequence.token_ids:
            return DecoderInput((sequence.token_ids[-1],))
        start = self.cache.length(sequence.slot)
        return sequence.item.suffix(start, self._model.audio_token_id)

    def _end(self, sequence: GeneratingSequence) -> AnswerEnd | None:
        if sequence.token_ids[-1] in sequence.stop_ids:
            return "stop token"
        if len(sequence.token_ids) >= sequence.sampling.max_new_tokens:
            return "max_new_tokens"
        is_full = self.cache.length(sequence.slot) >= self._model.max_positions
        return "context" if is_full else None
