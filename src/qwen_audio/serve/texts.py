"""Texts for many jobs: encoded in batches, generated together, one token of each in a step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from qwen_audio.audio.log_mel import AudioWindow
from qwen_audio.audio.window_stream import SampledWindow
from qwen_audio.errors import NotFiniteError
from qwen_audio.inference.finite import run_by_recording
from qwen_audio.inference.generation import GeneratingSequence, GenerationBatch
from qwen_audio.inference.out_of_memory import explains_out_of_memory
from qwen_audio.inference.pipeline import Pipeline

from .answer_text import AnswerText
from .jobs import TextEnd, TextJob, TextPart, TextPiece, TextResult

__all__ = ["TextQueue"]

_ENCODED_FRAMES = 750
"""Encoder frames (20 ms each) in a pass: the first of several clips that come at once begin to be
answered while the others are encoded. Batches of less audio take more time a clip."""
_PREFILL_POSITIONS = 1_024
"""Of texts that join in one step, in which all others wait: one window of 30 s and its prompt, or
several short ones."""


class TextQueue:
    """Texts that wait, and those that are generated, in the order in which jobs came.

    Args:
        slots: texts that are generated at the same time.
    """

    def __init__(self, pipeline: Pipeline, slots: int) -> None:
        self.pipeline, self._slots = pipeline, slots
        self._waiting: deque[TextPart] = deque()
        self._encoded: deque[TextPart] = deque()
        self._parts: dict[GeneratingSequence, TextPart] = {}
        self._batch: GenerationBatch | None = None
        self._stepped = self._step_seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting or self._encoded or self._parts)

    @property
    def is_generating(self) -> bool:
        """Whether any texts have joined."""
        return bool(self._parts)

    @property
    def cached_positions(self) -> int:
        """Of texts that have joined, at most, when they end."""
        return sum(self._positions(part)[1] for part in self._parts.values())

    def add(self, job: TextJob) -> None:
        """Queue all texts of a job."""
        for number, item in enumerate(job.inputs):
            emit = None if job.emit is None else _numbered(job.emit, number)
            answer = AnswerText(self.pipeline.tokenizer, job.stops, emit)
            self._waiting.append(TextPart(job, number, item, answer))

    def drop_cancelled(self) -> None:
        """Remove texts of jobs that were cancelled, or have failed."""
        self._waiting = deque(part for part in self._waiting if not part.job.future.done())
        self._encoded = deque(part for part in self._encoded if not part.job.future.done())
        for part in [part for part in self._parts.values() if part.job.future.done()]:
            self._leave(part)

    def encode(self, on_layer: Callable[[], None]) -> None:
        """One pass of the encoder for texts that are to join next.

        Args:
            on_layer: called between its layers.
        """
        parts = self._to_encode()

        def encode(batch: Sequence[AudioWindow]) -> list[torch.Tensor]:
            return self.pipeline.encode_audio([each.log_mel for each in batch], on_layer)

        try:
            windows = [
                self._window(number, each)
                for number, part in enumerate(parts)
                for each in part.input.audios
            ]
            encoded = iter(run_by_recording(windows, encode) if windows else ())
        except Exception as error:  # noqa: BLE001 (is the jobs')
            for part in parts:
                part.job.fail(error)
            return
        for part in parts:
            rows = [next(encoded) for _ in part.input.audios]
            errors = [each for each in rows if isinstance(each, NotFiniteError)]
            tensors = [each for each in rows if isinstance(each, torch.Tensor)]
            try:
                if errors:
                    raise errors[0]
                (part.item,) = self.pipeline.build_inputs(part.input.prompt_text, [tensors])
                self.pipeline.lm.check_context(len(part.item.token_ids))
            except Exception as error:  # noqa: BLE001 (is the job's)
                part.job.fail(error)
            else:
                self._encoded.append(part)

    def join(self) -> None:
        """Let texts join that have been encoded, as far as there are slots and memory."""
        prefilled = 0
        memory = self.pipeline.memory
        while self._encoded and len(self._parts) < self._slots:
            part = self._encoded[0]
            length, positions = self._positions(part)
            cached = positions + self.cached_positions
            is_apart = part.is_alone or any(each.is_alone for each in self._parts.values())
            if self._parts and (is_apart or cached > memory.max_positions):
                break
            if prefilled and prefilled + length > _PREFILL_POSITIONS:
                break
            self._encoded.popleft()
            try:
                memory.divide(None, positions)
                memory.make_room(cached)
                self._join(part)
            except Exception as error:  # noqa: BLE001 (is the job's)
                part.job.fail(error)
            prefilled += length

    def step_if_due(self) -> None:
        """A step, if the last one was as long ago as a step takes."""
        if self._parts and time.monotonic() - self._stepped >= self._step_seconds:
            self.drop_cancelled()
            self.step()

    def step(self) -> None:
        """Generate one token of every text that has joined."""
        if self._batch is None or not self._parts:
            return
        started = time.monotonic()
        begins = any(not sequence.token_ids for sequence in self._parts)
        parts = list(self._parts.values())
        try:
            self._step()
        except NotFiniteError as error:
            self._generate_alone(parts, error)
            return
        except Exception as error:  # noqa: BLE001 (is the jobs')
            self._parts.clear()
            for part in parts:
                part.job.fail(error)
            return
        self._stepped = time.monotonic()
        if not begins:
            self._step_seconds = self._stepped - started
        for part in parts:
            self._add_token(part)

    @explains_out_of_memory
    def _step(self) -> None:
        if self._batch is not None:
            self._batch.step()

    def _to_encode(self) -> list[TextPart]:
        """Texts for one pass of the encoder, taken out of the queue: no more than have slots."""
        family = self.pipeline.checkpoint.family
        chosen: list[TextPart] = []
        frames = 0
        slots = self._slots - len(self._parts) - len(self._encoded)
        while self._waiting and len(chosen) < slots:
            audios = self._waiting[0].input.audios
            mel_frames = [family.mel_frames(len(each.samples)) for each in audios]
            frames += sum(map(family.encoder_rows, mel_frames))
            if chosen and frames > min(_ENCODED_FRAMES, self.pipeline.memory.max_frames):
                break
            chosen.append(self._waiting.popleft())
            chosen[-1].job.has_begun = True
        return chosen

    def _window(self, number: int, sampled: SampledWindow) -> AudioWindow:
        mel = self.pipeline.log_mel(sampled.samples, sampled.surroundings)
        return AudioWindow(number, sampled.name, sampled.window, mel)

    def _positions(self, part: TextPart) -> tuple[int, int]:
        length = 0 if part.item is None else len(part.item.token_ids)
        return self.pipeline.positions(length, part.job.sampling)

    def _join(self, part: TextPart) -> None:
        if self._batch is None:
            self.pipeline.lm.load_head()
            self._batch = GenerationBatch(self.pipeline.lm)
        if part.item is not None:
            stop_ids = self.pipeline.tokenizer.stop_token_ids(part.input.chat)
            sequence = self._batch.join(
                part.item, part.job.sampling, stop_ids=stop_ids, top_count=part.job.top_count
            )
            part.sequence, self._parts[sequence] = sequence, part

    def _leave(self, part: TextPart) -> None:
        if part.sequence is not None and self._batch is not None:
            del self._parts[part.sequence]
            if part.sequence in self._batch.sequences:
                self._batch.leave(part.sequence)
            part.sequence = None

    def _add_token(self, part: TextPart) -> None:
        sequence = part.sequence
        if sequence is None or part.job.future.done():
            return
        if part.job.first_token is None:
            part.job.first_token = time.monotonic()
        ended_by: TextEnd | None = sequence.ended_by
        has_stop_token = ended_by == "stop token"
        probabilities = sequence.probabilities[: -1 if has_stop_token else None]
        if part.job.emit is not None:
            for each in probabilities[part.emitted :]:
                part.job.emit(part.number, each)
            part.emitted = max(part.emitted, len(probabilities))
        part.answer.update(sequence.token_ids, is_last=ended_by is not None)
        if part.answer.is_stopped:
            ended_by = "stop text"
        if ended_by is None:
            return
        audio_tokens = 0 if sequence.item.audio_rows is None else len(sequence.item.audio_rows)
        result = TextResult(
            text=part.answer.text,
            token_ids=tuple(sequence.token_ids),
            ended_by=ended_by,
            audio_tokens=audio_tokens,
            prompt_tokens=len(sequence.item.token_ids) - audio_tokens,
            probabilities=tuple(probabilities),
        )
        self._leave(part)
        part.job.set_result(part.number, result)

    def _generate_alone(self, parts: Sequence[TextPart], error: NotFiniteError) -> None:
        """Generate the texts of a step that overflowed again, one after another: the one that
        overflows alone, too, is at fault. Their tokens are the same, and not emitted again."""
        self._parts.clear()
        for part in reversed(parts):
            part.sequence = None
            if len(parts) == 1:
                name = ", ".join(each.name for each in part.input.audios)
                part.job.fail(error.named(name))
            else:
                part.is_alone = True
                self._encoded.appendleft(part)


def _numbered(emit: Callable[[int, TextPiece], None], number: int) -> Callable[[str], None]:
    return lambda piece: emit(number, piece)
