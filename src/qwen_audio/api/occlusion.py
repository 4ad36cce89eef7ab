"""Where the sound that an answer depends on is: occlusion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack, overload

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
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError
from qwen_audio.inference.scored_clips import answer_tokens, encode_clips

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
            answers: two texts that the model could begin its answer with.
            window_seconds, hop_seconds: of what is removed.

        Raises:
            AudioError: for audio that can't be decoded, or is longer than a window of the model.
            OptionError: for invalid options, and answers that are the same tokens.
        """
        pair = check_answers(answers)
        window, hop = check_occlusion_windows(window_seconds, hop_seconds)
        prompt_text = self.pipeline.tokenizer.render(question)
        choices = answer_tokens(self.pipeline, prompt_text, pair)
        load = partial(load_waveform, sampling_rate=sampling_rate, track=track, on_damage=on_damage)
        inputs, single = as_input_list(audio)
        results = [
            self._occlusion(load(item), prompt_text, pair, choices, window, hop) for item in inputs
        ]
        return results[0] if single else results

    def _occlusion(
        self,
        waveform: Waveform,
        prompt_text: str,
        answers: tuple[str, str],
        choices: Sequence[tuple[int, ...]],
        window: int,
        hop: int,
    ) -> Occlusion:
        check_one_window(waveform, self.pipeline.window_config(WindowConfig.window_seconds))
        samples = waveform.samples
        starts = occlusion_starts(samples.size, window, hop)
        clips = (samples, *(occluded(samples, start, window) for start in starts))
        rows = encode_clips(self.pipeline, clips)
        scores = self.pipeline.score(prompt_text, rows, choices)
        values = np.array([each.log_probability for each in scores])
        return Occlusion(
            waveform.name,
            prompt_text,
            answers,
            np.array(starts) / SAMPLE_RATE_HZ,
            window / SAMPLE_RATE_HZ,
            (float(values[0, 0]), float(values[0, 1])),
            values[1:],
            envelope(samples, _COLUMNS),
            waveform.duration_seconds,
            self.dtype,
        )


def check_one_window(waveform: Waveform, window_config: WindowConfig) -> None:
    """Raises AudioError for a recording of several windows."""
    if len(waveform.windows(window_config)) > 1:
        raise AudioError(
            f"{waveform.name} is longer than a window of {window_config.window_seconds:g} s, and "
            "occlusion is of one: cut it"
        )
