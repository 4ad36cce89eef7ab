"""What is computed of windows, for many jobs: those of several share passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.finite import run_by_recording
from qwen_audio.inference.pipeline import Pipeline

from .window_jobs import WindowJob, WindowPart

__all__ = ["WindowQueue"]


class WindowQueue:
    """Windows whose hidden states or scores are to be computed, in the order in which jobs came."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._parts: deque[WindowPart] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def generates(self) -> bool:
        """Whether the next pass generates text."""
        return bool(self._parts) and self._parts[0].job.generates

    def add(self, job: WindowJob[Any]) -> None:
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

        def compute(batch: Sequence[AudioWindow]) -> Sequence[Any]:
            return parts[0].job.compute(self._pipeline, batch, on_layer)

        for part in parts:
            part.job.has_begun = True
        try:
            results = run_by_recording([self._window(part) for part in parts], compute)
        except Exception as error:  # noqa: BLE001 (is the jobs')
            for part in parts:
                part.job.fail(error)
            return
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, NotFiniteError):
                part.job.fail(result)
            elif not part.job.future.done():
                try:
                    part.job.set_output(part, result)
                except Exception as error:  # noqa: BLE001 (is the job's)
                    part.job.fail(error)

    def _next_parts(self) -> list[WindowPart]:
        """Windows for one pass, taken out of the queue."""
        job = self._parts[0].job
        key, limit = job.key, job.max_size(self._pipeline)
        chosen: list[WindowPart] = []
        others: deque[WindowPart] = deque()
        total = 0
        for part in self._parts:
            size = job.size(self._pipeline, len(part.sampled.samples))
            if (not chosen or total + size <= limit) and part.job.key == key:
                chosen.append(part)
                total += size
            else:
                others.append(part)
        self._parts = others
        return chosen

    def _window(self, part: WindowPart) -> AudioWindow:
        window = part.sampled
        mel = self._pipeline.log_mel(window.samples, window.surroundings)
        # The first argument is equal for windows of one recording.
        recording = part.job.recordings[part.recording]
        return AudioWindow(id(recording), window.name, window.window, mel)
