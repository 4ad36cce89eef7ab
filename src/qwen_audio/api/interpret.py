"""Analysis of hidden states: view, lens, layer_similarity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Unpack, overload

import numpy as np
from jaxtyping import Float64

from qwen_audio.analysis.logit_lens import LogitLens, track_tokens
from qwen_audio.analysis.logit_lens_readout import LensReading, read_windows
from qwen_audio.analysis.plots import notebook as _notebook  # noqa: F401 (results as pictures)
from qwen_audio.analysis.similarity import LayerSimilarity, cka_matrix
from qwen_audio.analysis.view import COLUMNS, View
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list, is_single
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError, counted, number_option, whole_number_option
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.options import SpanName
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.inference.reducers import mean_segments
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import Stage, Tap

from .base import ModelBase
from .options import LensOptions, ViewOptions
from .view import compute_view

__all__ = ["InterpretMixin"]


_LAST_OF_AUDIO = Stage.AUDIO_TOWER
"""The stage whose rows are audio tokens, in models without a language model, too."""
_ROUNDING = 1e-6


class InterpretMixin(ModelBase):
    """Methods that analyse hidden states."""

    @property
    def mel_hz(self) -> Float64[np.ndarray, "bins"]:
        """Centre frequency of each band of the log-mel spectrogram, in Hz."""
        filters = np.asarray(self.pipeline.checkpoint.feature_extractor.mel_filters, np.float64)
        hz = np.linspace(
            0, self.pipeline.checkpoint.feature_extractor.sampling_rate / 2, len(filters)
        )
        return (hz[:, None] * filters).sum(axis=0) / filters.sum(axis=0)

    @overload
    def view(self, audio: AudioInput, **options: Unpack[ViewOptions]) -> View: ...
    @overload
    def view(self, audio: AudioInputs, **options: Unpack[ViewOptions]) -> list[View]: ...
    def view(
        self,
        audio: AudioInput | AudioInputs,
        *,
        tap: str | Tap = "audio_tower",
        prompt: str | None = None,
        depth: bool = False,
        columns: int = COLUMNS,
        kernel_seconds: float | None = None,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
    ) -> View | list[View]:
        """Structure of a recording at one tap, to be plotted: see `View`.

        Rows are averaged while they are computed: beyond the samples, memory does not grow with the
        recording's length.

        Args:
            prompt: for taps in the language model.
            depth: also compute the L2 norms of the rows at every tap (one more pass).
            columns: at most so many columns of time.
            kernel_seconds: width of the novelty kernel; see `View.of`.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        columns = whole_number_option("columns", columns, 2)
        if kernel_seconds is not None:
            kernel_seconds = number_option("kernel_seconds", kernel_seconds, "a number of seconds")
        resolved = self.dimensions.tap(tap)
        prompt_text = self._prompt_text([resolved], prompt)
        window_config = self.pipeline.window_config(window_seconds)
        inputs, single = as_input_list(audio)
        options = (resolved, prompt_text, window_config, columns, kernel_seconds, depth)
        load = partial(load_waveform, sampling_rate=sampling_rate, track=track, on_damage=on_damage)
        results = [compute_view(self, load(item), *options, self.mel_hz) for item in inputs]
        return results[0] if single else results

    @overload
    def lens(self, audio: AudioInput, **options: Unpack[LensOptions]) -> LogitLens: ...
    @overload
    def lens(self, audio: AudioInputs, **options: Unpack[LensOptions]) -> list[LogitLens]: ...
    def lens(
        self,
        audio: AudioInput | AudioInputs,
        *,
        prompt: str | None = None,
        span: SpanName = "all",
        taps: Iterable[str | Tap] | None = None,
        top: int = 5,
        tokens: Sequence[str] = (),
        nearest: bool = False,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> LogitLens | list[LogitLens]:
        """Logit lens: which tokens each layer predicts at each position; see `LogitLens`.

        One forward pass; then final norm and head over its rows, a few at a time, so that logits of
        the whole vocabulary are in memory for a few positions only.

        Args:
            prompt: "Describe the music:" by default.
            span: which positions: "audio", "prompt", "last" (before the answer) or "all".
            taps: the layers, `lm.K`; all of them by default.
            top: how many of the most likely tokens to return.
            tokens: words to track: see `logit_lens.follow` for which tokens these are.
            nearest: also the token embeddings nearest to the audio's rows at `projector`.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        levels = self._levels(taps)
        reading = LensReading(
            self.pipeline, levels, span, top, track_tokens(self.pipeline.tokenizer, tokens), nearest
        )
        prompt_text = self.pipeline.tokenizer.render(prompt)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        inputs, single = as_input_list(audio)
        windows_by_clip: dict[int, list[Any]] = {}
        names: dict[int, str] = {}
        read = partial(read_windows, reading, prompt_text)
        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            windows_read = raise_first(run_by_recording(batch, read))
            for item, window in zip(batch, windows_read, strict=True):
                windows_by_clip.setdefault(item.recording_index, []).append(window)
                names[item.recording_index] = item.name
        results = [
            reading.lens(names[clip], prompt_text, windows)
            for clip, windows in windows_by_clip.items()
        ]
        return results[0] if single else results

    def layer_similarity(
        self,
        audio: AudioInputs,
        *,
        taps: Iterable[str | Tap] | None = None,
        prompt: str | None = None,
        examples: int = 512,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        on_progress: OnProgress | None = None,
    ) -> LayerSimilarity:
        """Similarity (linear CKA) of all pairs of taps over a set of recordings; see
        `LayerSimilarity`.

        The same time segments are compared at every tap: 40 ms each, or longer, so that all windows
        together have at most `examples` of them.

        Args:
            audio: a list; recordings that differ say more than one alone.
            taps: all of them by default.
            examples: at most so many segments; memory grows with their square, for each tap.
            on_progress: called for every recording and pass (one a rate); see `OnProgress`.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        if is_single(audio) or not audio:
            raise OptionError("layer_similarity takes a list of recordings: give one or more")
        examples = whole_number_option("examples", examples, 16)
        resolved_taps = self._resolve_taps(self.taps if taps is None else taps)
        if len(resolved_taps) < 2:
            raise OptionError(f"taps={list(resolved_taps)}: name two or more to compare")
        if any(each.edit.stride not in (1, None) for each in self.pipeline.edits):
            raise OptionError(
                "layer_similarity compares the same segments of time at every tap: edits of the "
                "number of rows can't be used in it"
            )
        prompt_text = self._prompt_text(list(resolved_taps.values()), prompt)
        load = partial(load_waveform, sampling_rate=sampling_rate, track=track, on_damage=on_damage)
        waveforms: list[Waveform] = []
        for item in audio:
            if on_progress is not None:
                on_progress("reading", len(waveforms), len(audio), "recordings")
            waveforms.append(load(item))
        window_config = self.pipeline.window_config(window_seconds)
        windows = sum(len(waveform.windows(window_config)) for waveform in waveforms)
        if windows > examples // 2:
            raise OptionError(
                f"{counted(windows, 'window')} and examples={examples}: give "
                f"examples={2 * windows} or more, or fewer recordings"
            )
        segments: dict[str, list[np.ndarray]] = {name: [] for name in resolved_taps}
        times = {self.dimensions.times(tap) for tap in resolved_taps.values()}
        done, seconds, total = 0, 0.0, len(times) * len(waveforms)
        if on_progress is not None:
            on_progress("encoding", done, total, "passes")
        for row_times in times:  # one pass each
            same_rate = {
                name: tap
                for name, tap in resolved_taps.items()
                if self.dimensions.times(tap) == row_times
            }
            reducer = partial(
                mean_segments,
                row_times=row_times,
                token_times=self.dimensions.row_times[_LAST_OF_AUDIO],
                token_count=partial(self._token_count, row_times),
                max_segments=examples // windows,
            )
            for captured in capture_recordings(
                self.pipeline,
                waveforms,
                list(same_rate.values()),
                reducer,
                prompt_text=prompt_text,
                window_config=window_config,
            ):
                if isinstance(captured, AudioError):
                    raise captured
                for tap in same_rate.values():
                    self.pipeline.row_times(tap)  # raises where an edit has changed their number
                for window in captured.outputs:
                    for name, tap in same_rate.items():
                        segments[name].append(window[tap])
                done += 1
                seconds += captured.recording.duration_seconds / len(times)
                if on_progress is not None:
                    on_progress("encoding", done, total, "passes", seconds)
        rows = [np.concatenate(segments[name]) for name in resolved_taps]
        return LayerSimilarity(
            tuple(waveform.name for waveform in waveforms),
            tuple(resolved_taps),
            cka_matrix(rows).astype(np.float32),
            len(rows[0]),
            self.dtype,
        )

    def _token_count(self, row_times: RowTimes, rows: int) -> int:
        """How many whole audio tokens so many rows are."""
        dimensions = self.dimensions
        if row_times == dimensions.row_times[Stage.MEL]:
            return self.pipeline.checkpoint.family.rows(_LAST_OF_AUDIO, rows)
        ratio = dimensions.row_times[_LAST_OF_AUDIO].hop_seconds / row_times.hop_seconds
        return int(rows / ratio + _ROUNDING)

    def _levels(self, taps: Iterable[str | Tap] | None) -> tuple[Tap, ...]:
        if taps is None:
            return tuple(tap for tap in self.taps if tap.stage is Stage.LM)
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list, such as [{taps!r}]")
        return tuple(sorted(set(self._resolve_taps(taps).values())))
