"""Many versions of a clip's sound, in as few passes as fit, and answers about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from qwen_audio.audio.log_mel import LogMel

from .choices import Choices, has_leading_space
from .memory_budget import batch_by_size
from .pipeline import Pipeline

__all__ = ["answer_tokens", "encode_mels", "shuffled_audio"]


def encode_mels(pipeline: Pipeline, mels: Iterable[LogMel]) -> list[list[Tensor]]:
    """For each window its rows at `projector`, as `Pipeline.score` and `generate` take them.

    Args:
        mels: of which no more than a pass takes are in memory at a time.
    """
    family = pipeline.checkpoint.family

    def frames(mel: LogMel) -> tuple[int]:
        return (family.encoder_rows(mel.valid_frames),)

    return [
        [rows]
        for batch in batch_by_size(mels, frames, [pipeline.memory.max_frames])
        for rows in pipeline.encode_audio(batch)
    ]


def shuffled_audio(pipeline: Pipeline, rows: Tensor, random: np.random.Generator) -> Tensor:
    """A window's rows at `projector` with those of audio in another order; padding stays."""
    padding = pipeline.padding_of(rows)
    order = np.arange(len(rows))
    order[: len(rows) - padding] = random.permutation(len(rows) - padding)
    shuffled = rows[torch.from_numpy(order).to(rows.device)]
    pipeline.note_padding(shuffled, padding)
    return shuffled


def answer_tokens(
    pipeline: Pipeline, prompt_text: str, answers: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Tokens of answers as they follow a rendered prompt; see `Choices`.

    Raises:
        OptionError: for answers that are empty or the same, or one that begins another.
    """
    tokenizer = pipeline.tokenizer
    leading_space = has_leading_space(prompt_text, chat=tokenizer.uses_chat_template)
    options = {"leading_space": leading_space, "include_end": False}
    return Choices.of(answers, tokenizer, **options).token_ids
