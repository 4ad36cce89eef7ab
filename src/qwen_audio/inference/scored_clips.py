"""Samples → how likely given answers are: many versions of clips, in as few passes as fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.audio.log_mel import LogMel

from .choices import Choices, has_leading_space
from .memory_budget import batch_by_size
from .pipeline import Pipeline

__all__ = ["answer_tokens", "encode_clips"]


def encode_clips(
    pipeline: Pipeline, clips: Iterable[Float32[np.ndarray, "samples"]]
) -> list[list[Tensor]]:
    """For each clip its rows at `projector`, as `Pipeline.score` and `generate` take them.

    Each clip is one window.
    """
    family = pipeline.checkpoint.family

    def frames(mel: LogMel) -> tuple[int]:
        return (family.encoder_rows(mel.valid_frames),)

    mels = (pipeline.log_mel(samples) for samples in clips)
    return [
        [rows]
        for batch in batch_by_size(mels, frames, [pipeline.memory.max_frames])
        for rows in pipeline.encode_audio(batch)
    ]


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
