"""A chat request as inputs of the model, and what was generated as the response's text."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from qwen_audio.api.answer import prefix
from qwen_audio.api.window_answer import padding_tokens
from qwen_audio.audio.window import WINDOW_SECONDS, Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.options import Sampling
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.inference.token_probability import TokenProbability
from qwen_audio.models.components.conversation import audio_inputs

from .api_errors import ParameterError
from .jobs import TextInput, TextPiece, TextResult
from .limits import ApiLimits
from .recordings import Recording, RecordingReader, Upload
from .schemas import AudioUrlPart, ChatRequest, InputAudioPart, Message, TextPart

__all__ = ["OrderedText", "Question", "recordings_of", "sampling_of", "stop_texts_of"]

_MAX_STOP_CHARACTERS = 256


def recordings_of(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """The JSON path of every recording in a conversation, and what it says there."""
    for number, message in enumerate(request.messages):
        parts = () if isinstance(message.content, str) else message.content
        for place, part in enumerate(parts):
            path = f"messages[{number}].content[{place}]"
            if isinstance(part, InputAudioPart):
                yield f"{path}.input_audio.data", part.input_audio.data
            elif isinstance(part, AudioUrlPart):
                yield f"{path}.audio_url.url", part.audio_url.url


class Question:
    """A conversation that ends with the user's turn.

    One turn about one recording is what `AudioModel.describe` is asked: longer recordings are
    divided into windows, each of which is answered. Any other conversation is `AudioModel.chat`'s;
    so is a recording without text for a checkpoint with a chat template, as it may hold speech.

    Args:
        request: whose options are checked before its recordings are fetched or decoded.

    Attributes:
        uploads: those of `recordings_of` the request, until they are read.
        recordings: once they have been read.

    Raises:
        ParameterError, OptionError: for a conversation that the model can't be given.
    """

    def __init__(self, request: ChatRequest, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.uploads: Sequence[Upload] = ()
        self._messages = [_turn(message) for message in request.messages]
        list(audio_inputs(self._messages))  # raises OptionError
        tokenizer = pipeline.tokenizer
        may_be_speech = tokenizer.uses_chat_template and tokenizer.format.default_prompt
        count = sum(1 for _ in recordings_of(request))
        self.is_description = count == len(request.messages) == 1 and bool(
            self._has_text or not may_be_speech
        )
        self._window_config = None
        if self.is_description:
            self._window_config = pipeline.window_config(
                WINDOW_SECONDS if request.window_seconds is None else request.window_seconds,
                request.hop_seconds,
            )
        else:
            for name in ("window_seconds", "hop_seconds"):
                if getattr(request, name) is not None:
                    raise ParameterError(
                        400,
                        f"{name} has no effect: only one turn about one recording is divided into "
                        "windows. Leave it out.",
                        name,
                        "unsupported_parameter",
                    )
        self._prompt = self._description_prompt() if self.is_description else None
        self.recordings: Sequence[Recording] = ()

    @property
    def windows(self) -> tuple[Window, ...]:
        """Of a description, those of the recording; of a conversation one that is as long as all
        recordings together."""
        if self.is_description:
            return tuple(part.window for part in self.recordings[0].windows)
        seconds = sum(recording.info.duration_seconds for recording in self.recordings)
        return (Window(0.0, seconds),)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Description.notes`."""
        return tuple(note for recording in self.recordings for note in recording.info.notes)

    def read(self, reader: RecordingReader) -> list[TextInput]:
        """Decode the recordings: the inputs of a `TextJob`.

        Raises:
            AudioError: for one that can't be decoded, or, in a conversation, longer than a window.
        """
        uploads, self.uploads = self.uploads, ()
        self.recordings = reader.read(uploads, self._window_config)
        tokenizer = self._pipeline.tokenizer
        audios = [window for recording in self.recordings for window in recording.windows]
        if self.is_description:
            prompt_text = tokenizer.render(self._prompt)
            return [TextInput(prompt_text, (audio,)) for audio in audios]
        prompt_text = tokenizer.apply_chat_template(self._messages)
        return [TextInput(prompt_text, tuple(audios), chat=True)]

    def answers(self, results: Sequence[TextResult]) -> list[dict[str, Any]]:
        """The fields of `Answer` for each window."""
        answers = []
        for number, (window, result) in enumerate(zip(self.windows, results, strict=True)):
            audios = [window] if self.is_description else self._audios
            padding = sum(padding_tokens(self._pipeline, audio) for audio in audios)
            answers.append(
                {
                    "window": number,
                    "start_seconds": window.start_seconds,
                    "end_seconds": window.end_seconds,
                    **_fields(result),
                    "audio_tokens": result.audio_tokens - padding,
                    "padding_tokens": padding,
                    "complete": result.ended_by.startswith("stop"),
                    "dtype": self._pipeline.dtype_name,
                }
            )
        return answers

    @property
    def _audios(self) -> list[Window]:
        return [part.window for recording in self.recordings for part in recording.windows]

    @property
    def _has_text(self) -> bool:
        parts = self._messages[0]["content"]
        return any(part["type"] == "text" for part in parts)

    def _description_prompt(self) -> str | None:
        """The text of the only turn; None, the default prompt, without one.

        Raises:
            ParameterError: for a role that asks nothing, or a raw prompt, which is not for clients:
                its control tokens would be the conversation's.
        """
        (message,) = self._messages
        texts = [part["text"] for part in message["content"] if part["type"] == "text"]
        prompt = "\n".join(texts) if texts else None
        if self._pipeline.tokenizer.is_raw(prompt):
            audio = self._pipeline.tokenizer.format.audio
            raise ParameterError(
                400,
                f"messages[0].content contains {audio}, the model's own marker: leave it out.",
                "messages[0].content",
                "invalid_value",
            )
        return prompt


def _fields(result: TextResult) -> dict[str, Any]:
    """As `Answer` has them: probabilities are in `logprobs`."""
    fields = vars(result).copy()
    del fields["probabilities"]
    return fields


class OrderedText:
    """Pieces of the texts of several windows, which come in any order, as one text.

    Each window's begins as its line in `Description` does. Together the pieces are its text.

    Attributes:
        tokens: generated up to what is shown, where their probabilities are asked for; in order.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._pieces: dict[int, list[str | TokenProbability]] = {}
        self._ended: set[int] = set()
        self.tokens: list[TokenProbability] = []
        self._current, self._has_begun = 0, False

    def add(self, number: int, piece: TextPiece) -> str:
        """What can be shown after a piece of a window's text; None is its end."""
        if piece is None:
            self._ended.add(number)
        else:
            self._pieces.setdefault(number, []).append(piece)
        shown: list[str] = []
        windows = self._question.windows
        while self._current < len(windows):
            pieces = self._pieces.pop(self._current, [])
            if not self._has_begun and (pieces or self._current in self._ended):
                window = windows[self._current]
                times = (window.start_seconds, window.end_seconds)
                shown.append("\n" if self._current else "")
                shown.append(prefix(*times, is_only=len(windows) == 1))
                self._has_begun = True
            shown += [piece for piece in pieces if isinstance(piece, str)]
            self.tokens += [piece for piece in pieces if not isinstance(piece, str)]
            if self._current not in self._ended:
                break
            self._current, self._has_begun = self._current + 1, False
        return "".join(shown)


def sampling_of(request: ChatRequest, limits: ApiLimits) -> Sampling:
    """How a request's tokens are sampled; with a seed, so that they can be generated again.

    Raises:
        ParameterError, OptionError: for values out of range.
    """
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise ParameterError(
            400,
            "max_tokens and max_completion_tokens are the same: give one of them.",
            "max_tokens",
            "invalid_value",
        )
    given = request.max_tokens
    if given is None:
        given = request.max_completion_tokens
    tokens = min(Sampling.max_new_tokens, limits.new_tokens) if given is None else given
    if tokens > limits.new_tokens:
        raise ParameterError(
            400,
            f"max_tokens={tokens}: this server generates at most {limits.new_tokens}.",
            "max_tokens",
            "invalid_value",
        )
    sampling = Sampling(
        tokens,
        Sampling.temperature if request.temperature is None else request.temperature,
        Sampling.top_p if request.top_p is None else request.top_p,
        request.seed,
    )
    if sampling.temperature > 0 and sampling.seed is None:
        return dataclasses.replace(sampling, seed=secrets.randbits(63))
    return sampling


def stop_texts_of(request: ChatRequest) -> tuple[str, ...]:
    """The texts that end an answer.

    Raises:
        OptionError: for one that is empty, or too long.
    """
    given = request.stop or () if not isinstance(request.stop, str) else (request.stop,)
    stops = tuple(given)
    if any(not 0 < len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise OptionError(
            f"stop={stops!r:.60}: use texts of 1 to {_MAX_STOP_CHARACTERS} characters"
        )
    return stops


def _turn(message: Message) -> dict[str, Any]:
    """A message in the form that chat templates take, its recordings apart."""
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    parts = [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "audio", "audio": ""}
        for part in message.content
    ]
    return {"role": role, "content": parts}
