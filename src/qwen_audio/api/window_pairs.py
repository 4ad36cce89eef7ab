"""Hidden states of two recordings, of one window of each at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from qwen_audio.analysis.alignment import Alignment
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.progress_bars import OnProgress

__all__ = ["States", "WindowPairs"]

States: TypeAlias = dict[str, HiddenStates]


class WindowPairs:
    """Two recordings, of which a window each is in memory.

    Args:
        states_of: computes the hidden states of windows.
        on_progress: called before each pair, and after the last.
    """

    def __init__(
        self,
        states_of: Callable[[list[Waveform]], list[States]],
        waveforms: tuple[Waveform, Waveform],
        config: WindowConfig,
        on_progress: OnProgress | None,
    ) -> None:
        self.states_of, self.waveforms, self.on_progress = states_of, waveforms, on_progress
        self.windows = [waveform.windows(config) for waveform in waveforms]
        self._kept: list[tuple[int, States] | None] = [None, None]

    @property
    def side_by_side(self) -> list[tuple[int, int]]:
        """Numbers of windows at the same time; the longer recording goes on alone."""
        return [(number, number) for number in range(max(map(len, self.windows)))]

    def offsets(self, pair: tuple[int, int]) -> tuple[float, float]:
        """When the windows of a pair begin, in seconds."""
        one, other = (self.windows[k][number].start_seconds for k, number in enumerate(pair))
        return one, other

    def read(
        self, stage: str, pairs: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[States | None, States | None]]:
        """Hidden states of each pair; None of a recording that has ended.

        Those of the pair before are not computed again.
        """
        seconds = 0.0
        for done, pair in enumerate(pairs):
            if self.on_progress is not None:
                self.on_progress(stage, done, len(pairs), "windows", seconds)
            seconds += self._load(pair)
            one, other = (
                kept[1] if kept is not None and kept[0] == number else None
                for kept, number in zip(self._kept, pair, strict=True)
            )
            yield one, other
        if self.on_progress is not None:
            self.on_progress(stage, len(pairs), len(pairs), "windows", seconds)

    def _load(self, pair: tuple[int, int]) -> float:
        """Compute those windows of a pair that aren't kept; returns their seconds."""
        missing = []
        for k, number in enumerate(pair):
            kept = self._kept[k]
            if number < len(self.windows[k]) and (kept is None or kept[0] != number):
                self._kept[k] = None  # before others take memory
                missing.append((k, number))
        parts = [
            Waveform(self.waveforms[k].samples_in(self.windows[k][n]), self.waveforms[k].name)
            for k, n in missing
        ]
        if parts:
            for (k, number), states in zip(missing, self.states_of(parts), strict=True):
                self._kept[k] = (number, states)
        return sum(part.duration_seconds for part in parts)

    def align(
        self, tap: str, windows: tuple[Sequence[HiddenStates], Sequence[HiddenStates]]
    ) -> Alignment:
        """The alignment of both recordings, from the hidden states of all windows at a tap."""
        rows, starts = [], []
        for number, states in enumerate(windows):
            audio = [each.indices("audio") for each in states]
            rows.append(np.concatenate([e.data[a] for e, a in zip(states, audio, strict=True)]))
            seconds = [
                each.start_seconds[chosen] + window.start_seconds
                for each, chosen, window in zip(states, audio, self.windows[number], strict=True)
            ]
            starts.append(np.concatenate(seconds))
        return Alignment.of_rows(tap, (rows[0], rows[1]), (starts[0], starts[1]))
