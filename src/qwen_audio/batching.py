"""Inputs of any kind → windows with their log-mel spectrograms, in batches for one pass each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from .audio import Waveform, Windowing
from .errors import AudioError
from .line import Line, Piece
from .loading import AudioInput, load_waveform
from .options import Many
from .packed import batches

__all__ = ["BATCH_FRAMES", "batched_pieces", "open_inputs"]

BATCH_FRAMES = 6000
"""Encoder frames (20 ms each) in one pass: four windows of 30 s, or 24 clips of 5 s."""


def open_inputs(
    audio: AudioInput | Many, sampling_rate: int | None
) -> tuple[Iterator[Waveform], bool]:
    """Waveforms, decoded one at a time as they are needed; and whether just one input was given."""
    if isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], int | float):
        raise AudioError(
            f"a pair of {type(audio[0]).__name__} and {audio[1]}, as librosa and soundfile give "
            "it: pass the array, and the number as sampling_rate="
        )
    single = not isinstance(audio, list | tuple)
    inputs = cast(Many, [audio] if single else audio)
    return (load_waveform(item, sampling_rate=sampling_rate) for item in inputs), single


def batched_pieces(
    line: Line, waveforms: Iterable[Waveform], windowing: Windowing
) -> Iterator[list[Piece]]:
    """Windows of all recordings in order, grouped by a budget of encoder frames."""

    def pieces() -> Iterator[Piece]:
        for clip, waveform in enumerate(waveforms):
            for window in waveform.windows(windowing):
                yield Piece(clip, waveform.name, window, line.mel(waveform.cut(window)))

    return batches(pieces(), lambda piece: piece.mel.encoder_frames, BATCH_FRAMES)
