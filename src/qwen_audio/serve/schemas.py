"""Bodies of requests: OpenAI's parameters that this server has, and its own. No others pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.inference.choices import OverWindows
from qwen_audio.inference.options import SpanName, VectorPoolingName

from .api_errors import ParameterError

__all__ = [
    "ActivationsRequest",
    "AudioUrlPart",
    "ChatRequest",
    "ClassifyRequest",
    "ContentPart",
    "EmbeddingsRequest",
    "InputAudioPart",
    "Message",
    "ModelRequest",
    "RequestT",
    "ScoreRequest",
    "SearchRequest",
    "TextPart",
    "TranscriptionRequest",
    "validated",
]

RequestT = TypeVar("RequestT", bound="ModelRequest")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TextPart(_Strict):
    """Text of a turn."""

    type: Literal["text"]
    text: str


class InputAudio(_Strict):
    """Bytes of a file in base64. The bytes say what they are: `format` is not needed."""

    data: str
    format: str | None = None


class InputAudioPart(_Strict):
    """A recording, in OpenAI's form."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioUrl(_Strict):
    """A data URL, such as `data:audio/wav;base64,…`; http and https from hosts that are allowed."""

    url: str


class AudioUrlPart(_Strict):
    """A recording, in vLLM's form."""

    type: Literal["audio_url"]
    audio_url: AudioUrl


ContentPart = Annotated[TextPart | InputAudioPart | AudioUrlPart, Field(discriminator="type")]


class Message(_Strict):
    """One turn; "developer" is another name of "system"."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class StreamOptions(_Strict):
    """`include_usage`: whether a last chunk says how many tokens there were."""

    include_usage: bool = False


class ModelRequest(_Strict):
    """What all requests have: the model's name, as `/v1/models` lists it."""

    model: str


class ChatRequest(ModelRequest):
    """Body of `/v1/chat/completions`.

    Text is greedy unless `temperature` says otherwise, and has at most 256 tokens by default.
    `logprobs` are the model's own, before temperature and top_p.
    """

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    n: Literal[1] | None = None
    user: str | None = None
    window_seconds: float | None = None
    hop_seconds: float | None = None


class WindowedRequest(ModelRequest):
    """What requests have whose recordings are divided into windows."""

    window_seconds: float | None = None
    hop_seconds: float | None = None

    @property
    def window_options(self) -> dict[str, Any]:
        """As methods of the package take them."""
        seconds = WINDOW_SECONDS if self.window_seconds is None else self.window_seconds
        return {"window_seconds": seconds, "hop_seconds": self.hop_seconds}


class EmbeddingsRequest(WindowedRequest):
    """Body of `/v1/embeddings`: recordings as data URLs or base64, a vector each."""

    input: str | Annotated[list[str], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    tap: str = "audio_tower"
    pooling: VectorPoolingName = "mean"
    span: SpanName = "audio"
    prompt: str | None = None
    user: str | None = None


class ActivationsRequest(WindowedRequest):
    """Body of `/v1/activations`: hidden states of a recording, a data URL or base64, at taps."""

    input: str
    taps: Annotated[list[str], Field(min_length=1)]
    prompt: str | None = None
    generate: int = 0


class _ScoringRequest(WindowedRequest):
    """What scores and classes have in common: see `AudioModel.score`."""

    input: str | Annotated[list[str], Field(min_length=1)]
    prompt: str | None = None
    include_end: bool = False
    leading_space: bool | None = None
    length_normalized: bool = False
    over_windows: OverWindows = "mean"


class ScoreRequest(_ScoringRequest):
    """Body of `/v1/score`: recordings as data URLs or base64, and answers that are given."""

    choices: list[str]


class ClassifyRequest(_ScoringRequest):
    """Body of `/v1/classify`: recordings as data URLs or base64, and classes.

    `classes` are texts, or the spellings of each class by its name; `prior` is "none", "batch", or
    a probability for each class.
    """

    classes: list[str] | dict[str, str | list[str]]
    prior: Literal["none", "batch"] | list[float] | dict[str, float] = "none"
    temperature: float = 1.0


class SearchRequest(ModelRequest):
    """Body of `/v1/search`: a recording, as a data URL or base64, or words of captions."""

    input: str | None = None
    caption: Annotated[str, Field(max_length=1000)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 10


class TranscriptionRequest(ModelRequest):
    """Fields of the form of `/v1/audio/transcriptions`: a file, and what OpenAI's API has.

    `prompt` is for models that take words which may occur.
    """

    file: bytes
    prompt: str | None = None
    response_format: Literal["json", "text", "verbose_json"] = "json"
    temperature: Annotated[float, Field(strict=False)] = 0.0
    window_seconds: Annotated[float, Field(strict=False)] | None = None
    stream: Annotated[bool, Field(strict=False)] = False


def validated(model: type[RequestT], value: Any) -> RequestT:
    """A request's body as its model.

    Raises:
        ParameterError: (400) for anything else, with the JSON path of the first mistake.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Of a union, every alternative has errors: the one that got furthest is meant.
        details = error.errors(include_url=False, include_input=False)
        places = [_place(value, detail["loc"]) for detail in details]
        number = max(range(len(places)), key=lambda number: len(places[number]))
        detail, place = details[number], places[number]
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]
        if detail["type"] == "extra_forbidden":
            message = f"{path} is not a parameter that this server has: leave it out."
            raise ParameterError(400, message, path, "unsupported_parameter") from None
        is_missing = detail["type"] == "missing"
        code = "missing_required_parameter" if is_missing else "invalid_value"
        what = f"{path or 'The body'}: {detail['msg'][0].lower()}{detail['msg'][1:]}."
        raise ParameterError(400, what, path or None, code) from None


def _place(value: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in a request a mistake is: pydantic's location without the names of alternatives."""
    place: list[int | str] = []
    for number, key in enumerate(location):
        if isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        elif isinstance(value, dict) and key in value:
            value = value[str(key)]
        elif not (isinstance(value, dict) and number == len(location) - 1):
            continue
        place.append(key)
    return tuple(place)
