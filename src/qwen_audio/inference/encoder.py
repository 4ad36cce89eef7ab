"""The audio encoder's pass: log-mel → encoder layers → pooling and norm → projector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from qwen_audio.audio.log_mel import LogMel
from qwen_audio.models.checkpoint import Checkpoint
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.weights.module_store import ModuleStore

from .finite import FiniteCheck
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

    @torch.no_grad()
    def forward(
        self, mels: Sequence[LogMel], taps: Iterable[Tap], reducer: TapReducer[T]
    ) -> dict[Tap, list[T]]:
        """One pass over all clips, as deep as the deepest tap, at most up to the projector.

        Args:
            reducer: called with (mel frames, bins) at `mel`, (encoder frames, width) at
                `encoder.k`, (audio tokens, width) at `audio_tower` and `projector`. Rows of padding
                follow at `projector`, if the language model is given them, and nowhere else.

        Returns:
            For each tap what the reducer made of every clip.

        Raises:
            NotFiniteError: if rows overflow at a tap up to the deepest (see `FiniteCheck.check`).
        """
        wanted = set(taps)
        outputs: dict[Tap, list[T]] = {}
        finite = FiniteCheck(self._checkpoint)

        def reduce_rows(tap: Tap, rows_by_clip: Iterable[Tensor]) -> None:
            finite.check()
            outputs[tap] = [reducer(tap, clip, rows) for clip, rows in enumerate(rows_by_clip)]

        def reduce_packed_rows(tap: Tap, rows: Tensor, lengths: Sequence[int]) -> None:
            finite.watch(tap, rows)
            if tap in wanted:
                counts = [kept_rows(tap.stage, frames) for frames in mel_frames]
                parts = zip(rows.split(list(lengths)), counts, strict=True)
                reduce_rows(tap, [part[:count] for part, count in parts])

        def kept_rows(stage: Stage, frames: int) -> int:
            in_projector = stage is Stage.PROJECTOR
            return family.audio_tokens(frames) if in_projector else family.rows(stage, frames)

        family, modules = self._family, self._modules
        mel_frames = [mel.valid_frames for mel in mels]

        features = [torch.from_numpy(mel.input_features) for mel in mels]
        for clip_features in features:
            finite.watch(Tap(Stage.MEL), clip_features)
        finite.check()
        if Tap(Stage.MEL) in wanted:
            pairs = zip(features, mels, strict=True)
            reduce_rows(Tap(Stage.MEL), [each[:, : mel.valid_frames].T for each, mel in pairs])
        deepest = max(wanted, default=Tap(Stage.MEL))
        if deepest.stage is Stage.MEL:
            return outputs

        lengths = tuple(map(family.encoder_rows, mel_frames))
        hidden_states = torch.cat([family.stem(modules, mel) for mel in mels])
        reduce_packed_rows(Tap(Stage.ENCODER, 0), hidden_states, lengths)
        depth = family.dimensions.encoder_layers
        if deepest.stage is Stage.ENCODER:
            depth = deepest.layer or 0
        layers = family.encoder_layers(modules, depth, lengths)
        for k, run_layer in enumerate(layers, start=1):
            hidden_states = run_layer(hidden_states)
            reduce_packed_rows(Tap(Stage.ENCODER, k), hidden_states, lengths)
        if deepest.stage is Stage.ENCODER:
            return outputs

        pooled = [family.tower(modules, frames) for frames in hidden_states.split(lengths)]
        rows, lengths = torch.cat(pooled), tuple(map(len, pooled))
        reduce_packed_rows(Tap(Stage.AUDIO_TOWER), rows, lengths)
        if Tap(Stage.PROJECTOR) in wanted:
            rows = family.project(modules, rows)
            reduce_packed_rows(Tap(Stage.PROJECTOR), rows, lengths)
        return outputs
