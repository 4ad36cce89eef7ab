"""Attention weights of the language model for windows of audio and a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.models.attention_recorder import AttentionRecorder
from qwen_audio.models.tap import Stage, Tap

from .decoder_input import DecoderInput
from .options import Sampling
from .out_of_memory import explains_out_of_memory
from .pipeline import Pipeline
from .spans import Segment

__all__ = ["QuerySpan", "WindowAttention", "attention_weights", "rows_of_span"]

QuerySpan = Literal["last", "prompt", "audio", "generated", "all"]
"""Whose attention: of the position before the answer, the prompt's text, the audio, the answer's
tokens, or of all positions."""


@dataclass(frozen=True, eq=False)
class WindowAttention:
    """Attention weights of one window.

    Attributes:
        weights: by level, head, query and key.
        rows: of the queries, among all positions.
        token_ids, segments: of all positions, which are the keys.
    """

    weights: Float32[np.ndarray, "levels heads queries keys"]
    rows: tuple[int, ...]
    token_ids: tuple[int, ...]
    segments: tuple[Segment, ...]


def rows_of_span(segments: Sequence[Segment], span: QuerySpan) -> tuple[int, ...]:
    """The positions of a span, in order."""
    kinds = [kind for kind, count in segments for _ in range(count)]
    if span == "last":  # before the answer
        return (len(kinds) - kinds.count("generated") - 1,)
    return tuple(row for row, kind in enumerate(kinds) if span in ("all", kind))


@explains_out_of_memory
def attention_weights(
    pipeline: Pipeline,
    windows: Sequence[AudioWindow],
    prompt_text: str,
    levels: Sequence[int],
    heads: Sequence[int] | None,
    span: QuerySpan,
    continuation: Sampling | None = None,
) -> list[WindowAttention]:
    """Attention weights of each window, from a pass that stops at the deepest level.

    Args:
        prompt_text: as rendered.
        levels: k for the attention of the layer before `lm.k`, from 1 on.
        heads: of queries; None: all.
        continuation: also generate, and include the positions of the generated tokens.
    """
    deepest = Tap(Stage.LM, max(levels))
    audio_rows = pipeline.encode_audio([window.log_mel for window in windows])
    pipeline.fetch_weights(deepest if continuation is None else None)
    items = pipeline.build_inputs(prompt_text, [[rows] for rows in audio_rows])
    family = pipeline.checkpoint.family
    segments = [
        item.segments(
            pipeline.tokenizer.audio_token_id,
            family.rows(Stage.PROJECTOR, window.log_mel.valid_frames),
        )
        for item, window in zip(items, windows, strict=True)
    ]
    if continuation is not None:
        texts = pipeline.generate(prompt_text, [[rows] for rows in audio_rows], continuation)
        for number, (item, text) in enumerate(zip(items, texts, strict=True)):
            # The context may end with the last token, which then has no position.
            room = pipeline.lm.max_positions - len(item.token_ids)
            if new_ids := text.token_ids[:room]:
                items[number] = replace(item, token_ids=(*item.token_ids, *new_ids))
                segments[number] += (("generated", len(new_ids)),)

    def positions(item: DecoderInput) -> tuple[int, int]:
        return pipeline.positions(len(item.token_ids), None)

    rows = [rows_of_span(of_window, span) for of_window in segments]
    weights: list[np.ndarray] = []
    for batch in pipeline.memory.batches(items, positions):
        here = list(itertools.islice(rows, len(weights), len(weights) + len(batch)))
        recorder = AttentionRecorder([level - 1 for level in levels], here, heads)
        pipeline.lm.forward(batch, [deepest], _nothing, recorder=recorder)
        for clip in range(len(batch)):
            of_clip = [recorder.weights[level - 1][clip] for level in levels]
            weights.append(torch.stack(of_clip).float().cpu().numpy())
    return [
        WindowAttention(of_clip, chosen, item.token_ids, of_window)
        for of_clip, chosen, item, of_window in zip(weights, rows, items, segments, strict=True)
    ]


def _nothing(_tap: Tap, _clip: int, _rows: torch.Tensor) -> None:
    """Keeps no hidden states (a `TapReducer`)."""
