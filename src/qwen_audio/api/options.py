"""Keyword options of each method of `AudioModel`, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Required, TypedDict

from qwen_audio.audio.load_options import OnDamage
from qwen_audio.inference.options import SpanName
from qwen_audio.models.tap import Tap

__all__ = [
    "ActivationsOptions",
    "DescribeOptions",
    "EncodeAnyOptions",
    "EncodeManyOptions",
    "EncodeOptions",
    "InspectOptions",
    "LensOptions",
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


class EncodeOptions(InspectOptions, total=False):
    """Of `AudioModel.encode`, beside pooling and its unit."""

    tap: str | Tap
    span: SpanName


class EncodeAnyOptions(InspectOptions, total=False):
    """Of `AudioModel.encode` for one tap or several."""

    tap: Any
    span: SpanName


class EncodeManyOptions(InspectOptions, total=False):
    """Of `AudioModel.encode` for several taps at once."""

    tap: Required[list[Any] | tuple[Any, ...]]
    span: SpanName


class ActivationsOptions(InspectOptions, total=False):
    """Of `AudioModel.activations`."""

    taps: Required[Iterable[str | Tap]]
    generate: int


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
