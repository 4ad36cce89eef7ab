"""One model for many clients: a thread that runs all of their requests, step by step."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.errors import QwenAudioError
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.weights.device import trim_heap

from .body import ByteBudget
from .decoding import UploadDecoder
from .jobs import CallJob, Job, TextJob
from .limits import ApiLimits
from .texts import TextQueue
from .window_jobs import WindowJob
from .windows import WindowQueue

__all__ = ["BusyError", "Engine", "NotReadyError"]

T = TypeVar("T")

_DECODING_THREADS = UploadDecoder.waiting_limit + 4
"""More than there are long recordings that may wait for each other."""
_IDLE_SECONDS = 1.0
"""Without a request, after which freed memory is returned to the system."""
_STOP_SECONDS = 10.0
"""For the pass that runs when the engine is closed."""


class BusyError(QwenAudioError):
    """More requests than the queue holds, or their recordings more than memory: try again later."""


class NotReadyError(QwenAudioError):
    """The weights are being read, or the engine is stopping."""


class Engine:
    """Runs jobs over one pipeline: decodes in threads, and computes in one thread of its own.

    In turn it encodes the audio of new texts, computes hidden states or scores of windows, and
    generates one token for every text. New texts join at any step. While encoder layers run, tokens
    are generated in between, so that texts in progress go on at half their pace or more. Nothing
    else may use the pipeline meanwhile.

    Args:
        limits: queue, slots and memory.
    """

    def __init__(self, pipeline: Pipeline, limits: ApiLimits) -> None:
        self.pipeline, self._limits = pipeline, limits
        self._texts = TextQueue(pipeline, limits.slots)
        self._windows = WindowQueue(pipeline)
        self._calls: deque[CallJob[Any]] = deque()
        self._overlaps = self._is_calling = False
        self._changed = threading.Condition()
        self._jobs: set[Job[Any]] = set()
        self._arrived: deque[Job[Any]] = deque()
        self._memory = ByteBudget(limits.memory_bytes)
        self._is_ready = self._is_draining = self._is_closed = False
        self._load_error: BaseException | None = None
        self._decoders = ThreadPoolExecutor(_DECODING_THREADS, "decode")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether jobs are accepted."""
        return self._is_ready and not self._is_draining

    @property
    def running(self) -> int:
        """Jobs that the model has begun with."""
        with self._changed:
            return sum(job.has_begun for job in self._jobs)

    @property
    def waiting(self) -> int:
        """Jobs that are decoded, or wait for the model."""
        with self._changed:
            return sum(not job.has_begun for job in self._jobs)

    def wait_until_ready(self) -> None:
        """Block until the weights have been read.

        Raises:
            QwenAudioError: if they can't be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self._load_error or self._is_closed)
        if self._load_error is not None:
            raise self._load_error

    def submit(self, job: Job[Any]) -> None:
        """Queue a job; see `Job.future` for its result.

        Raises:
            NotReadyError: while the weights are being read, and once the engine stops.
            BusyError: if too many jobs wait.
        """
        with self._changed:
            if not self.is_ready:
                stopping = self._is_draining or self._is_closed
                what = "The server is stopping" if stopping else "The model is being loaded"
                raise NotReadyError(f"{what}: try again later.")
            if self.waiting >= self._limits.queue_size:
                raise BusyError(
                    "As many requests are waiting as this server queues "
                    f"({self._limits.queue_size}): try again in a few seconds."
                )
            self._jobs.add(job)
        job.future.add_done_callback(lambda _: self._forget(job))
        self._decoders.submit(self._read_inputs, job)

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Queue work of another kind, for which this is a `ModelThread`; see `submit`.

        It runs beside texts in progress, where there is memory for the keys and values of both.
        """
        job = CallJob(work)
        self.submit(job)
        return job.future

    def let_others_run(self) -> None:
        """See `ModelThread`: a turn of the other jobs."""
        if self.pipeline.memory.users > 1:
            self._accept_arrived()
            self._take_turn()

    def drain(self, seconds: float) -> bool:
        """Accept no more jobs, and wait for the others to end. Returns whether they did in time."""
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: not self._jobs, seconds)

    def close(self) -> None:
        """Cancel all jobs, and stop."""
        with self._changed:
            self._is_draining = self._is_closed = True
            self._changed.notify_all()
        self._fail_all(NotReadyError("The server was stopped before the request ended."))
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._thread.join(_STOP_SECONDS)

    def _forget(self, job: Job[Any]) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.discard(job)
                self._memory.release(job.reserved_bytes)
            self._changed.notify_all()

    def _read_inputs(self, job: Job[Any]) -> None:
        """Decode a job's recordings, in a thread of the pool, and hand it to the engine."""
        if job.future.done():
            return
        try:
            job.read_inputs()
        except Exception as error:  # noqa: BLE001 (is the job's)
            job.fail(error)
            return
        with self._changed:
            if job.future.done():
                return
            if self._memory.reserve(job.nbytes):
                job.reserved_bytes = job.nbytes
                self._arrived.append(job)
                self._changed.notify_all()
                return
        job.fail(BusyError("Too many recordings are waiting: try again in a few seconds."))

    def _run(self) -> None:
        try:
            self._load()
        except BaseException as error:  # noqa: BLE001 (raised by wait_until_ready)
            self._load_error = error
        with self._changed:
            self._is_ready = self._load_error is None
            self._changed.notify_all()
        while self._take_arrived():
            try:
                self._take_turn()
            except Exception as error:  # noqa: BLE001 (a mistake of this package: others go on)
                self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            job.fail(error)

    def _load(self) -> None:
        """Read all weights, by using each of them once."""
        pipeline = self.pipeline
        mel = pipeline.log_mel(np.zeros(SAMPLE_RATE_HZ, np.float32))
        if not pipeline.checkpoint.dimensions.has_language_model:
            deepest = pipeline.checkpoint.dimensions.taps()[-1]
            pipeline.fetch_weights(deepest)
            pipeline.encoder.forward([mel], [deepest], lambda *_: None)
            self._overlaps = pipeline.holds_weights(deepest)
            return
        pipeline.fetch_weights(None)
        rows = pipeline.encode_audio([mel])
        pipeline.generate(pipeline.tokenizer.render(None), [rows], Sampling(max_new_tokens=1))
        self._overlaps = pipeline.holds_weights(None)

    def _take_arrived(self) -> bool:
        """Wait for something to do. Returns whether the engine goes on."""
        with self._changed:
            if not self._changed.wait_for(self._has_work, _IDLE_SECONDS):
                trim_heap()
                self._changed.wait_for(self._has_work)
        self._accept_arrived()
        return not self._is_closed

    def _accept_arrived(self) -> None:
        with self._changed:
            arrived = list(self._arrived)
            self._arrived.clear()
        for job in arrived:
            if isinstance(job, TextJob):
                self._texts.add(job)
            elif isinstance(job, WindowJob):
                self._windows.add(job)
            elif isinstance(job, CallJob):
                self._calls.append(job)

    def _has_work(self) -> bool:
        queues = (self._arrived, self._texts, self._windows, self._calls)
        return self._is_closed or any(queues)

    def _take_turn(self) -> None:
        """One pass of each kind at most.

        Texts in progress end first, and no others join, where a pass can't run beside them: of
        layers that are streamed, which take the memory of keys and values; of captures that
        generate, which have keys and values of their own; and calls, which may have some, where
        memory doesn't hold both.
        """
        self._texts.drop_cancelled()
        self._windows.drop_cancelled()
        is_quiet = not self._texts.is_generating
        if self._overlaps or is_quiet:
            self._texts.encode(self._between_layers)
        if is_quiet or (self._overlaps and not self._windows.generates):
            self._windows.compute(self._between_layers)
        if self._calls and not self._is_calling:
            self._call()
        if not (self._windows.generates or self._calls):
            self._texts.join()
        self._texts.step()

    def _call(self) -> None:
        """Run the next call, if there is memory for it and the texts in progress."""
        memory = self.pipeline.memory
        shares = self._overlaps and memory.holds_two_users
        memory.users = 2 if shares else 1
        is_quiet = not self._texts.is_generating
        if is_quiet or (shares and self._texts.cached_positions <= memory.max_positions):
            self._is_calling = True
            self._calls.popleft().run()
        memory.users, self._is_calling = 1, False

    def _between_layers(self) -> None:
        if self._overlaps:
            self._texts.step_if_due()
