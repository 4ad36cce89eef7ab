"""A model on a server: scores of given answers, and classes, as `AudioModel` has them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Required, Unpack, overload

from qwen_audio.analysis.classes import Classes, Prior, as_classes, as_prior, as_temperature
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.scores import Scores
from qwen_audio.api.scorer import warn_of_low_mass
from qwen_audio.audio.inputs import AudioInput, AudioInputs
from qwen_audio.audio.window import WINDOW_SECONDS, Window
from qwen_audio.inference.choices import OverWindows

from .client_requests import AudioFile
from .remote_base import RemoteBase, RemoteOptions, named_notes

__all__ = ["RemoteScores"]


class _ScoreOptions(RemoteOptions, total=False):
    choices: Required[Sequence[str]]
    include_end: bool
    leading_space: bool | None
    length_normalized: bool
    over_windows: OverWindows


class RemoteScores(RemoteBase):
    """Methods that score given answers."""

    @overload
    def score(
        self, audio: AudioInput, prompt: str | None = None, **options: Unpack[_ScoreOptions]
    ) -> Scores: ...
    @overload
    def score(
        self, audio: AudioInputs, prompt: str | None = None, **options: Unpack[_ScoreOptions]
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
        window_seconds: float = WINDOW_SECONDS,
        hop_seconds: float | None = None,
    ) -> Scores | list[Scores]:
        """How likely each choice is as the answer about each recording: see `AudioModel.score`."""
        options = {
            "prompt": prompt,
            "choices": choices if isinstance(choices, str) else list(choices),
            "include_end": include_end,
            "leading_space": leading_space,
            "length_normalized": length_normalized,
            "over_windows": over_windows,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
        }
        return self._scores(audio, sampling_rate, options)

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
        window_seconds: float = WINDOW_SECONDS,
        hop_seconds: float | None = None,
    ) -> Classification:
        """Zero-shot classification: see `AudioModel.classify`.

        Spellings are scored by the server; what follows from the scores is computed here, so that
        prior="batch" is of all recordings.
        """
        spellings = as_classes(classes)
        as_prior(prior, tuple(spellings))
        as_temperature(temperature)
        options = {
            "prompt": prompt,
            "choices": list(chain.from_iterable(spellings.values())),
            "include_end": include_end,
            "leading_space": leading_space,
            "length_normalized": length_normalized,
            "over_windows": over_windows,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
        }
        results = self._scores(audio, sampling_rate, options)
        scores = results if isinstance(results, list) else [results]
        return Classification.of(scores, spellings, prior, temperature)

    def _scores(
        self, audio: Any, sampling_rate: int | None, options: dict[str, Any]
    ) -> Scores | list[Scores]:
        """Of each recording; and a warning where choices have little probability."""

        def score(file: AudioFile) -> tuple[Scores, float | None]:
            body = {"model": self.name, **options, "input": file.base64}
            answered = self._connection.post("v1/score", body, file.name)
            return _scores(file.name, answered), answered["other_mass"]

        results = self._each(audio, sampling_rate, score)
        pairs = results if isinstance(results, list) else [results]
        other_mass = next((other for _, other in pairs if other is not None), None)
        warn_of_low_mass((scores for scores, _ in pairs), other_mass, stacklevel=4)
        return [scores for scores, _ in pairs] if isinstance(results, list) else results[0]


def _scores(name: str, answered: dict[str, Any]) -> Scores:
    (item,) = answered["data"]
    return Scores(
        name=name,
        choices=tuple(answered["choices"]),
        windows=tuple(Window(**window) for window in item["windows"]),
        token_log_probabilities=tuple(
            tuple(map(tuple, of_window)) for of_window in item["token_log_probabilities"]
        ),
        tokens=tuple(map(tuple, answered["tokens"])),
        prompt=answered["prompt"],
        leading_space=answered["leading_space"],
        include_end=answered["include_end"],
        length_normalized=answered["length_normalized"],
        over_windows=answered["over_windows"],
        dtype=answered["dtype"],
        notes=tuple(named_notes(item["notes"], name)),
    )
