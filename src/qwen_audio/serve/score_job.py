"""What an engine is asked for: scores of given answers about recordings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from torch import Tensor

from qwen_audio.analysis.scores import Scores
from qwen_audio.api.scorer import Scorer
from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.score import ChoiceScores

from .recordings import Recording
from .window_jobs import WindowJob, WindowPart

__all__ = ["ScoreJob"]

_POSITIONS = 1_024
"""Of the language model in one pass, in which texts in progress wait; as many as `TextQueue` lets
join in one step. Encoder frames are bounded by it, too."""


class ScoreJob(WindowJob[Scores]):
    """Choices to score: about every window of recordings.

    Args:
        read: decodes the recordings.
        scorer: of the choices. Windows of jobs whose scorers have equal keys share passes.

    Attributes:
        audio_tokens, positions: that the language model was given, without the choices; positions
            are those of audio, padding and prompt.
    """

    def __init__(self, read: Callable[[], Sequence[Recording]], scorer: Scorer) -> None:
        super().__init__(read)
        self.scorer = scorer
        self._key, self._prompt_tokens = scorer.key, scorer.prompt_tokens
        self.audio_tokens = self.positions = 0

    @property
    def key(self) -> Hashable:
        """See `WindowJob`."""
        return self._key

    def max_size(self, pipeline: Pipeline) -> int:
        """See `WindowJob`."""
        return min(pipeline.memory.max_frames, _POSITIONS)

    def size(self, pipeline: Pipeline, samples: int) -> int:
        """Encoder frames, or positions of the language model where these are more; choices count
        with all of their tokens, of which some may be shared."""
        family = pipeline.checkpoint.family
        audio_tokens = family.audio_tokens(family.mel_frames(samples))
        positions = audio_tokens + self._prompt_tokens + self.scorer.choice_tokens
        return max(super().size(pipeline, samples), positions)

    def compute(
        self, pipeline: Pipeline, windows: Sequence[AudioWindow], on_layer: Callable[[], None]
    ) -> list[tuple[Tensor, ChoiceScores]]:
        """See `WindowJob`: rows at `projector`, and scores."""
        rows = pipeline.encode_audio([window.log_mel for window in windows], on_layer)
        return list(zip(rows, self.scorer.pass_scores(rows), strict=True))

    def set_output(self, part: WindowPart, output: tuple[Tensor, ChoiceScores]) -> None:
        """See `WindowJob`; may take another pass, to find `Scorer.other_mass`."""
        rows, scores = output
        self.scorer.note_mass(rows, scores)
        self.audio_tokens += scores.audio_tokens
        self.positions += scores.audio_tokens + scores.padding_tokens + scores.prompt_tokens
        super().set_output(part, scores)

    def _result(self, recording: Recording, outputs: Sequence[ChoiceScores]) -> Scores:
        windows = [part.window for part in recording.windows]
        return self.scorer.result(recording.info.name, windows, outputs, recording.info.notes)
