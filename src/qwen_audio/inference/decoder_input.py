"""DecoderInput: text and audio, merged for the language model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from .spans import Segment, SpanKind

__all__ = ["DecoderInput"]


@dataclass(frozen=True)
class DecoderInput:
    """One input of the language model: text and audio, merged.

    Attributes:
        token_ids: one per position; audio positions hold the audio token's id.
        audio_rows: shape (audio positions, width): the projector's rows for those positions, in
            order; None where there are none.
        tree: the parents of the last positions, where these are a tree of continuations: indices
            among them, each smaller than its child's, and -1 for the position before the tree.
            Those with the same parent share their place in the sequence, and don't see each other.
        audios: for each audio how many of its positions are audio, and padding after it; edits act
            on each. Empty where that isn't known.
    """

    token_ids: tuple[int, ...]
    audio_rows: Float[Tensor, "rows width"] | None = None
    tree: tuple[int, ...] = ()
    audios: tuple[tuple[int, int], ...] = ()

    def suffix(self, start: int, audio_id: int) -> DecoderInput:
        """The positions from `start` on, which is not in a tree."""
        before = self.token_ids[:start].count(audio_id)
        rows = None if self.audio_rows is None else self.audio_rows[before:]
        audios = () if start else self.audios
        return DecoderInput(self.token_ids[start:], rows, self.tree, audios)

    def segments(self, audio_id: int, audio_rows: int | None = None) -> tuple[Segment, ...]:
        """Which positions are prompt and which audio, in order; those of a tree are generated.

        Args:
            audio_rows: how many of the audio positions hold audio; those after them, padding.
        """
        segments: list[Segment] = []
        places = itertools.count()
        for token in self.token_ids[: len(self.token_ids) - len(self.tree)]:
            kind: SpanKind = "prompt"
            if token == audio_id:
                kind = "audio" if audio_rows is None or next(places) < audio_rows else "padding"
            if segments and segments[-1][0] == kind:
                segments[-1] = (kind, segments[-1][1] + 1)
            else:
                segments.append((kind, 1))
        return (*segments, *((("generated", len(self.tree)),) if self.tree else ()))
