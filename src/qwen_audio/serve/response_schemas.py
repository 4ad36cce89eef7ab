"""What responses look like, for `/openapi.json`: OpenAI's fields, and those of this server."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from qwen_audio.inference.options import AnswerEnd

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "EmbeddingsResponse",
    "ErrorResponseBody",
    "Health",
    "ModelCard",
    "ModelList",
    "Readiness",
]


class Error(BaseModel):
    """One line for people; `param` is the JSON path, `code` a short name for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponseBody(BaseModel):
    """Body of every error, in OpenAI's form."""

    error: Error


class PromptTokensDetails(BaseModel):
    """Positions of audio among those of a prompt."""

    audio_tokens: int
    cached_tokens: int


class Usage(BaseModel):
    """Positions that the model was given, and tokens that it generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class WindowAnswer(BaseModel):
    """What the model answered about one window, and what it was given."""

    window: int
    start_seconds: float
    end_seconds: float
    text: str
    token_ids: list[int]
    ended_by: AnswerEnd | Literal["stop text"]
    audio_tokens: int
    padding_tokens: int
    prompt_tokens: int
    complete: bool
    dtype: str


class AssistantMessage(BaseModel):
    """The answer: of several windows a line for each."""

    role: Literal["assistant"]
    content: str
    refusal: None


class TokenLogprob(BaseModel):
    """A token, its log-probability, and its UTF-8: a part of a character in some."""

    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    """A token of the answer, and the likeliest in its place."""

    top_logprobs: list[TokenLogprob]


class Logprobs(BaseModel):
    """Of the tokens of an answer, or of a piece of it."""

    content: list[ContentLogprob]
    refusal: None


class Choice(BaseModel):
    """The only one."""

    index: Literal[0]
    message: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """An answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    answers: list[WindowAnswer]
    notes: list[str]


class Delta(BaseModel):
    """A piece of the answer; the first one has the role."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The only one."""

    index: Literal[0]
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatCompletionChunk(BaseModel):
    """Data of an event of a stream, of which the last is `[DONE]`.

    That with the finish reason has `answers` and `notes`; one without choices the usage.
    """

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    answers: list[WindowAnswer] | None = None
    notes: list[str] | None = None


class EmbeddingItem(BaseModel):
    """A recording's vector: numbers, or float32 in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    start_seconds: float
    end_seconds: float
    notes: list[str]


class EmbeddingsUsage(BaseModel):
    """Positions that the model was given."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors, in the order of the recordings, with what they are comparable by."""

    object: Literal["list"]
    model: str
    data: list[EmbeddingItem]
    usage: EmbeddingsUsage
    spec: dict[str, Any]
    fingerprint: str


class TapCard(BaseModel):
    """A tap; `row_seconds` are the lengths of successive rows, which repeat."""

    name: str
    width: int
    row_seconds: list[float]


class ModelCard(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    dtype: str
    quantization: str | None
    default_prompt: str | None
    transcribes: bool
    min_window_seconds: float
    max_window_seconds: float
    taps: list[TapCard]


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """Of a process that answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests are accepted."""

    ready: bool
