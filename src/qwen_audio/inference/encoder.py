"""The audio encoder's pass: log-mel → encoder layers → pooling and norm → projector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from qwen_audio.audio.log_mel import LogMel
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.module_store import ModuleStore

from .edited_pass import edited_clips
from .finite import FiniteCheck
from .interventions import outside_gradients, taps_changed
from .reducers import TapReducer

__all__ = ["AudioEncoder"]

T = TypeVar("T")


class AudioEncoder:
    """The audio encoder and projector; only as many layers as needed are built.

    Args:
        modules: where modules come from; no weights are read before `forward` needs them.
    """

    def __init__(self, checkpoint: Checkpoint, modules: ModuleStore) -> None:
        self._checkpoint, self._modules = checkpoint, modules
        self._family = checkpoint.family

    @outside_gradients
    def forward(
        self,
        mels: Sequence[LogMel],
        taps: Iterable[Tap],
        reducer: TapReducer[T],
        on_layer: Callable[[], None] | None = None,
    ) -> dict[Tap, list[T]]:
        """One pass over all clips, as deep as the deepest tap, at most up to the projector.

        Args:
            reducer: called, after a tap's edits, with (mel frames, bins) at `mel`, (encoder frames,
                width) at `encoder.k`, (audio tokens, width) at `audio_tower` and `projector`. Rows
                of padding follow at `projector`, if the language model is given them, and nowhere
                else.
            on_layer: called after every layer; it may run passes of the language model, if all
                weights are in memory.

        Returns:
            For each tap what the reducer made of every clip.

        Raises:
            NotFiniteError: if rows overflow at a tap up to the deepest (see `FiniteCheck.check`).
        """
        wanted = set(taps)
        outputs: dict[Tap, list[T]] = {}
        finite = FiniteCheck(self._checkpoint)
        family, modules = self._family, self._modules
        edited_taps = taps_changed(modules)

        def reduce_rows(tap: Tap, rows_by_clip: Iterable[Tensor]) -> None:
            finite.check()
            outputs[tap] = [reducer(tap, clip, rows) for clip, rows in enumerate(rows_by_clip)]

        def reduce_packed_rows(
            tap: Tap, rows: Tensor, lengths: Sequence[int]
        ) -> tuple[Tensor, Sequence[int]]:
            clips: Sequence[Tensor] = rows.split(list(lengths))
            if tap.stage is Stage.PROJECTOR:  # what the language model is given
                tokens = map(family.audio_tokens, mel_frames)
                clips = [clip[:count] for clip, count in zip(clips, tokens, strict=True)]
            # Fewer than the family says where an edit of `audio_tower` left fewer.
            counts = [
                min(family.rows(tap.stage, frames), len(clip))
                for frames, clip in zip(mel_frames, clips, strict=True)
            ]
            if tap in edited_taps:
                audios, clips = edited_clips(modules, tap, clips, counts, may_reduce)
                rows, lengths = torch.cat(list(clips)), [len(clip) for clip in clips]
            else:
                audios = [clip[:count] for clip, count in zip(clips, counts, strict=True)]
            finite.watch(tap, rows)
            if tap in wanted:
                reduce_rows(tap, clips if tap.stage is Stage.PROJECTOR else audios)
            return rows, lengths

        mel_frames = [mel.valid_frames for mel in mels]

        # Not where positions of padding follow those of audio, which are as many as a window has.
        may_reduce = all(
            family.audio_tokens(n) == family.rows(Stage.PROJECTOR, n) for n in mel_frames
        )

        mel_tap = Tap(Stage.MEL)
        features = [torch.from_numpy(mel.input_features) for mel in mels]
        frames = [each[:, :n].T for each, n in zip(features, mel_frames, strict=True)]
        if mel_tap in edited_taps:
            frames, _ = edited_clips(modules, mel_tap, frames, mel_frames, may_reduce)
            features = [
                torch.cat([rows.T, each[:, len(rows) :]], dim=1)
                for rows, each in zip(frames, features, strict=True)
            ]
        for clip_features in features:
            finite.watch(mel_tap, clip_features)
        finite.check()
        if mel_tap in wanted:
            reduce_rows(mel_tap, frames)
        deepest = max(wanted, default=Tap(Stage.MEL))
        if deepest.stage is Stage.MEL:
            return outputs

        lengths = tuple(map(family.encoder_rows, mel_frames))
        pairs = zip(features, mel_frames, strict=True)
        hidden_states = torch.cat([family.stem(modules, each, count) for each, count in pairs])
        hidden_states, _ = reduce_packed_rows(Tap(Stage.ENCODER, 0), hidden_states, lengths)
        depth = family.dimensions.encoder_layers
        if deepest.stage is Stage.ENCODER:
            depth = deepest.layer or 0
        layers = family.encoder_layers(modules, depth, lengths)
        for k, run_layer in enumerate(layers, start=1):
            hidden_states = run_layer(hidden_states)
            hidden_states, _ = reduce_packed_rows(Tap(Stage.ENCODER, k), hidden_states, lengths)
            if on_layer is not None:
                on_layer()
        if deepest.stage is Stage.ENCODER:
            return outputs

        pooled = [family.tower(modules, frames) for frames in hidden_states.split(lengths)]
        tower_tap = Tap(Stage.AUDIO_TOWER)
        rows, counts = reduce_packed_rows(tower_tap, torch.cat(pooled), list(map(len, pooled)))
        if Tap(Stage.PROJECTOR) in wanted:
            rows = family.project(modules, rows)
            reduce_packed_rows(Tap(Stage.PROJECTOR), rows, counts)
        return outputs
