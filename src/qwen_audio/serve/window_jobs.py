"""What an engine is asked for of every window of recordings: hidden states among it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window_stream import SampledWindow
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.reader import CapturedRecording
from qwen_audio.inference.reducers import CapturedWindow, RowReducer
from qwen_audio.models.tap import Tap

from .jobs import Job
from .recordings import Recording

__all__ = ["CaptureJob", "WindowJob", "WindowPart"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class WindowPart:
    """One window of a job's recordings."""

    job: WindowJob[Any]
    recording: int
    window: int

    @property
    def sampled(self) -> SampledWindow:
        """The window."""
        return self.job.recordings[self.recording].windows[self.window]


class WindowJob(Job[list[T]]):
    """Something to compute of every window of recordings; jobs share passes.

    Args:
        read: decodes the recordings.

    Attributes:
        recordings: once they have been read.
        generates: whether its passes generate text.
    """

    generates = False

    def __init__(self, read: Callable[[], Sequence[Recording]]) -> None:
        super().__init__()
        self._read = read
        self.recordings: Sequence[Recording] = ()
        self._outputs: dict[tuple[int, int], Any] = {}

    @property
    @abstractmethod
    def key(self) -> Hashable:
        """Equal for jobs whose windows may share passes."""

    @abstractmethod
    def compute(
        self, pipeline: Pipeline, windows: Sequence[AudioWindow], on_layer: Callable[[], None]
    ) -> Sequence[Any]:
        """One pass over windows, of this job or others whose key is equal: an output for each.

        Args:
            on_layer: called between layers of the encoder.
        """

    @abstractmethod
    def _result(self, recording: Recording, outputs: Sequence[Any]) -> T:
        """Of one recording, from the outputs of its windows."""

    def max_size(self, pipeline: Pipeline) -> int:
        """Of all windows of a pass; one alone may be larger."""
        return pipeline.memory.max_frames

    def size(self, pipeline: Pipeline, samples: int) -> int:
        """Of a window of so many samples: by default its encoder frames."""
        family = pipeline.checkpoint.family
        return family.encoder_rows(family.mel_frames(samples))

    def read_inputs(self) -> None:
        """See `Job`."""
        self.recordings = self._read()
        del self._read  # which holds the bytes of the files
        self._measure(window for recording in self.recordings for window in recording.windows)

    def parts(self) -> list[WindowPart]:
        """All windows, in order."""
        return [
            WindowPart(self, number, window)
            for number, recording in enumerate(self.recordings)
            for window in range(len(recording.windows))
        ]

    def set_output(self, part: WindowPart, output: Any) -> None:
        """What a pass gave for one window; with the last one the job succeeds."""
        self._outputs[part.recording, part.window] = output
        if len(self._outputs) == sum(len(each.windows) for each in self.recordings):
            self.succeed(
                [
                    self._result(each, [self._outputs[n, i] for i in range(len(each.windows))])
                    for n, each in enumerate(self.recordings)
                ]
            )


class CaptureJob(WindowJob[CapturedRecording[Any]]):
    """Hidden states to compute: of every recording, at some taps.

    Args:
        read: decodes the recordings.
        taps, reducer, prompt_text, continuation: see `Pipeline.capture`. Windows of jobs in which
            these are equal share passes.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Recording]],
        taps: tuple[Tap, ...],
        reducer: RowReducer[Any],
        prompt_text: str | None = None,
        continuation: Sampling | None = None,
    ) -> None:
        super().__init__(read)
        self._taps, self._reducer = taps, reducer
        self.prompt_text, self._continuation = prompt_text, continuation
        self.generates = continuation is not None

    @property
    def key(self) -> Hashable:
        """See `WindowJob`."""
        return (self._taps, self._reducer, self.prompt_text, self._continuation)

    def compute(
        self, pipeline: Pipeline, windows: Sequence[AudioWindow], on_layer: Callable[[], None]
    ) -> list[CapturedWindow[Any]]:
        """See `WindowJob`."""
        options = (self._taps, self._reducer, self.prompt_text, self._continuation)
        return pipeline.capture(windows, *options, on_layer=on_layer)

    def _result(
        self, recording: Recording, outputs: Sequence[CapturedWindow[Any]]
    ) -> CapturedRecording[Any]:
        return CapturedRecording(
            recording.info,
            tuple(part.window for part in recording.windows),
            tuple(output.outputs for output in outputs),
            token_ids=tuple(output.token_ids for output in outputs),
        )
