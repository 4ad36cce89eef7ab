"""Logit lens readout: final norm and LM head applied to the hidden states of every layer.

The hidden states of a batch are captured in one pass and stay in memory (levels × positions ×
width). Logits over the vocabulary never do: they are computed for a few positions at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.options import SpanName
from qwen_audio.inference.out_of_memory import explains_out_of_memory
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.spans import Segment, spans_and_times
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import EMBEDDINGS

from .lens_options import check_lens_options
from .logit_lens import LogitLens, TrackedToken

__all__ = ["LensReading", "read_windows"]

_LOGITS_PER_BLOCK = 1 << 24
"""64 MB in float32; a few such tensors exist at a time."""
_EMBEDDINGS_PER_BLOCK = 4096
_PROJECTOR = Tap(Stage.PROJECTOR)


@dataclass(frozen=True, eq=False)
class _Window:
    """Results of one window; the first dimension of arrays is the level."""

    window: Window
    segments: tuple[Segment, ...]
    ids: tuple[int, ...]
    entropy_bits: np.ndarray
    top_ids: np.ndarray
    top_probabilities: np.ndarray
    followed_probabilities: np.ndarray
    followed_ranks: np.ndarray
    nearest_ids: np.ndarray | None
    nearest_cosines: np.ndarray | None


class LensReading:
    """Settings of a lens on a pipeline.

    Raises:
        OptionError: for invalid options.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        levels: Sequence[Tap],
        span: SpanName,
        top: int,
        followed: tuple[TrackedToken, ...],
        nearest: bool,
    ) -> None:
        vocabulary = pipeline.checkpoint.vocabulary_size
        top = check_lens_options(levels, span, top, nearest=nearest, vocabulary_size=vocabulary)
        self.pipeline, self.levels, self.span, self.top = pipeline, tuple(levels), span, top
        self.followed, self.nearest, self.vocabulary = followed, nearest, vocabulary

    def lens(self, name: str, prompt: str, windows: Sequence[_Window]) -> LogitLens:
        """Concatenate the windows of one recording."""
        tokenizer, audio_id = self.pipeline.tokenizer, self.pipeline.tokenizer.audio_token_id
        segments = ((window.window, window.segments) for window in windows)
        row_times = self.pipeline.row_times(self.levels[0])
        spans, seconds = spans_and_times(segments, row_times)

        def concatenated(part: str) -> np.ndarray:
            return np.concatenate([getattr(window, part) for window in windows], axis=1)

        top_ids = concatenated("top_ids")
        id_arrays = [top_ids]
        nearest_ids = nearest_cosines = None
        if self.nearest:
            nearest_ids = np.concatenate(
                [w.nearest_ids for w in windows if w.nearest_ids is not None]
            )
            nearest_cosines = np.concatenate(
                [w.nearest_cosines for w in windows if w.nearest_cosines is not None]
            )
            id_arrays.append(nearest_ids)
        occurring = np.unique(np.concatenate([ids.ravel() for ids in id_arrays]))
        return LogitLens(
            name=name,
            prompt=prompt,
            taps=self.levels,
            start_seconds=seconds,
            read=tuple(
                "" if i == audio_id else tokenizer.decode_token(i)
                for window in windows
                for i in window.ids
            ),
            spans=spans,
            windows=tuple(window.window for window in windows),
            row_times=row_times,
            entropy_bits=concatenated("entropy_bits"),
            top_ids=top_ids,
            top_probabilities=concatenated("top_probabilities"),
            vocabulary={int(i): tokenizer.decode_token(int(i)) for i in occurring},
            followed=self.followed,
            followed_probabilities=concatenated("followed_probabilities"),
            followed_ranks=concatenated("followed_ranks"),
            nearest_ids=nearest_ids,
            nearest_cosines=nearest_cosines,
            dtype=self.pipeline.dtype_name,
        )


@explains_out_of_memory
def read_windows(
    reading: LensReading, prompt_text: str, audio_windows: Sequence[AudioWindow]
) -> list[_Window]:
    """Read one batch of windows: a pass up to the deepest layer, then the readout of its rows."""
    pipeline = reading.pipeline
    taps = {*reading.levels, *([_PROJECTOR] if reading.nearest else [])}

    def select(rows: torch.Tensor, segments: tuple[Segment, ...]) -> torch.Tensor:
        return rows[torch.from_numpy(_chosen(segments, reading.span)).to(rows.device)].cpu()

    states = pipeline.capture(audio_windows, taps, select, prompt_text)
    windows = []
    for audio_window, captured in zip(audio_windows, states, strict=True):
        token_ids, segments, outputs = captured.token_ids, captured.segments, captured.outputs
        chosen = _chosen(segments, reading.span)
        if not len(chosen):
            raise OptionError(
                f"span={reading.span!r}: the prompt {prompt_text!r} has no such positions"
            )
        kinds = _kinds(segments)[chosen]
        nearest = _nearest(reading, outputs.pop(_PROJECTOR)) if reading.nearest else None
        levels = [_read_out(reading, outputs.pop(tap)) for tap in reading.levels]
        stacked = [np.stack(parts) for parts in zip(*levels, strict=True)]
        ids = tuple(token_ids[position] for position in chosen)
        grouped = tuple((kind, len(list(same))) for kind, same in itertools.groupby(kinds.tolist()))
        windows.append(
            _Window(audio_window.window, grouped, ids, *stacked, *(nearest or (None, None)))
        )
    return windows


def _kinds(segments: Sequence[Segment]) -> np.ndarray:
    return np.repeat([kind for kind, _ in segments], [count for _, count in segments])


def _chosen(segments: Sequence[Segment], span: SpanName) -> np.ndarray:
    """Indices of the rows of a span among those of a window."""
    kinds = _kinds(segments)
    if span == "last":
        return np.arange(len(kinds) - 1, len(kinds))
    return np.flatnonzero(kinds == span) if span != "all" else np.arange(len(kinds))


def _read_out(
    reading: LensReading, rows: Float[torch.Tensor, "rows width"]
) -> tuple[np.ndarray, ...]:
    """Entropy, most likely tokens and tracked words, computed for a few rows at a time."""
    pipeline = reading.pipeline
    blocks: list[tuple[torch.Tensor, ...]] = []
    for block in rows.split(max(1, _LOGITS_PER_BLOCK // reading.vocabulary)):
        log_probabilities = (
            pipeline.lm.lens_logits(block.to(pipeline.device)).float().log_softmax(dim=-1)
        )
        probabilities = log_probabilities.exp()
        entropy = -(probabilities * log_probabilities).sum(dim=-1) / math.log(2)
        best = probabilities.topk(reading.top, dim=-1)
        followed, ranks = (
            [probabilities.new_zeros(len(block), 0)],
            [probabilities.new_zeros(len(block), 0)],
        )
        for word in reading.followed:
            word_probabilities = probabilities[:, list(word.ids)]
            followed.append(word_probabilities.sum(dim=-1, keepdim=True))
            above = probabilities > word_probabilities.amax(dim=-1, keepdim=True)
            ranks.append(above.sum(dim=-1, keepdim=True) + 1)
        parts = (entropy, best.indices, best.values)
        blocks.append((*parts, torch.cat(followed, dim=1), torch.cat(ranks, dim=1)))
    joined = [torch.cat(parts).cpu().numpy() for parts in zip(*blocks, strict=True)]
    kinds = (np.float32, np.int32, np.float32, np.float32, np.int32)
    return tuple(part.astype(kind) for part, kind in zip(joined, kinds, strict=True))


def _nearest(
    reading: LensReading, rows: Float[torch.Tensor, "rows width"]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and cosines of the token embeddings nearest to rows; the table is read in blocks."""
    checkpoint, device = reading.pipeline.checkpoint, reading.pipeline.device
    count = checkpoint.tensors.shape(EMBEDDINGS)[0]
    units = torch.nn.functional.normalize(rows.to(device).float(), dim=-1)
    cosines = units.new_zeros(len(rows), 0)
    ids = torch.zeros(len(rows), 0, dtype=torch.int64, device=device)
    for start in range(0, count, _EMBEDDINGS_PER_BLOCK):
        block = range(start, min(count, start + _EMBEDDINGS_PER_BLOCK))
        table = torch.stack(checkpoint.embedding_rows(block)).to(device).float()
        products = units @ torch.nn.functional.normalize(table, dim=-1).T
        best = products.topk(min(reading.top, len(block)), dim=-1)
        cosines = torch.cat([cosines, best.values], dim=1)
        ids = torch.cat([ids, best.indices + start], dim=1)
        best = cosines.topk(min(reading.top, cosines.shape[1]), dim=-1)
        cosines, ids = best.values, ids.gather(1, best.indices)
    return ids.cpu().numpy().astype(np.int32), cosines.cpu().numpy().astype(np.float32)
