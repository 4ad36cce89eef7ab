"""The keyword options of each verb, for type checkers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Required, TypedDict

import numpy as np
from jaxtyping import Float32

from .pooling import PoolingName, SpanName
from .tap import Tap

__all__ = [
    "ActivationsOptions",
    "DescribeOptions",
    "EncodeManyOptions",
    "EncodeOptions",
    "HearOptions",
    "InspectOptions",
    "Many",
    "Vectors",
]

Many = list[Any] | tuple[Any, ...]
"""A list of inputs gives a list of results."""

Vectors = Float32[np.ndarray, "... width"]


class HearOptions(TypedDict, total=False):
    """Of `QwenAudio.listen`; the other verbs take these too."""

    sampling_rate: int | None
    window_seconds: float
    hop_seconds: float | None


class InspectOptions(HearOptions, total=False):
    """Of `QwenAudio.inspect`."""

    prompt: str | None


class DescribeOptions(InspectOptions, total=False):
    """Of `QwenAudio.describe`."""

    stream: Callable[[str], None] | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int | None


class EncodeOptions(InspectOptions, total=False):
    """Of `QwenAudio.encode`."""

    tap: str | Tap
    pooling: PoolingName
    span: SpanName


class EncodeManyOptions(InspectOptions, total=False):
    """Of `QwenAudio.encode` for several taps at once."""

    tap: Required[list[Any] | tuple[Any, ...]]
    pooling: PoolingName
    span: SpanName


class ActivationsOptions(InspectOptions, total=False):
    """Of `QwenAudio.activations`."""

    taps: Required[Iterable[str | Tap]]
    generate: int
