"""Comparison of two recordings at every tap: compare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from qwen_audio.analysis.alignment import Alignment, AlignmentKind, check_alignment
from qwen_audio.analysis.comparison import COLUMNS, Comparison, TapComparison
from qwen_audio.analysis.row_metrics import Metric, check_metric
from qwen_audio.audio.inputs import AudioInput, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.tap import Stage, Tap

from .activations import ActivationsMixin
from .window_pairs import States, WindowPairs

__all__ = ["CompareMixin"]


class CompareMixin(ActivationsMixin):
    """The method that compares recordings."""

    def compare(
        self,
        audio: AudioInput,
        other: AudioInput,
        *,
        taps: Iterable[str | Tap] | None = None,
        prompt: str | None = None,
        metric: Metric = "cosine",
        alignment: AlignmentKind = "time",
        alignment_tap: str | Tap | None = None,
        columns: int = COLUMNS,
        sampling_rate: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        on_progress: OnProgress | None = None,
    ) -> Comparison:
        """How alike two recordings are, by depth and time; plot the result, or save its numbers.

        Both are processed window by window: memory does not grow with their length. Recordings of
        several windows are computed twice where all of both has to be known first, which is so for
        metric="centred_cosine" and alignment="dtw".

        Args:
            taps: all of them by default.
            prompt: for taps in the language model; "Describe the music:" by default.
            metric: "cosine"; "correlation" over the dimensions; "centred_cosine", after subtracting
                from the rows of each recording their mean; or "relative_distance", 0 of equal rows.
                See `row_metric`.
            alignment: "time", rows at the same time; or "dtw", by dynamic time warping at one tap,
                the same path for all taps (see `Alignment`).
            alignment_tap: where dtw aligns; "audio_tower" by default.
            columns: at most so many columns of time. They end with the shorter recording; with dtw
                they are of the first one.
            on_progress: called before each window of both, and after the last; see `OnProgress`.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        if not (is_single(audio) and is_single(other)):
            raise OptionError("compare takes two recordings, not lists: compare(one, other)")
        metric, alignment = check_metric(metric), check_alignment(alignment)
        resolved = self._resolve_taps(self.taps if taps is None else taps)
        aligned_at = self._alignment_tap(alignment, alignment_tap)
        read = {*resolved.values()} | ({aligned_at} if aligned_at else set())
        if not any(tap.in_language_model for tap in read):
            self._prompt_text(list(read), prompt)  # which would have no effect
        one, two = (
            load_waveform(item, sampling_rate=sampling_rate, on_damage=on_damage)
            for item in (audio, other)
        )

        windows = WindowPairs(
            lambda parts: self.activations(
                parts,
                taps=sorted(read),
                prompt=prompt,
                window_seconds=window_seconds,
                progress=False,
            ),
            (one, two),
            self.pipeline.window_config(window_seconds),
            on_progress,
        )
        compared = [
            TapComparison(str(tap), self.dimensions.hop_seconds(tap), metric)
            for tap in dict.fromkeys(resolved.values())
        ]
        aligned = None
        if metric == "centred_cosine" or aligned_at is not None:
            aligned = _compare_twice(windows, compared, aligned_at)
        else:
            _compare_once(windows, compared)
        return Comparison.from_taps(compared, (one.name, two.name), columns, aligned)

    def _alignment_tap(self, alignment: AlignmentKind, tap: str | Tap | None) -> Tap | None:
        """The tap at which dtw aligns; None without it."""
        if alignment == "dtw":
            return self.dimensions.tap(tap or Tap(Stage.AUDIO_TOWER))
        if tap is not None:
            raise OptionError(f"alignment_tap={str(tap)!r} does nothing without alignment='dtw'")
        return None


def _compare_once(windows: WindowPairs, compared: Sequence[TapComparison]) -> None:
    """Rows at the same time, as the windows are read."""
    for number, (one, other) in enumerate(windows.read("comparing", windows.side_by_side)):
        _add_windows(compared, one, other)
        if one is not None and other is not None:
            for tap in compared:
                tap.add_pairs(number, one[tap.tap], other[tap.tap])


def _compare_twice(
    windows: WindowPairs, compared: Sequence[TapComparison], aligned_at: Tap | None
) -> Alignment | None:
    """Rows after all of both recordings is known: means, and where they are aligned the path.

    Returns:
        The alignment, where they are aligned.
    """
    aligned: tuple[list[HiddenStates], list[HiddenStates]] = ([], [])
    for both in windows.read("reading", windows.side_by_side):
        _add_windows(compared, *both)
        for kept, states in zip(aligned, both, strict=True):
            if states is not None and aligned_at is not None:
                kept.append(states[str(aligned_at)])
    if aligned_at is None:
        shared = min(map(len, windows.windows))
        runs = [((number, number), slice(None)) for number in range(shared)]
        alignment = None
    else:
        alignment = windows.align(str(aligned_at), aligned)
        one, other = ([len(states.indices("audio")) for states in part] for part in aligned)
        runs = alignment.runs((one, other))
    numbers = [pair for pair, _ in runs]
    for (pair, steps), both in zip(runs, windows.read("comparing", numbers), strict=True):
        first, second = cast("tuple[States, States]", both)  # runs are where both are
        for tap in compared:
            rows = first[tap.tap], second[tap.tap]
            offsets = windows.offsets(pair)
            chosen = None if alignment is None else alignment.pairs(*rows, offsets, steps)
            tap.add_pairs(pair[0], *rows, chosen)
    return alignment


def _add_windows(
    compared: Sequence[TapComparison], one: States | None, other: States | None
) -> None:
    for tap in compared:
        rows = (None if states is None else states[tap.tap] for states in (one, other))
        tap.add_window(*rows)
