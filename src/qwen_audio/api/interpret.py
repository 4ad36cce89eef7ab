"""Analysis of hidden states: view, lens, layer_similarity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Unpack, overload

import numpy as np
from jaxtyping import Float64

from qwen_audio.analysis import structure as views
from qwen_audio.analysis.logit_lens import LogitLens, track_tokens
from qwen_audio.analysis.logit_lens_readout import LensReading, read_windows
from qwen_audio.analysis.similarity import LayerSimilarity, cka_matrix
from qwen_audio.analysis.view import (
    COLUMNS,
    ENVELOPE_POINTS,
    View,
    average_to_columns,
    decibels,
)
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.options import SpanName
from qwen_audio.inference.reader import capture_recording, capture_recordings
from qwen_audio.inference.reducers import audio_norms, mean_groups, mean_segments
from qwen_audio.models.tap import Stage, Tap

from .base import ModelBase
from .options import LensOptions, ViewOptions

__all__ = ["InterpretMixin"]

_MEL = Tap(Stage.MEL)
_AUDIO_TOKENS_HZ = Tap(Stage.PROJECTOR).rate_hz


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
        resolved = self.dimensions.tap(tap)
        prompt_text = self._prompt_text([resolved], prompt)
        window_config = WindowConfig(window_seconds)
        inputs, single = as_input_list(audio)
        options = (resolved, prompt_text, window_config, columns, kernel_seconds, depth)
        results = [
            self._view(load_waveform(item, sampling_rate=sampling_rate), *options)
            for item in inputs
        ]
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
        window_config = WindowConfig(window_seconds, hop_seconds)
        inputs, single = as_input_list(audio)
        windows_by_clip: dict[int, list[Any]] = {}
        names: dict[int, str] = {}
        read = partial(read_windows, reading, prompt_text)
        for batch in batched_windows(self.pipeline, inputs, sampling_rate, window_config):
            windows_read = raise_first(run_by_recording(batch, read))
            for item, window in zip(batch, windows_read, strict=True):
                windows_by_clip.setdefault(item.recording_index, []).append(window)
                names[item.recording_index] = item.recording.name
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
        window_seconds: float = WindowConfig.window_seconds,
    ) -> LayerSimilarity:
        """Similarity (linear CKA) of all pairs of taps over a set of recordings; see
        `LayerSimilarity`.

        The same time segments are compared at every tap: 40 ms each, or as much longer as it takes
        for all windows together to have at most `examples` of them.

        Args:
            audio: a list; recordings that differ say more than one alone.
            taps: all of them by default.
            examples: at most so many segments; memory grows with their square, for each tap.

        Raises:
            AudioError, TapError, OptionError: for audio that can't be decoded, unknown taps and
                invalid options.
        """
        if not isinstance(audio, list | tuple) or not audio:
            raise OptionError(
                "layer_similarity compares taps over a list of recordings: give one or more"
            )
        if not isinstance(examples, int) or examples < 16:
            raise OptionError(f"examples={examples!r}: use a whole number, 16 or more")
        resolved_taps = self._resolve_taps(self.taps if taps is None else taps)
        if len(resolved_taps) < 2:
            raise OptionError(f"taps={list(resolved_taps)}: name two or more to compare")
        in_lm = any(tap.in_language_model for tap in resolved_taps.values())
        prompt_text = (
            self.pipeline.tokenizer.render(prompt) if in_lm else self._prompt_text([], prompt)
        )
        waveforms = [load_waveform(item, sampling_rate=sampling_rate) for item in audio]
        window_config = WindowConfig(window_seconds)
        windows = sum(len(waveform.windows(window_config)) for waveform in waveforms)
        if windows > examples // 2:
            raise OptionError(
                f"{windows} windows and examples={examples}: give examples={2 * windows} or more, "
                "or fewer recordings"
            )
        segments: dict[str, list[np.ndarray]] = {name: [] for name in resolved_taps}
        for rate in {tap.rate_hz for tap in resolved_taps.values()}:  # one pass each
            same_rate = {name: tap for name, tap in resolved_taps.items() if tap.rate_hz == rate}
            reducer = partial(
                mean_segments,
                rows_per_token=round(rate / _AUDIO_TOKENS_HZ),
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
                for window in captured.outputs:
                    for name, tap in same_rate.items():
                        segments[name].append(window[tap])
        rows = [np.concatenate(segments[name]) for name in resolved_taps]
        return LayerSimilarity(
            tuple(waveform.name for waveform in waveforms),
            tuple(resolved_taps),
            cka_matrix(rows).astype(np.float32),
            len(rows[0]),
            self.dtype,
        )

    def _levels(self, taps: Iterable[str | Tap] | None) -> tuple[Tap, ...]:
        if taps is None:
            return tuple(tap for tap in self.taps if tap.stage is Stage.LM)
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        return tuple(sorted(set(self._resolve_taps(taps).values())))

    def _view(
        self,
        waveform: Waveform,
        tap: Tap,
        prompt_text: str | None,
        window_config: WindowConfig,
        columns: int,
        kernel_seconds: float | None,
        depth: bool,
    ) -> View:
        windows = len(waveform.windows(window_config))
        # Averaged within each window first, to a quarter of a column; then over columns.
        reducer = partial(mean_groups, max_groups=max(1, math.ceil(4 * columns / windows)))
        captured = capture_recording(
            self.pipeline, waveform, [_MEL, tap], reducer, prompt_text, window_config
        )
        columns_by_tap = {}
        for source_tap in {_MEL, tap}:
            centres, counts = [], []
            for window, output in zip(captured.windows, captured.outputs, strict=True):
                group_sizes = output[source_tap][1]
                centre_rows = np.cumsum(group_sizes) - group_sizes / 2
                centres.append(window.start_seconds + centre_rows * source_tap.hop_seconds)
                counts.append(group_sizes)
            columns_by_tap[source_tap] = average_to_columns(
                np.concatenate([output[source_tap][0] for output in captured.outputs]),
                np.concatenate(centres),
                np.concatenate(counts),
                source_tap.hop_seconds,
                columns,
            )
        norms = self._norms_by_tap(waveform, prompt_text, window_config) if depth else {}
        return View.from_columns(
            waveform.name,
            tap,
            columns_by_tap[tap],
            captured.windows,
            self.dtype,
            kernel_seconds,
            envelope=views.envelope(waveform.samples, ENVELOPE_POINTS),
            log_mel=decibels(columns_by_tap[_MEL][0]),
            mel_hz=self.mel_hz,
            **norms,
        )

    def _norms_by_tap(
        self, waveform: Waveform, prompt_text: str | None, window_config: WindowConfig
    ) -> dict[str, Any]:
        """Quartiles of the L2 norms of the audio rows, at every tap."""
        prompt_text = self.pipeline.tokenizer.render(None) if prompt_text is None else prompt_text
        captured = capture_recording(
            self.pipeline, waveform, self.taps, audio_norms, prompt_text, window_config
        )
        quartiles = [
            np.percentile(
                np.concatenate([output[tap] for output in captured.outputs]), [25, 50, 75]
            )
            for tap in self.taps
        ]
        return {
            "depth_taps": tuple(map(str, self.taps)),
            "depth_norms": np.array(quartiles, np.float32),
        }
