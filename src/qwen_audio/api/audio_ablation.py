"""Whether answers depend on the sound: audio_ablation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar, Unpack, overload

import numpy as np
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
from qwen_audio.audio.examples import example_paths
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.unwrap import unwrapped
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.audio.window_stream import SampledWindow, stream_windows
from qwen_audio.errors import AudioError, NotFiniteError, OptionError, whole_number_option
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.scored_clips import answer_tokens, encode_mels, shuffled_audio

from .base import ModelBase
from .options import AblationOptions

__all__ = ["AblationMixin", "first_window", "with_examples"]

T = TypeVar("T")

_MAX_NEW_TOKENS = 64
_MIN_OTHERS = 3
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
        length and level, and the beginnings of other clips, cut to the length or repeated. Each is
        given to the model as a recording of its own. `AudioAblation` says by which rule an answer
        depends on the sound, or ignores it.

        Args:
            question: "Describe the music:" by default.
            answers: texts, of which the likeliest as heard is scored, by its probability among
                them; None: what the model answers (greedily) as heard.
            others: the other clips, up to 8, of which a window is decoded; by default the others of
                a list, and the package's examples where these are fewer than three.
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
        load_options = LoadOptions(sampling_rate, track, on_damage)
        inputs, single = as_input_list(audio)
        begin = partial(first_window, window_config=window_config)
        if others is None:
            # Of each of a list the beginning is read first, as another clip for the others.
            pairs = [_as_read_twice(item, load_options, single=single) for item in inputs]
            pool = [] if single else [begin(*pair) for pair in _spread(pairs, MAX_OTHERS + 1)]
        elif isinstance(others, str) or not others:
            raise OptionError(f"others={others!r:.60}: give clips in a list, or leave it out")
        else:
            pairs = [(item, load_options) for item in inputs]
            pool = [begin(item, load_options) for item in others[: MAX_OTHERS + 1]]

        def clips_without(name: str, samples: np.ndarray) -> list[Waveform]:
            clips = _without(pool, samples)
            if others is None and len(clips) < _MIN_OTHERS:
                clips = _without(with_examples(pool, window_config), samples)
            if not clips:
                raise OptionError(f"{name}: others has no other clip: give at least one")
            return clips[:MAX_OTHERS]

        run = _Ablation(self, prompt_text, answers, sampling, seed)
        results = [
            run.of(stream_windows(*pair, window_config, self.pipeline.new_peak), clips_without)
            for pair in pairs
        ]
        return results[0] if single else results


class _Ablation:
    """Sounds in place of each window of a recording, and the answer's score with them."""

    def __init__(
        self,
        model: ModelBase,
        prompt_text: str,
        answers: Sequence[str] | None,
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.pipeline, self.dtype = model.pipeline, model.dtype
        self.prompt_text, self.answers, self.sampling = prompt_text, answers, sampling
        self.seed = seed
        self.choices = [] if answers is None else answer_tokens(self.pipeline, prompt_text, answers)

    def of(
        self,
        windows: Generator[SampledWindow],
        clips_without: Callable[[str, Float32[np.ndarray, "samples"]], Sequence[Waveform]],
    ) -> AudioAblation:
        """Of one recording.

        Args:
            clips_without: the other clips, by the recording's name and first window.
        """
        random = np.random.default_rng(self.seed)
        others: Sequence[Waveform] = ()
        name, places, scored = "", [], []
        with closing(windows):
            for window in windows:
                name = window.name
                others = others or clips_without(name, window.samples)
                places.append(window.window)
                try:
                    scored.append(self._window(window, others, random))
                except NotFiniteError as error:
                    raise error.named(name) from None
        texts, values, tokens = zip(*scored, strict=True)
        return AudioAblation(
            name,
            self.prompt_text,
            texts,
            tuple(self.answers or ()),
            tuple(places),
            (HEARD, SHUFFLED, SILENCE, NOISE, *(other.name for other in others)),
            np.stack(values),
            tokens,
            self.dtype,
            self.pipeline.all_edits,
        )

    def _window(
        self, window: SampledWindow, others: Sequence[Waveform], random: np.random.Generator
    ) -> tuple[str, np.ndarray, int]:
        """The answer, its log-probability by condition, and its number of tokens."""
        samples = window.samples
        level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) or _LEVEL_OF_SILENT_NOISE
        noise = (random.standard_normal(samples.size) * level).astype(np.float32)
        heard, *replaced = encode_mels(
            self.pipeline,
            (
                self.pipeline.log_mel(samples, window.surroundings),
                *map(self.pipeline.log_mel, (np.zeros_like(samples), noise)),
                *(self.pipeline.log_mel(np.resize(each.samples, samples.size)) for each in others),
            ),
        )
        shuffled = shuffled_audio(self.pipeline, heard[0], random)
        rows: list[list[Tensor]] = [heard, [shuffled], *replaced]
        if self.answers is None:
            (text,) = self.pipeline.generate(self.prompt_text, [heard], self.sampling)
            ids = text.token_ids[:-1] if text.ended_by == "stop token" else text.token_ids
            if not ids:
                raise AudioError(
                    f"{window.name}: the model's answer is empty: give answers to score"
                )
            scores = self.pipeline.score(self.prompt_text, rows, [ids])
            return text.text, np.array([each.log_probability[0] for each in scores]), len(ids)
        scores = self.pipeline.score(self.prompt_text, rows, self.choices)
        values = np.array([each.log_probability for each in scores])
        best = int(values[0].argmax())
        if len(self.choices) > 1:  # of their probability together
            values -= np.logaddexp.reduce(values, axis=1, keepdims=True)
        return self.answers[best], values[:, best], len(self.choices[best])


def first_window(audio: Any, load_options: LoadOptions, window_config: WindowConfig) -> Waveform:
    """The first window of a recording as a clip; what follows it isn't decoded.

    Raises:
        AudioError: if it can't be decoded.
    """
    with closing(stream_windows(audio, load_options, window_config)) as windows:
        first = next(windows)
    return Waveform(first.samples, first.name)


def with_examples(clips: Sequence[Waveform], window_config: WindowConfig) -> list[Waveform]:
    """Clips, and the first windows of those of the package's examples that aren't among them."""
    together = list(clips)
    for path in example_paths().values():
        example = first_window(path, LoadOptions(), window_config)
        together += _without([example], *(clip.samples for clip in clips))
    return together


def _as_read_twice(audio: Any, options: LoadOptions, *, single: bool) -> tuple[Any, LoadOptions]:
    """An input of several, and the options it is loaded with: what can be read once (standard input
    and other streams) is decoded here."""
    is_stdin = isinstance(audio, str) and audio == "-"
    if not single and (is_stdin or hasattr(unwrapped(audio).audio, "read")):
        once = load_waveform(
            audio,
            sampling_rate=options.sampling_rate,
            track=options.track,
            on_damage=options.on_damage,
        )
        return once, LoadOptions()
    return audio, options


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly spaced."""
    places = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round())
    return [items[int(place)] for place in places]


def _without(clips: Sequence[Waveform], *others: np.ndarray) -> list[Waveform]:
    """Those clips that have other samples."""
    return [clip for clip in clips if not any(np.array_equal(clip.samples, k) for k in others)]
