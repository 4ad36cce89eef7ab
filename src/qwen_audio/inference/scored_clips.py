"""Samples → how likely given answers are: many versions of clips, in as few passes as fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.audio.log_mel import LogMel

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
) -> list[tuple[int, ...]]:
    """Tokens of answers as they follow a rendered prompt.

    After a plain prompt an answer begins with a space, as in training; after a chat template it
    doesn't.
    """
    tokenizer = pipeline.tokenizer
    is_plain = not tokenizer.uses_chat_template
    before = tokenizer.encode(prompt_text)
    found = []
    for answer in answers:
        text = f" {answer}" if is_plain and not answer[:1].isspace() else answer
        both = tokenizer.encode(prompt_text + text)
        # Where a token would span prompt and answer, the answer is encoded alone.
        is_split = both[: len(before)] == before
        found.append(both[len(before) :] if is_split else tokenizer.encode(text))
    return found
