"""Keyword options of each method of `AudioModel`, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Required, TypedDict

from qwen_audio.audio.load_options import OnDamage
from qwen_audio.inference.attention_weights import QuerySpan
from qwen_audio.inference.choices import OverWindows
from qwen_audio.inference.options import (
    PoolingName,
    PoolingUnit,
    SpanName,
    VectorPoolingName,
)
from qwen_audio.inference.progress_bars import OnProgress
from qwen_audio.models.tap import Tap

__all__ = [
    "AblationOptions",
    "ActivationsOptions",
    "AttentionOptions",
    "DescribeOptions",
    "EncodeOptions",
    "InspectOptions",
    "LensOptions",
    "ManyTapsOptions",
    "ManyTapsVectorOptions",
    "OcclusionOptions",
    "OneTapOptions",
    "OneTapVectorOptions",
    "ScoreOptions",
    "SessionOptions",
    "ViewOptions",
]


class SessionOptions(TypedDict, total=False):
    """Of `AudioModel.session`; most other methods take these, too."""

    sampling_rate: int | None
    track: int | None
    on_damage: OnDamage
    window_seconds: float
    hop_seconds: float | None


class InspectOptions(SessionOptions, total=False):
    """Of `AudioModel.inspect`."""

    prompt: str | None


class DescribeOptions(InspectOptions, total=False):
    """Of `AudioModel.describe`."""

    stream: Callable[[str], None] | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    progress: bool | None


class ScoreOptions(SessionOptions, total=False):
    """Of `AudioModel.score`."""

    choices: Required[Sequence[str]]
    include_end: bool
    leading_space: bool | None
    length_normalized: bool
    over_windows: OverWindows
    progress: bool | None


class EncodeOptions(InspectOptions, total=False):
    """Of `AudioModel.encode`, whatever it returns."""

    span: SpanName
    progress: bool | None
    on_progress: OnProgress | None


class OneTapOptions(EncodeOptions, total=False):
    """For one tap; pooled or not, by recording or window."""

    tap: str | Tap
    pooling: PoolingName
    per: PoolingUnit


class OneTapVectorOptions(EncodeOptions, total=False):
    """For one tap, one vector a recording."""

    tap: str | Tap
    pooling: VectorPoolingName
    per: Literal["recording"]


class ManyTapsOptions(EncodeOptions, total=False):
    """For several taps at once; pooled or not, by recording or window."""

    tap: Required[list[Any] | tuple[Any, ...]]
    pooling: PoolingName
    per: PoolingUnit


class ManyTapsVectorOptions(EncodeOptions, total=False):
    """For several taps at once, one vector a recording."""

    tap: Required[list[Any] | tuple[Any, ...]]
    pooling: VectorPoolingName
    per: Literal["recording"]


class ActivationsOptions(InspectOptions, total=False):
    """Of `AudioModel.activations`."""

    taps: Required[Iterable[str | Tap]]
    generate: int
    requires_grad: bool
    progress: bool | None


class AttentionOptions(TypedDict, total=False):
    """Of `AudioModel.attention`, beside the prompt."""

    levels: Iterable[int | str | Tap] | None
    heads: Sequence[int] | None
    span: QuerySpan
    generate: int
    sampling_rate: int | None
    track: int | None
    on_damage: OnDamage
    window_seconds: float


class OcclusionOptions(TypedDict, total=False):
    """Of `AudioModel.occlusion`, beside the question."""

    answers: Sequence[str]
    window_seconds: float
    hop_seconds: float
    sampling_rate: int | None
    track: int | None
    on_damage: OnDamage


class AblationOptions(SessionOptions, total=False):
    """Of `AudioModel.audio_ablation`, beside the question."""

    answers: Sequence[str] | None
    others: Sequence[Any] | None
    seed: int
    max_new_tokens: int


class LensOptions(InspectOptions, total=False):
    """Of `AudioModel.lens`."""

    span: SpanName
    taps: Iterable[str | Tap] | None
    top: int
    tokens: Sequence[str]
    nearest: bool


class ViewOptions(TypedDict, total=False):
    """Of `AudioModel.view`."""

    tap: str | Tap
    prompt: str | None
    depth: bool
    columns: int
    kernel_seconds: float | None
    sampling_rate: int | None
    track: int | None
    on_damage: OnDamage
    window_seconds: float
