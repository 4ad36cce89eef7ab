"""What an engine is asked for, and how far each request is; texts among it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from qwen_audio.audio.window_stream import SampledWindow
from qwen_audio.inference.decoder_input import DecoderInput
from qwen_audio.inference.generation import GeneratingSequence
from qwen_audio.inference.options import AnswerEnd, Sampling
from qwen_audio.inference.token_probability import TokenProbability

from .answer_text import AnswerText

__all__ = [
    "CallJob",
    "Job",
    "TextEnd",
    "TextInput",
    "TextJob",
    "TextPart",
    "TextPiece",
    "TextResult",
]

T = TypeVar("T")

TextEnd = AnswerEnd | Literal["stop text"]
"""Why a text ended; "stop text" where one of the texts that end it occurred."""


TextPiece: TypeAlias = str | TokenProbability | None
"""What is emitted of a text: a part of it, or of a token how likely it was; None is its end."""


class Job(ABC, Generic[T]):
    """One request. Its future has the result; cancelling that ends it, wherever it is.

    Attributes:
        future: the result, or the error.
        submitted: `time.monotonic()` when it was made.
        first_token: that of its first token; None before.
        has_begun: whether the model has begun with it.
        audio_seconds, nbytes: length and memory of its inputs, once they have been read.
        reserved_bytes: that the engine counts for it.
    """

    def __init__(self) -> None:
        self.future: Future[T] = Future()
        self.submitted = time.monotonic()
        self.first_token: float | None = None
        self.has_begun = False
        self.audio_seconds = 0.0
        self.nbytes = self.reserved_bytes = 0

    @abstractmethod
    def read_inputs(self) -> None:
        """Decode and render what the model is given; called from any thread."""

    def _measure(self, windows: Iterable[SampledWindow]) -> None:
        for window in windows:
            self.audio_seconds += window.window.duration_seconds
            self.nbytes += window.samples.nbytes

    def succeed(self, result: T) -> None:
        """Set the result, unless the job was cancelled meanwhile."""
        with suppress(InvalidStateError):
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set the error, unless the job was cancelled, or has failed, before."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class CallJob(Job[T]):
    """Work of another kind on the model, such as a page's: a function that the engine calls."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__()
        self._work = work

    def read_inputs(self) -> None:
        """There are none."""

    def run(self) -> None:
        """Call it, unless the job was cancelled."""
        if self.future.done():
            return
        self.has_begun = True
        try:
            result = self._work()
        except Exception as error:  # noqa: BLE001 (is the job's)
            self.fail(error)
        else:
            self.succeed(result)


@dataclass(frozen=True, eq=False)
class TextInput:
    """One input of the language model.

    Attributes:
        prompt_text: as rendered, with a placeholder for every audio.
        audios: of these, each one window.
        chat: whether the end of a turn ends the text; None: as the checkpoint was loaded.
    """

    prompt_text: str
    audios: tuple[SampledWindow, ...] = ()
    chat: bool | None = None


@dataclass(frozen=True)
class TextResult:
    """What was generated for one input, and what the model was given.

    Attributes:
        token_ids: generated, the stop token included.
        audio_tokens, prompt_tokens: positions of the input; those of padding count as audio, and
            audio markers as prompt.
        probabilities: where they were asked for, of the tokens generated, but for the stop token.
    """

    text: str
    token_ids: tuple[int, ...]
    ended_by: TextEnd
    audio_tokens: int
    prompt_tokens: int
    probabilities: tuple[TokenProbability, ...] = ()


@dataclass(eq=False)
class TextPart:
    """One text of a job, on its way through the engine.

    Attributes:
        item: once its audio has been encoded.
        sequence: while it is generated.
        is_alone: whether it is generated apart from all others, from its first token on, as rows
            overflowed in a batch that it was in.
        emitted: how many of its tokens' probabilities have been emitted.
    """

    job: TextJob
    number: int
    input: TextInput
    answer: AnswerText
    item: DecoderInput | None = None
    sequence: GeneratingSequence | None = None
    is_alone: bool = False
    emitted: int = 0


class TextJob(Job[list[TextResult]]):
    """Texts to generate: one for each input.

    Args:
        read: makes the inputs.
        sampling: with a seed where it is random, so that a text can be generated again.
        stops: texts that end an answer.
        emit: called, on the engine's thread, with an input's number and pieces of its text, and
            with None at its end; where probabilities are asked for, also with those of each token,
            before the text that it completes.
        top_count: how many of the likeliest tokens are asked for at each place; None: no
            probabilities at all.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[TextInput]],
        sampling: Sampling,
        stops: Sequence[str] = (),
        emit: Callable[[int, TextPiece], None] | None = None,
        top_count: int | None = None,
    ) -> None:
        super().__init__()
        self._read, self.sampling = read, sampling
        self.stops, self.emit, self.top_count = tuple(stops), emit, top_count
        self.inputs: Sequence[TextInput] = ()
        self._results: dict[int, TextResult] = {}

    def read_inputs(self) -> None:
        """See `Job`."""
        self.inputs = self._read()
        del self._read  # which holds the bytes of the files
        self._measure(window for item in self.inputs for window in item.audios)

    def set_result(self, number: int, result: TextResult) -> None:
        """The text of one input; with the last one the job succeeds."""
        self._results[number] = result
        if self.emit is not None:
            self.emit(number, None)
        if len(self._results) == len(self.inputs):
            self.succeed([self._results[number] for number in range(len(self.inputs))])
