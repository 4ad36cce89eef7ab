"""What responses of scores, classes, transcriptions and searches look like, for `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

__all__ = ["ClassifyResponse", "ScoreResponse", "SearchResponse", "TranscriptionResponse"]


class AudioTokens(BaseModel):
    """Positions of audio among those of a prompt."""

    audio_tokens: int


class ScoredUsage(BaseModel):
    """Positions that the model was given, those of the choices included."""

    prompt_tokens: int
    total_tokens: int
    prompt_tokens_details: AudioTokens


class WindowTimes(BaseModel):
    """Start and end of a window."""

    start_seconds: float
    end_seconds: float


class ScoresItem(BaseModel):
    """Scores of one recording: by window and choice, of `token_log_probabilities` by token."""

    object: Literal["scores"]
    index: int
    windows: list[WindowTimes]
    token_log_probabilities: list[list[list[float]]]
    log_probability: list[list[float]]
    probability: list[list[float]]
    mass: list[float]
    recording_probability: list[float]
    notes: list[str]


class ScoringOptions(BaseModel):
    """What was asked, and how choices were scored; see `AudioModel.score`."""

    object: Literal["list"]
    model: str
    prompt: str
    leading_space: bool
    include_end: bool
    length_normalized: bool
    over_windows: str
    dtype: str
    other_mass: float | None
    usage: ScoredUsage


class ScoreResponse(ScoringOptions):
    """How likely each choice is; `tokens` are those of each."""

    data: list[ScoresItem]
    choices: list[str]
    tokens: list[list[str]]


class WindowClass(WindowTimes):
    """The class of a window."""

    label: str
    probability: dict[str, float]
    mass: float


class ClassItem(BaseModel):
    """The class of one recording, and of its windows."""

    object: Literal["classification"]
    index: int
    label: str
    probability: dict[str, float]
    mass: float
    windows: list[WindowClass]
    notes: list[str]


class ClassifyResponse(ScoringOptions):
    """The probability of each class, whose spellings `classes` has."""

    data: list[ClassItem]
    classes: dict[str, list[str]]
    prior: str | list[float] | None
    temperature: float


class InputTokenDetails(BaseModel):
    """Positions of audio, without padding, and of text."""

    audio_tokens: int
    text_tokens: int


class TranscriptionUsage(BaseModel):
    """Positions that the model was given, and tokens that it generated."""

    type: Literal["tokens"]
    input_tokens: int
    input_token_details: InputTokenDetails
    output_tokens: int
    total_tokens: int


class Segment(BaseModel):
    """What is said in one window; `start` and `end` are in seconds."""

    id: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float | None


class TranscriptionResponse(BaseModel):
    """What is said; from `task` to `segments` in `verbose_json` only."""

    text: str
    usage: TranscriptionUsage
    complete: bool
    notes: list[str]
    task: Literal["transcribe"] | None = None
    language: str | None = None
    duration: float | None = None
    segments: list[Segment] | None = None


class SearchItem(BaseModel):
    """A window of the collection, with the other columns of its row."""

    object: Literal["search_result"]
    rank: int
    score: float
    source: str
    window: int
    start_seconds: float
    end_seconds: float
    caption: str | None
    columns: dict[str, Any]


class SearchResponse(BaseModel):
    """Windows, the best first; see `SearchResults` for what scores mean."""

    object: Literal["list"]
    model: str
    data: list[SearchItem]
    metric: str
    typical_score: float | None
    spec: dict[str, Any]
    fingerprint: str
