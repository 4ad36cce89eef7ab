"""Scores of given answers about recordings: score, classify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Unpack, overload

from qwen_audio.analysis.classes import Classes, Prior, as_classes, as_prior, as_temperature
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.scores import Scores
from qwen_audio.audio.inputs import AudioInput, AudioInputs, as_input_list
from qwen_audio.audio.load_options import LoadOptions, OnDamage
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.inference.batching import batched_windows
from qwen_audio.inference.choices import OverWindows
from qwen_audio.inference.finite import raise_first, run_by_recording
from qwen_audio.inference.progress_bars import OnWindow, shows_progress, with_progress
from qwen_audio.inference.score import ChoiceScores

from .base import ModelBase
from .options import ScoreOptions
from .scorer import Scorer

__all__ = ["ScoreMixin"]


class ScoreMixin(ModelBase):
    """Methods that score given answers."""

    @overload
    def score(
        self, audio: AudioInput, prompt: str | None = None, **options: Unpack[ScoreOptions]
    ) -> Scores: ...
    @overload
    def score(
        self, audio: AudioInputs, prompt: str | None = None, **options: Unpack[ScoreOptions]
    ) -> list[Scores]: ...
    def score(
        self,
        audio: AudioInput | AudioInputs,
        prompt: str | None = None,
        *,
        choices: Sequence[str],
        include_end: bool = False,
        leading_space: bool | None = None,
        length_normalized: bool = False,
        over_windows: OverWindows = "mean",
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = None,
    ) -> Scores | list[Scores]:
        """How likely each choice is as the answer about each recording.

        Audio and prompt are computed once for all choices, and so is what choices begin with. The
        repetition penalty that some checkpoints have for generating text is not applied.

        Args:
            prompt: as for `describe`.
            choices: texts that the answer may be. Without their end, none may begin another.
            include_end: whether the answer ends after the choice: with any token that ends one.
            leading_space: whether choices begin with a space; by default they do after a plain
                prompt, and don't in a chat template, where answers begin without.
            length_normalized: whether choices are compared by the mean log-probability of their
                tokens, and not by the sum, which long ones lose.
            over_windows: a recording's log-probabilities are the "mean" of its windows', or the
                "sum", as of windows that are independent of each other.
            sampling_rate, track, on_damage, window_seconds, hop_seconds, progress: see `describe`.

        Returns:
            `Scores`: `log_probability` and `probability` of shape (windows, choices), and `mass`.

        Warns:
            ScoreWarning: where the choices together have less than half of the probability.

        Raises:
            AudioError: naming the recording that can't be decoded, or that overflows in this dtype.
            OptionError: for choices that are empty, equal or can't be told apart by their tokens,
                and for other invalid options.
        """
        inputs, single = as_input_list(audio)
        scorer = Scorer(
            self.pipeline,
            prompt,
            choices,
            include_end=include_end,
            leading_space=leading_space,
            length_normalized=length_normalized,
            over_windows=over_windows,
        )
        results = self._all_scores(
            scorer,
            inputs,
            LoadOptions(sampling_rate, track, on_damage),
            self.pipeline.window_config(window_seconds, hop_seconds),
            progress=progress,
        )
        scorer.warn()
        return results[0] if single else results

    def classify(
        self,
        audio: AudioInput | AudioInputs,
        classes: Classes,
        prompt: str | None = None,
        *,
        prior: Prior = "none",
        temperature: float = 1.0,
        include_end: bool = False,
        leading_space: bool | None = None,
        length_normalized: bool = False,
        over_windows: OverWindows = "mean",
        sampling_rate: int | None = None,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        window_seconds: float = WindowConfig.window_seconds,
        hop_seconds: float | None = None,
        progress: bool | None = None,
    ) -> Classification:
        """Zero-shot classification: the probability of each class, for one or more recordings.

        Args:
            classes: with the spellings of each, as answers to the prompt; their probabilities add
                up. Or a list of texts, which are classes themselves.
            prior: what is divided out of the classes' probabilities: nothing; the mean over these
                recordings ("batch": where each class is as frequent as any other,
                https://arxiv.org/abs/2309.17249); or a probability for each class.
            temperature: by which log-probabilities are divided; `Classification.fit_temperature`
                finds it on labelled recordings.
            prompt, include_end, leading_space, length_normalized, over_windows: see `score`.
            sampling_rate, track, on_damage, window_seconds, hop_seconds, progress: see `describe`.

        Warns, Raises:
            As `score` does, and OptionError for a prior or temperature that can't be used.
        """
        spellings = as_classes(classes)
        as_prior(prior, tuple(spellings))
        as_temperature(temperature)
        inputs, _ = as_input_list(audio)
        scorer = Scorer(
            self.pipeline,
            prompt,
            list(chain.from_iterable(spellings.values())),
            include_end=include_end,
            leading_space=leading_space,
            length_normalized=length_normalized,
            over_windows=over_windows,
        )
        scores = self._all_scores(
            scorer,
            inputs,
            LoadOptions(sampling_rate, track, on_damage),
            self.pipeline.window_config(window_seconds, hop_seconds),
            progress=progress,
        )
        scorer.warn()
        return Classification.of(scores, spellings, prior, temperature)

    def _all_scores(
        self,
        scorer: Scorer,
        inputs: Sequence[Any],
        load_options: LoadOptions,
        window_config: WindowConfig,
        *,
        progress: bool | None,
    ) -> list[Scores]:
        shown = shows_progress(False if len(inputs) < 2 and progress is None else progress)
        scores = partial(self._scores, scorer, inputs, load_options, window_config)
        return list(with_progress(scores, shown, len(inputs), "scoring"))

    def _scores(
        self,
        scorer: Scorer,
        inputs: Sequence[Any],
        load_options: LoadOptions,
        window_config: WindowConfig,
        on_window: OnWindow,
    ) -> Iterator[Scores]:
        """Of each recording, as soon as it is complete."""

        def score(windows: Sequence[AudioWindow]) -> list[ChoiceScores]:
            mels = [window.log_mel for window in windows]
            return scorer.scores(self.pipeline.encode_audio(mels))

        windows: list[Window] = []
        of_recording: list[ChoiceScores] = []
        for batch in batched_windows(self.pipeline, inputs, load_options, window_config):
            self.pipeline.fetch_weights(None)
            for item, scores in zip(
                batch, raise_first(run_by_recording(batch, score)), strict=True
            ):
                windows.append(item.window)
                of_recording.append(scores)
                on_window(item.window.end_seconds)
                if item.recording is not None:  # its last window
                    yield scorer.result(item.name, windows, of_recording, item.recording.notes)
                    windows, of_recording = [], []
