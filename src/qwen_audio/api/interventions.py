"""Edits of what taps hold: edit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qwen_audio.errors import OptionError
from qwen_audio.inference.edits import Edit, EditPlace, RowFunction, function
from qwen_audio.inference.interventions import using_edit
from qwen_audio.models.tap import Tap

from .base import ModelBase

__all__ = ["InterventionsMixin"]

_ENCODER_SPANS = ("audio", "all")
_SPANS = ("audio", "prompt", "last", "generated", "all")


class InterventionsMixin(ModelBase):
    """Methods that change hidden states."""

    @contextmanager
    def edit(
        self, tap: str | Tap, edit: Edit | RowFunction, *, span: str = "audio"
    ) -> Iterator[Edit]:
        """Change the rows of a tap in everything that this model computes inside the `with`.

            with model.edit("audio_tower", qa.edits.mean_over_time()):
                model.describe("song.flac")

        Edits at one tap act one after another, in the order in which they are entered. They hold in
        this thread (or task) only, and embedding specs name them. Batches, streamed layers and
        quantised weights don't change what an edit is given: the rows of one window at a time; of
        generated tokens, a row at a time.

        Args:
            tap: any, also inside a layer: `lm.K.attention` and `lm.K.mlp`, which the layer adds to
                its input, and `lm.K.heads`.
            edit: one of `qwen_audio.edits`, or a function of rows: a tensor (rows, width) to one of
                the same width. At `audio_tower` and `projector` it may return fewer rows.
            span: "audio", each audio's rows by themselves; in the language model also "prompt" (the
                text), "last" (the position before the answer), "generated" (the answer), or "all".

        Raises:
            TapError, OptionError: for a tap or span that isn't there, or an edit that can't be used
                there; inside the `with`, if a function returns no such rows.
        """
        resolved = self.dimensions.tap(tap)
        spans = _SPANS if resolved.in_language_model else _ENCODER_SPANS
        if span not in spans:
            raise OptionError(f"span={span!r} at tap {resolved}: use {' or '.join(spans)}")
        sizes = self.pipeline.checkpoint.family.sizes
        place = EditPlace(resolved, span, self.dimensions.width(resolved), sizes.lm_heads)
        used = edit if isinstance(edit, Edit) else function(edit)
        with using_edit(self.pipeline.modules, used, place):
            yield used
