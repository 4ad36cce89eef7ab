"""Where the sound that an answer depends on is: occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from typing import Any, Unpack, overload

import numpy as np

from qwen_audio.analysis.occlusion import (
    Occlusion,
    check_answers,
    check_occlusion_windows,
    occluded,
    occlusion_starts,
)
from qwen_audio.analysis.structure import envelope
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow, stream_windows
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.scored_clips import answer_tokens, encode_mels

from .attribution import check_single_window
from .base import ModelBase
from .options import OcclusionOptions

__all__ = ["OcclusionMixin"]

_COLUMNS = 1200


class OcclusionMixin(ModelBase):
    """The method that removes parts of the sound."""

    @overload
    def occlusion(
        self, audio: AudioInput, question: str | None = None, **options: Unpack[OcclusionOptions]
    ) -> Occlusion: ...
    @overload
    def occlusion(
        self, audio: AudioInputs, question: str | None = None, **options: Unpack[OcclusionOptions]
    ) -> list[Occlusion]: ...
    def occlusion(
        self,
        audio: AudioInput | AudioInputs,
        question: str | None = None,
        *,
        answers: Sequence[str] = ("Yes", "No"),
        window_seconds: float = 0.5,
        hop_seconds: float = 0.25,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
    ) -> Occlusion | list[Occlusion]:
        """What removing each part of the sound does to an answer: see `Occlusion`.

        A window is made silent, with fades, and the answers are scored again. All windows are in
        as few passes as fit in memory. Recordings are of one window of the model.

        Args:
            question: "Describe the music:" by default.
            answers: a text that the model could begin its answer with, or two to compare.
            window_seconds, hop_seconds: of what is removed.

        Raises:
            AudioError: for audio that can't be decoded, or is longer than a window of the model.
            OptionError: for invalid options, and answers that are the same tokens.
        """
        texts = check_answers(answers)
        window, hop = check_occlusion_windows(window_seconds, hop_seconds)
        prompt_text = self.pipeline.tokenizer.render(question)
        choices = answer_tokens(self.pipeline, prompt_text, texts)
        load_options = LoadOptions(sampling_rate, track, on_damage)
        inputs, single = as_input_list(audio)
        results = []
        for item in inputs:
            clip = self._only_window(item, load_options)
            try:
                results.append(self._occlusion(clip, prompt_text, texts, choices, window, hop))
            except NotFiniteError as error:
                raise error.named(clip.name) from None
        return results[0] if single else results

    def _only_window(self, audio: Any, load_options: LoadOptions) -> SampledWindow:
        window_config = self.pipeline.window_config(WindowConfig.window_seconds)
        with closing(stream_windows(audio, load_options, window_config)) as windows:
            window = next(windows)
        check_single_window(window, "occlusion", window_config.window_seconds, "cut it")
        return window

    def _occlusion(
        self,
        clip: SampledWindow,
        prompt_text: str,
        answers: tuple[str, ...],
        choices: Sequence[tuple[int, ...]],
        window: int,
        hop: int,
    ) -> Occlusion:
        samples = clip.samples
        starts = occlusion_starts(samples.size, window, hop)
        log_mel = self.pipeline.log_mel
        silenced = (log_mel(occluded(samples, start, window)) for start in starts)
        rows = encode_mels(self.pipeline, chain([log_mel(samples)], silenced))
        scores = self.pipeline.score(prompt_text, rows, choices)
        values = np.array([each.log_probability for each in scores])
        return Occlusion(
            clip.name,
            prompt_text,
            answers,
            np.array(starts) / SAMPLE_RATE_HZ,
            window / SAMPLE_RATE_HZ,
            tuple(map(float, values[0])),
            values[1:],
            envelope(samples, _COLUMNS),
            clip.window.duration_seconds,
            self.dtype,
            self.pipeline.all_edits,
        )
