"""What can be seen inside? The verbs for the eye: view one tap, lens all levels, compare layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Unpack, overload

import numpy as np
from jaxtyping import Float64

from qwen_audio.analysis import structure as views
from qwen_audio.analysis.logit_lens import LogitLens, follow
from qwen_audio.analysis.logit_lens_readout import LensReading, read_windows
from qwen_audio.analysis.similarity import LayerSimilarity, cka_matrix
from qwen_audio.analysis.view import COLUMNS, ENVELOPE_POINTS, View, decibels, spread
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.pooling import SpanName
from qwen_audio.inference.reader import read
from qwen_audio.inference.reducers import groups, lengths, mean_segments
from qwen_audio.models.tap import Stage, Tap

from .base import Opened
from .options import LensOptions, ViewOptions

__all__ = ["Looking"]

_MEL = Tap(Stage.MEL)
_TOKENS_HZ = Tap(Stage.PROJECTOR).rate_hz


class Looking(Opened):
    """The verbs that show what is inside."""

    @property
    def mel_hz(self) -> Float64[np.ndarray, "bins"]:
        """Where the bands of the log-mel spectrogram lie: the middle of each, in Hz."""
        filters = np.asarray(self.pipeline.checkpoint.extractor.mel_filters, np.float64)
        hz = np.linspace(0, self.pipeline.checkpoint.extractor.sampling_rate / 2, len(filters))
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
        """What a recording looks like at one tap: see `View`; `picture` and `draw` show it.

        Memory does not grow with the recording's length beyond its samples: rows are averaged on
        the way.

        Args:
            prompt: at language model taps, what to ask.
            depth: also the lengths of the rows at every tap of the line (one more pass).
            columns: at most so many.
            kernel_seconds: how far the novelty looks; see `View.of`.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        resolved = self.dimensions.tap(tap)
        prompt_text = self._rendered([resolved], prompt)
        window_config = WindowConfig(window_seconds)
        inputs, single = as_input_list(audio)
        results = []
        for item in inputs:
            waveform = load_waveform(item, sampling_rate=sampling_rate)
            results.append(
                self._view(
                    waveform, resolved, prompt_text, window_config, columns, kernel_seconds, depth
                )
            )
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
        """What would be said at every position and level of the language model: see `LogitLens`.

        One forward pass; then the final norm and head over its rows, a few at a time, so that no
        more than a few positions' scores of the whole vocabulary are ever in memory.

        Args:
            prompt: what to ask; "Describe the music:" unless given.
            span: which positions: "audio", "prompt", "last" (before the answer) or "all".
            taps: the levels: `lm.K`; every one of them unless given.
            top: how many of the likeliest tokens to keep.
            tokens: words to follow: see `lens.follow` for which tokens these are.
            nearest: also the token embeddings that the audio's rows at `projector` are nearest to.

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        levels = self._levels(taps)
        reading = LensReading(
            self.pipeline, levels, span, top, follow(self.pipeline.prompts, tokens), nearest
        )
        prompt_text = self.pipeline.prompts.render(prompt)
        window_config = WindowConfig(window_seconds, hop_seconds)
        inputs, single = as_input_list(audio)
        held: dict[int, list[Any]] = {}
        names: dict[int, str] = {}
        for batch in batched_windows(self.pipeline, inputs, sampling_rate, window_config):
            for piece, window in zip(batch, read_windows(reading, batch, prompt_text), strict=True):
                held.setdefault(piece.recording_index, []).append(window)
                names[piece.recording_index] = piece.recording.name
        results = [
            reading.lens(names[clip], prompt_text, windows) for clip, windows in held.items()
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
        """How alike the taps of the line are, over a set of recordings: see `LayerSimilarity`.

        The same stretches of sound are compared at every tap: 40 ms each, or as much longer as it
        takes for all windows together to have at most `examples` of them.

        Args:
            audio: a list; several that differ say more than one.
            taps: all of them unless given.
            examples: at most so many; more take more time and memory (their square, for each tap).

        Raises:
            AudioError, TapError, OptionError: for what can't be heard, read or meant.
        """
        if not isinstance(audio, list | tuple) or not audio:
            raise OptionError("layers compares taps over a list of recordings: give one or more")
        if not isinstance(examples, int) or examples < 16:
            raise OptionError(f"examples={examples!r}: use a whole number, 16 or more")
        named = self._named(self.taps if taps is None else taps)
        if len(named) < 2:
            raise OptionError(f"taps={list(named)}: name two or more to compare")
        deep = any(tap.in_language_model for tap in named.values())
        prompt_text = self.pipeline.prompts.render(prompt) if deep else self._rendered([], prompt)
        waveforms = [load_waveform(item, sampling_rate=sampling_rate) for item in audio]
        window_config = WindowConfig(window_seconds)
        windows = sum(len(waveform.windows(window_config)) for waveform in waveforms)
        if windows > examples // 2:
            raise OptionError(
                f"{windows} windows and examples={examples}: give examples={2 * windows} or more, "
                "or fewer recordings"
            )
        stretches: dict[str, list[np.ndarray]] = {name: [] for name in named}
        for rate in {tap.rate_hz for tap in named.values()}:  # a pass each
            mine = {name: tap for name, tap in named.items() if tap.rate_hz == rate}
            for reading in read(
                self.pipeline,
                waveforms,
                list(mine.values()),
                partial(
                    mean_segments, per_token=round(rate / _TOKENS_HZ), most=examples // windows
                ),
                prompt_text=prompt_text,
                window_config=window_config,
            ):
                if isinstance(reading, AudioError):
                    raise reading
                for kept in reading.kept:
                    for name, tap in mine.items():
                        stretches[name].append(kept[tap])
        rows = [np.concatenate(stretches[name]) for name in named]
        return LayerSimilarity(
            tuple(waveform.name for waveform in waveforms),
            tuple(named),
            cka_matrix(rows).astype(np.float32),
            len(rows[0]),
            self.dtype,
        )

    def _levels(self, taps: Iterable[str | Tap] | None) -> tuple[Tap, ...]:
        if taps is None:
            return tuple(tap for tap in self.taps if tap.stage is Stage.LM)
        if isinstance(taps, str | Tap):
            raise OptionError(f"taps={taps!r} is one tap: give a list of taps, such as [{taps!r}]")
        levels = tuple(sorted(set(self._named(taps).values())))
        for tap in levels:
            if tap.stage is not Stage.LM:
                raise OptionError(
                    f"{tap} has no words: the lens reads the language model's levels, lm.0 to "
                    f"lm.{self.dimensions.lm_layers}"
                )
        return levels

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
        # Averaged within a window first, to a quarter of a column; then onto the columns.
        keep = partial(groups, most=max(1, math.ceil(4 * columns / windows)))
        (reading,) = read(
            self.pipeline,
            [waveform],
            [_MEL, tap],
            keep,
            prompt_text=prompt_text,
            window_config=window_config,
        )
        if isinstance(reading, AudioError):
            raise reading
        placed = {}
        for read_tap in {_MEL, tap}:
            middles, counts = [], []
            for window, kept in zip(reading.windows, reading.kept, strict=True):
                of_window = kept[read_tap][1]
                before = np.cumsum(of_window) - of_window / 2
                middles.append(window.start_seconds + before * read_tap.hop_seconds)
                counts.append(of_window)
            rows = np.concatenate([kept[read_tap][0] for kept in reading.kept])
            where = (np.concatenate(middles), np.concatenate(counts))
            placed[read_tap] = spread(rows, *where, read_tap.hop_seconds, columns)
        more: dict[str, Any] = {}
        if depth:
            more = self._depth(waveform, prompt_text, window_config)
        return View.made(
            waveform.name,
            tap,
            placed[tap],
            reading.windows,
            self.dtype,
            kernel_seconds,
            envelope=views.envelope(waveform.samples, ENVELOPE_POINTS),
            log_mel=decibels(placed[_MEL][0]),
            mel_hz=self.mel_hz,
            **more,
        )

    def _depth(
        self, waveform: Waveform, prompt_text: str | None, window_config: WindowConfig
    ) -> dict[str, Any]:
        """The quartiles of the lengths of the audio's rows, at every tap."""
        prompted = self.pipeline.prompts.render(None) if prompt_text is None else prompt_text
        (reading,) = read(
            self.pipeline,
            [waveform],
            self.taps,
            lengths,
            prompt_text=prompted,
            window_config=window_config,
        )
        if isinstance(reading, AudioError):
            raise reading
        quartiles = [
            np.percentile(np.concatenate([kept[tap] for kept in reading.kept]), [25, 50, 75])
            for tap in self.taps
        ]
        return {
            "depth_taps": tuple(map(str, self.taps)),
            "depth_norms": np.array(quartiles, np.float32),
        }
