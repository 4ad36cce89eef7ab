"""Comparison of two recordings at every tap: compare."""

from __future__ import annotations

from collections.abc import Iterable

from qwen_audio.analysis.comparison import COLUMNS, Comparison, TapCosines
from qwen_audio.audio.inputs import AudioInput, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import OptionError
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.tap import Tap

from .activations import ActivationsMixin

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
        columns: int = COLUMNS,
        sampling_rate: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        on_progress: OnProgress | None = None,
    ) -> Comparison:
        """Cosines of two recordings by depth and time; plot the result, or save its numbers.

        Both are processed window by window: memory does not grow with their length.

        Args:
            taps: all of them by default.
            prompt: for taps in the language model; "Describe the music:" by default.
            columns: at most so many columns of time; they end with the shorter recording.
            on_progress: called before each window of both, and after the last; see `OnProgress`.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        if not (is_single(audio) and is_single(other)):
            raise OptionError("compare takes two recordings, not lists: compare(one, other)")
        resolved_taps = self._resolve_taps(self.taps if taps is None else taps)
        if not any(tap.in_language_model for tap in resolved_taps.values()):
            self._prompt_text(list(resolved_taps.values()), prompt)  # which would have no effect
        one, two = (
            load_waveform(item, sampling_rate=sampling_rate, on_damage=on_damage)
            for item in (audio, other)
        )
        cosines = {
            name: TapCosines(str(tap), self.dimensions.hop_seconds(tap))
            for name, tap in resolved_taps.items()
        }
        window_config = self.pipeline.window_config(window_seconds)
        pairs = [waveform.windows(window_config) for waveform in (one, two)]
        count, seconds = max(map(len, pairs)), 0.0
        for number in range(count):
            if on_progress is not None:
                on_progress("comparing", number, count, "windows", seconds)
            parts = [
                Waveform(waveform.samples_in(windows[number]), name=waveform.name)
                if number < len(windows)
                else None
                for waveform, windows in zip((one, two), pairs, strict=True)
            ]
            seconds += sum(part.duration_seconds for part in parts if part is not None)
            given = [part for part in parts if part is not None]
            states = iter(
                self.activations(
                    given,
                    taps=list(cosines),
                    prompt=prompt,
                    window_seconds=window_seconds,
                    progress=False,
                )
            )
            found = [None if part is None else next(states) for part in parts]
            for name, tap_cosines in cosines.items():
                tap_cosines.add(*(None if by_tap is None else by_tap[name] for by_tap in found))
        if on_progress is not None:
            on_progress("comparing", count, count, "windows", seconds)
        return Comparison.from_cosines(cosines.values(), (one.name, two.name), columns)
