"""Whether answers depend on the sound: audio_ablation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.analysis.audio_ablation import (
    HEARD,
    MAX_OTHERS,
    NOISE,
    SHUFFLED,
    SILENCE,
    AudioAblation,
)
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import OnDamage
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError, whole_number_option
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.scored_clips import answer_tokens, encode_clips

from .base import ModelBase
from .options import AblationOptions

__all__ = ["AblationMixin", "with_examples"]

_MAX_NEW_TOKENS = 64
_MIN_OTHERS = 3
_EXAMPLES = ("guitar.flac", "djembe.flac", "speech.flac")
_LEVEL_OF_SILENT_NOISE = 1e-3
"""Of noise in place of a window that is silent itself."""


class AblationMixin(ModelBase):
    """The method that replaces the sound."""

    @overload
    def audio_ablation(
        self, audio: AudioInput, question: str | None = None, **options: Unpack[AblationOptions]
    ) -> AudioAblation: ...
    @overload
    def audio_ablation(
        self, audio: AudioInputs, question: str | None = None, **options: Unpack[AblationOptions]
    ) -> list[AudioAblation]: ...
    def audio_ablation(
        self,
        audio: AudioInput | AudioInputs,
        question: str | None = None,
        *,
        answers: Sequence[str] | None = None,
        others: Sequence[Any] | None = None,
        seed: int = 0,
        max_new_tokens: int = _MAX_NEW_TOKENS,
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
    ) -> AudioAblation | list[AudioAblation]:
        """Does it listen? How likely an answer is as heard, and with other sounds in its place.

        These are the window's audio tokens in another order, silence and white noise of the same
        length and level, and other clips, cut to the length or repeated. `AudioAblation` says by
        which rule an answer depends on the sound, or ignores it.

        Args:
            question: "Describe the music:" by default.
            answers: texts, of which the likeliest as heard is scored, by its probability among
                them; None: what the model answers (greedily) as heard.
            others: the other clips, up to 8; by default the others of a list, and the package's
                examples where these are fewer than three.
            seed: of the order and the noise.
            max_new_tokens: of the model's answer; one that is cut off is scored so far.

        Raises:
            AudioError: for audio that can't be decoded, and a window that is answered by nothing.
            OptionError: for invalid options, and answers that are the same tokens.
        """
        if answers is not None and (isinstance(answers, str) or not answers):
            raise OptionError(f"answers={answers!r:.60}: give texts in a list, or leave it out")
        seed = whole_number_option("seed", seed, 0, 2**63 - 1)
        sampling = Sampling(max_new_tokens)
        window_config = self.pipeline.window_config(window_seconds, hop_seconds)
        prompt_text = self.pipeline.tokenizer.render(question)
        load = partial(load_waveform, sampling_rate=sampling_rate, track=track, on_damage=on_damage)
        inputs, single = as_input_list(audio)
        waveforms = [load(item) for item in inputs]
        if others is None:
            pool = _spread(waveforms, MAX_OTHERS + 1)
        elif isinstance(others, str) or not others:
            raise OptionError(f"others={others!r:.60}: give clips in a list, or leave it out")
        else:
            pool = list(map(load, others))[: MAX_OTHERS + 1]
        results = []
        for waveform in waveforms:
            clips = _without(pool, waveform)
            if others is None and len(clips) < _MIN_OTHERS:
                clips = _without(with_examples(pool), waveform)
            if not clips:
                raise OptionError(f"{waveform.name}: others has no other clip: give at least one")
            run = _Ablation(self, prompt_text, answers, clips[:MAX_OTHERS], sampling, seed)
            results.append(run.of(waveform, window_config))
        return results[0] if single else results


class _Ablation:
    """Sounds in place of each window of a recording, and the answer's score with them."""

    def __init__(
        self,
        model: ModelBase,
        prompt_text: str,
        answers: Sequence[str] | None,
        others: Sequence[Waveform],
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.pipeline, self.dtype = model.pipeline, model.dtype
        self.prompt_text, self.answers, self.sampling = prompt_text, answers, sampling
        self.others, self.seed = others, seed
        self.choices = [] if answers is None else answer_tokens(self.pipeline, prompt_text, answers)

    def of(self, waveform: Waveform, window_config: WindowConfig) -> AudioAblation:
        windows = waveform.windows(window_config)
        random = np.random.default_rng(self.seed)
        scored = [self._window(waveform, waveform.samples_in(each), random) for each in windows]
        texts, values, tokens = zip(*scored, strict=True)
        return AudioAblation(
            waveform.name,
            self.prompt_text,
            texts,
            tuple(self.answers or ()),
            windows,
            (HEARD, SHUFFLED, SILENCE, NOISE, *(other.name for other in self.others)),
            np.stack(values),
            tokens,
            self.dtype,
        )

    def _window(
        self,
        waveform: Waveform,
        samples: Float32[np.ndarray, "samples"],
        random: np.random.Generator,
    ) -> tuple[str, np.ndarray, int]:
        """The answer, its log-probability by condition, and its number of tokens."""
        level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) or _LEVEL_OF_SILENT_NOISE
        clips = [
            samples,
            np.zeros_like(samples),
            (random.standard_normal(samples.size) * level).astype(np.float32),
            *(np.resize(other.samples, samples.size) for other in self.others),
        ]
        heard, *replaced = encode_clips(self.pipeline, clips)
        rows: list[list[Tensor]] = [heard, [_shuffled(heard[0], random)], *replaced]
        if self.answers is None:
            (text,) = self.pipeline.generate(self.prompt_text, [heard], self.sampling)
            ids = text.token_ids[:-1] if text.ended_by == "stop token" else text.token_ids
            if not ids:
                raise AudioError(
                    f"{waveform.name}: the model's answer is empty: give answers to score"
                )
            scores = self.pipeline.score(self.prompt_text, rows, [ids])
            return text.text, np.array([each.log_probability[0] for each in scores]), len(ids)
        scores = self.pipeline.score(self.prompt_text, rows, self.choices)
        values = np.array([each.log_probability for each in scores])
        best = int(values[0].argmax())
        if len(self.choices) > 1:  # of their probability together
            values -= np.logaddexp.reduce(values, axis=1, keepdims=True)
        return self.answers[best], values[:, best], len(self.choices[best])


def with_examples(clips: Sequence[Waveform]) -> list[Waveform]:
    """Clips, and those of the package's examples that aren't among them: a guitar, a djembe, and
    speech."""
    packaged = Path(__file__).parents[1] / "playground" / "examples"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "examples"
    together = list(clips)
    for name in _EXAMPLES:
        if (folder / name).is_file():
            example = load_waveform(folder / name)
            together += _without([example], *clips)
    return together


def _spread(waveforms: Sequence[Waveform], most: int) -> list[Waveform]:
    """At most so many, evenly spaced."""
    places = np.unique(np.linspace(0, len(waveforms) - 1, min(most, len(waveforms))).round())
    return [waveforms[int(place)] for place in places]


def _without(clips: Sequence[Waveform], *others: Waveform) -> list[Waveform]:
    """Those clips that have other samples."""
    known = [other.samples for other in others]
    return [clip for clip in clips if not any(np.array_equal(clip.samples, k) for k in known)]


def _shuffled(rows: Tensor, random: np.random.Generator) -> Tensor:
    order = torch.from_numpy(random.permutation(len(rows)))
    return rows[order.to(rows.device)]
