"""Hidden states for many jobs: windows of several share passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.finite import run_by_recording
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.reducers import CapturedWindow

from .jobs import CaptureJob, CapturePart

__all__ = ["CaptureQueue"]


class CaptureQueue:
    """Windows whose hidden states are to be computed, in the order in which jobs came."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._parts: deque[CapturePart] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def generates(self) -> bool:
        """Whether the next pass generates text."""
        return bool(self._parts) and self._parts[0].job.continuation is not None

    def add(self, job: CaptureJob) -> None:
        """Queue all windows of a job."""
        self._parts += job.parts()

    def drop_cancelled(self) -> None:
        """Remove windows of jobs that were cancelled, or have failed."""
        self._parts = deque(part for part in self._parts if not part.job.future.done())

    def compute(self, on_layer: Callable[[], None]) -> None:
        """One pass over the next window and others that may share it.

        Args:
            on_layer: called between layers of the encoder.
        """
        if not self._parts:
            return
        parts = self._next_parts()
        job = parts[0].job

        def capture(batch: Sequence[AudioWindow]) -> list[CapturedWindow[object]]:
            return self._pipeline.capture(
                batch, job.taps, job.reducer, job.prompt_text, job.continuation, on_layer=on_layer
            )

        for part in parts:
            part.job.has_begun = True
        try:
            windows = [self._window(part) for part in parts]
            results = run_by_recording(windows, capture)
        except Exception as error:  # noqa: BLE001 (is the jobs')
            for part in parts:
                part.job.fail(error)
            return
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, NotFiniteError):
                part.job.fail(result)
            elif not part.job.future.done():
                part.job.set_output(part, result.outputs, result.token_ids)

    def _next_parts(self) -> list[CapturePart]:
        """Windows for one pass, taken out of the queue."""
        key = self._parts[0].job.key
        chosen: list[CapturePart] = []
        others: deque[CapturePart] = deque()
        frames, limit = 0, self._pipeline.memory.max_frames
        for part in self._parts:
            count = self._frames(part)
            if part.job.key == key and (not chosen or frames + count <= limit):
                chosen.append(part)
                frames += count
            else:
                others.append(part)
        self._parts = others
        return chosen

    def _frames(self, part: CapturePart) -> int:
        samples = part.job.recordings[part.recording].windows[part.window].samples
        family = self._pipeline.checkpoint.family
        return family.encoder_rows(family.mel_frames(len(samples)))

    def _window(self, part: CapturePart) -> AudioWindow:
        recording = part.job.recordings[part.recording]
        window = recording.windows[part.window]
        mel = self._pipeline.log_mel(window.samples, window.surroundings)
        # The first argument is equal for windows of one recording.
        return AudioWindow(id(recording), window.name, window.window, mel)
