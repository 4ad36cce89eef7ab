"""The final norm and head over rows of any level: captured in one pass, read out after it.

The rows of a batch wait in memory (levels × positions × width); the scores of the whole vocabulary
never do: they are made for a few positions at a time, and what is asked of them is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from qwen_audio.audio.log_mel import Piece
from qwen_audio.audio.waveform import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import Run, in_order
from qwen_audio.inference.pipeline import Line
from qwen_audio.inference.pooling import SpanName, check_span
from qwen_audio.models.qwen2_audio.tensors import EMBEDDINGS
from qwen_audio.models.tap import Stage, Tap

from .logit_lens import Followed, Lens

__all__ = ["LensReading", "read_windows"]

_SCORES_AT_ONCE = 1 << 24
"""64 MB of float32, of which a few are there at a time."""
_EMBEDDINGS_AT_ONCE = 4096
_PROJECTOR = Tap(Stage.PROJECTOR)


@dataclass(frozen=True, eq=False)
class _Window:
    """What was read out of one window, levels first."""

    window: Window
    runs: tuple[Run, ...]
    ids: tuple[int, ...]
    entropy_bits: np.ndarray
    top_ids: np.ndarray
    top_probabilities: np.ndarray
    followed_probabilities: np.ndarray
    followed_ranks: np.ndarray
    nearest_ids: np.ndarray | None
    nearest_cosines: np.ndarray | None


class LensReading:
    """What is asked of the levels.

    Raises:
        OptionError: for values that make no sense.
    """

    def __init__(
        self,
        line: Line,
        levels: Sequence[Tap],
        span: SpanName,
        top: int,
        followed: tuple[Followed, ...],
        nearest: bool,
    ) -> None:
        check_span(span, levels[0])
        vocabulary = line.checkpoint.text_config.vocab_size
        if not isinstance(top, int) or not 1 <= top <= min(100, vocabulary):
            raise OptionError(f"top={top!r}: use a whole number of tokens, 1 to 100")
        if nearest and span not in ("audio", "all"):
            raise OptionError(f"nearest=True with span={span!r}: only audio has rows at projector")
        self.line, self.levels, self.span, self.top = line, tuple(levels), span, top
        self.followed, self.nearest, self.vocabulary = followed, nearest, vocabulary

    def lens(self, name: str, prompt: str, windows: Sequence[_Window]) -> Lens:
        """The windows of one recording, laid one after another."""
        prompts, audio_id = self.line.prompts, self.line.prompts.audio_id
        runs = ((window.window, window.runs) for window in windows)
        spans, seconds = in_order(runs, _PROJECTOR.hop_seconds)

        def joined(part: str) -> np.ndarray:
            return np.concatenate([getattr(window, part) for window in windows], axis=1)

        top_ids = joined("top_ids")
        known = [top_ids]
        nearest_ids = nearest_cosines = None
        if self.nearest:
            nearest_ids = np.concatenate(
                [w.nearest_ids for w in windows if w.nearest_ids is not None]
            )
            nearest_cosines = np.concatenate(
                [w.nearest_cosines for w in windows if w.nearest_cosines is not None]
            )
            known.append(nearest_ids)
        occurring = np.unique(np.concatenate([ids.ravel() for ids in known]))
        return Lens(
            name=name,
            prompt=prompt,
            taps=self.levels,
            seconds=seconds,
            read=tuple(
                "" if i == audio_id else prompts.token(i) for window in windows for i in window.ids
            ),
            spans=spans,
            windows=tuple(window.window for window in windows),
            entropy_bits=joined("entropy_bits"),
            top_ids=top_ids,
            top_probabilities=joined("top_probabilities"),
            vocabulary={int(i): prompts.token(int(i)) for i in occurring},
            followed=self.followed,
            followed_probabilities=joined("followed_probabilities"),
            followed_ranks=joined("followed_ranks"),
            nearest_ids=nearest_ids,
            nearest_cosines=nearest_cosines,
            dtype=self.line.dtype_name,
        )


def read_windows(reading: LensReading, pieces: Sequence[Piece], rendered: str) -> list[_Window]:
    """One batch of windows: a pass up to the deepest level, then the readout of every row kept."""
    line = reading.line
    taps = {*reading.levels, *([_PROJECTOR] if reading.nearest else [])}

    def keep(rows: torch.Tensor, runs: tuple[Run, ...]) -> torch.Tensor:
        return rows[torch.from_numpy(_chosen(runs, reading.span)).to(rows.device)].cpu()

    states = line.states(pieces, taps, keep, rendered)
    windows = []
    for piece, of_piece in zip(pieces, states, strict=True):
        merged = line.prompts.merged(line.prompts.ids(rendered), [piece.mel.audio_tokens])
        runs = line.runs(merged)
        chosen = _chosen(runs, reading.span)
        if not len(chosen):
            raise OptionError(
                f"span={reading.span!r}: the prompt {rendered!r} has no such positions"
            )
        kept = _kinds(runs)[chosen]
        nearest = _nearest(reading, of_piece.pop(_PROJECTOR)) if reading.nearest else None
        levels = [_read_out(reading, of_piece.pop(tap)) for tap in reading.levels]
        stacked = [np.stack(parts) for parts in zip(*levels, strict=True)]
        ids = tuple(merged[place] for place in chosen)
        grouped = tuple((kind, len(list(same))) for kind, same in itertools.groupby(kept.tolist()))
        windows.append(_Window(piece.window, grouped, ids, *stacked, *(nearest or (None, None))))
    return windows


def _kinds(runs: Sequence[Run]) -> np.ndarray:
    return np.repeat([kind for kind, _ in runs], [count for _, count in runs])


def _chosen(runs: Sequence[Run], span: SpanName) -> np.ndarray:
    """Where the rows of a span lie among those of a window."""
    kinds = _kinds(runs)
    if span == "last":
        return np.arange(len(kinds) - 1, len(kinds))
    return np.flatnonzero(kinds == span) if span != "all" else np.arange(len(kinds))


def _read_out(
    reading: LensReading, rows: Float[torch.Tensor, "rows width"]
) -> tuple[np.ndarray, ...]:
    """Entropy, likeliest tokens and followed words of rows, a few at a time."""
    line = reading.line
    blocks: list[tuple[torch.Tensor, ...]] = []
    for block in rows.split(max(1, _SCORES_AT_ONCE // reading.vocabulary)):
        scores = line.lm.read_out(block.to(line.device)).float().log_softmax(dim=-1)
        shares = scores.exp()
        entropy = -(shares * scores).sum(dim=-1) / math.log(2)
        likeliest = shares.topk(reading.top, dim=-1)
        followed, ranks = [shares.new_zeros(len(block), 0)], [shares.new_zeros(len(block), 0)]
        for word in reading.followed:
            of_word = shares[:, list(word.ids)]
            followed.append(of_word.sum(dim=-1, keepdim=True))
            above = shares > of_word.amax(dim=-1, keepdim=True)
            ranks.append(above.sum(dim=-1, keepdim=True) + 1)
        parts = (entropy, likeliest.indices, likeliest.values)
        blocks.append((*parts, torch.cat(followed, dim=1), torch.cat(ranks, dim=1)))
    joined = [torch.cat(parts).cpu().numpy() for parts in zip(*blocks, strict=True)]
    kinds = (np.float32, np.int32, np.float32, np.float32, np.int32)
    return tuple(part.astype(kind) for part, kind in zip(joined, kinds, strict=True))


def _nearest(
    reading: LensReading, rows: Float[torch.Tensor, "rows width"]
) -> tuple[np.ndarray, np.ndarray]:
    """The token embeddings that rows point to most nearly, and the cosines; read in blocks."""
    checkpoint, device = reading.line.checkpoint, reading.line.device
    count = checkpoint.needs(None)[EMBEDDINGS].shape[0]
    units = torch.nn.functional.normalize(rows.to(device).float(), dim=-1)
    cosines = units.new_zeros(len(rows), 0)
    ids = torch.zeros(len(rows), 0, dtype=torch.int64, device=device)
    for start in range(0, count, _EMBEDDINGS_AT_ONCE):
        block = range(start, min(count, start + _EMBEDDINGS_AT_ONCE))
        table = torch.stack(checkpoint.rows(block)).to(device).float()
        products = units @ torch.nn.functional.normalize(table, dim=-1).T
        best = products.topk(min(reading.top, len(block)), dim=-1)
        cosines = torch.cat([cosines, best.values], dim=1)
        ids = torch.cat([ids, best.indices + start], dim=1)
        kept = cosines.topk(min(reading.top, cosines.shape[1]), dim=-1)
        cosines, ids = kept.values, ids.gather(1, kept.indices)
    return ids.cpu().numpy().astype(np.int32), cosines.cpu().numpy().astype(np.float32)
