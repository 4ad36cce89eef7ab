"""Pooled features of recordings: any number of (tap, span, pooling) combinations in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.api.model import AudioModel
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.embedding_spec import EmbeddingSpec
from qwen_audio.inference.options import (
    PoolingName,
    SpanName,
    check_vector_pooling,
    taps_with_span,
)
from qwen_audio.inference.pooling import PooledWindow, Pooling
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.inference.spans import Segment
from qwen_audio.models.tap import Tap

__all__ = ["FeatureSpec", "FeatureVector", "extract_features", "plan_features"]

FeatureVector = Float32[np.ndarray, "width"]


@dataclass(frozen=True)
class FeatureSpec:
    """One vector per recording: the rows of a span at a tap, pooled."""

    tap: Tap
    span: SpanName
    pooling: PoolingName

    def __str__(self) -> str:
        return f"{self.tap}, {self.pooling} over {self.span}"


def plan_features(
    model: AudioModel,
    taps: Sequence[str | Tap] | None = None,
    poolings: Sequence[str] = ("mean",),
    spans: Sequence[str] = ("audio",),
    *,
    prompt: str | None = None,
    window_seconds: float = WindowConfig.window_seconds,
    hop_seconds: float | None = None,
    track: int | None = None,
) -> dict[FeatureSpec, EmbeddingSpec]:
    """All combinations of taps, spans and poolings that exist, shallowest tap first.

    The span "last" is one row per window, so it occurs once, whatever the poolings.

    Args:
        taps: all, by default.

    Returns:
        The embedding spec of each feature.

    Raises:
        TapError: for a tap that the model does not have.
        OptionError: for an unknown pooling or span, a span that none of the taps has, or a prompt
            that none of the taps depends on.
    """
    if isinstance(taps, str | Tap) or isinstance(poolings, str) or isinstance(spans, str):
        raise OptionError("taps, poolings and spans are lists, such as ['audio_tower'], ['mean']")
    selected = [model.dimensions.tap(tap) for tap in (model.taps if taps is None else taps)]
    if not (selected and poolings and spans):
        raise OptionError("no features: name at least one tap, pooling and span")
    for pooling in poolings:
        check_vector_pooling(pooling, "recording")
    features: list[FeatureSpec] = []
    for span in spans:
        for tap in taps_with_span(span, selected):
            features += [
                FeatureSpec(tap, cast(SpanName, span), cast(PoolingName, pooling))
                for pooling in (["last"] if span == "last" else poolings)
            ]
    in_lm = any(feature.tap.in_language_model for feature in features)
    return {
        feature: model.spec(
            feature.tap,
            pooling=feature.pooling,
            span=feature.span,
            prompt=prompt if feature.tap.in_language_model or not in_lm else None,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
            track=track,
        )
        for feature in sorted(dict.fromkeys(features), key=lambda feature: feature.tap)
    }


def extract_features(
    model: AudioModel,
    inputs: Iterable[Any | Callable[[], Any]],
    features: Mapping[FeatureSpec, EmbeddingSpec],
) -> Iterator[dict[FeatureSpec, FeatureVector] | AudioError]:
    """All features of each recording, in order, in one pass, pooled layer by layer.

    Yields:
        The vectors, equal to those of `AudioModel.encode` for each feature; or the error of a
        recording that can't be decoded.
    """
    poolings = {(f.span, f.pooling): Pooling(f.pooling, f.span) for f in features}
    spec = next(iter(features.values()))

    def pool(rows: Tensor, segments: tuple[Segment, ...]) -> dict[tuple[str, str], PooledWindow]:
        in_lm = any(kind == "prompt" for kind, _ in segments)
        return {
            (span, name): pooling.pool_window(rows, segments)
            for (span, name), pooling in poolings.items()
            if in_lm or span in ("audio", "all")
        }

    for reading in capture_recordings(
        model.pipeline,
        inputs,
        sorted({feature.tap for feature in features}),
        pool,
        prompt_text=next((spec.prompt for spec in features.values() if spec.prompt), None),
        window_config=model.pipeline.window_config(spec.window_seconds, spec.hop_seconds),
        load_options=LoadOptions(track=spec.track),
    ):
        if isinstance(reading, AudioError):
            yield reading
            continue
        vectors: dict[FeatureSpec, FeatureVector] = {}
        for feature in features:
            key = (feature.span, feature.pooling)
            windows = [pooled[feature.tap][key] for pooled in reading.outputs]
            vectors[feature] = poolings[key].combine(windows)
        yield vectors
