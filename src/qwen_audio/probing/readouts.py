"""Readouts: which tap, pooled how over which rows; any number of them in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from qwen_audio.api.model import AudioModel
from qwen_audio.api.spec import EmbeddingSpec
from qwen_audio.audio.window import WindowConfig
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.hidden_states import Segment
from qwen_audio.inference.pooling import PooledWindow, Pooling, PoolingName, SpanName, check_span
from qwen_audio.inference.reader import capture_recordings
from qwen_audio.models.tap import Tap

__all__ = ["Readout", "Vector", "plan_readouts", "read_out"]

Vector = Float32[np.ndarray, "width"]
_POOLED = tuple(name for name in get_args(PoolingName) if name != "none")


@dataclass(frozen=True)
class Readout:
    """One vector of a recording: rows of a span at a tap, pooled."""

    tap: Tap
    span: SpanName
    pooling: PoolingName

    def __str__(self) -> str:
        return f"{self.tap}, {self.pooling} over {self.span}"


def plan_readouts(
    model: AudioModel,
    taps: Sequence[str | Tap] | None = None,
    poolings: Sequence[str] = ("mean",),
    spans: Sequence[str] = ("audio",),
    *,
    prompt: str | None = None,
    window_seconds: float = WindowConfig.window_seconds,
    hop_seconds: float | None = None,
) -> dict[Readout, EmbeddingSpec]:
    """Every span at every tap that has it, pooled in every way; shallowest first.

    The span "last" is one row a window: it is read once, whatever the poolings.

    Args:
        taps: all, by default.

    Returns:
        For each readout what decides its vectors.

    Raises:
        TapError, OptionError: for names that are none; for a span that none of the taps has; for a
            prompt that none reads.
    """
    if isinstance(taps, str | Tap) or isinstance(poolings, str) or isinstance(spans, str):
        raise OptionError("taps, poolings and spans are lists, such as ['audio_tower'], ['mean']")
    chosen = [model.dimensions.tap(tap) for tap in (model.taps if taps is None else taps)]
    if not (chosen and poolings and spans):
        raise OptionError("nothing to read: name at least one tap, pooling and span")
    for pooling in poolings:
        if pooling not in _POOLED:
            raise OptionError(
                f"pooling={pooling!r}: use one of {', '.join(_POOLED)}, which give a recording one "
                "vector"
            )
    readouts: list[Readout] = []
    for span in spans:
        having = sorted(
            {tap for tap in chosen if tap.in_language_model or span in ("audio", "all")}
        )
        for tap in having or chosen:  # where none has it, this says so
            check_span(span, tap)
            readouts += [
                Readout(tap, cast(SpanName, span), cast(PoolingName, pooling))
                for pooling in (["last"] if span == "last" else poolings)
            ]
    in_lm = any(readout.tap.in_language_model for readout in readouts)
    return {
        readout: model.spec(
            readout.tap,
            pooling=readout.pooling,
            span=readout.span,
            prompt=prompt if readout.tap.in_language_model or not in_lm else None,
            window_seconds=window_seconds,
            hop_seconds=hop_seconds,
        )
        for readout in sorted(dict.fromkeys(readouts), key=lambda r: r.tap)
    }


def read_out(
    model: AudioModel,
    inputs: Iterable[Any | Callable[[], Any]],
    readouts: Mapping[Readout, EmbeddingSpec],
) -> Iterator[dict[Readout, Vector] | AudioError]:
    """All readouts of each recording, in order, in one pass and without keeping rows.

    Yields:
        The vectors, equal to those that `AudioModel.encode` gives for each; or the error that says
        why a recording can't be decoded.
    """
    hows = {(r.span, r.pooling): Pooling(r.pooling, r.span) for r in readouts}
    spec = next(iter(readouts.values()))

    def keep(rows: Tensor, segments: tuple[Segment, ...]) -> dict[tuple[str, str], PooledWindow]:
        whole = len(segments) > 1  # in the ear all rows are audio, and there are no others
        return {
            how: pooling.pool_window(rows, segments)
            for how, pooling in hows.items()
            if whole or how[0] in ("audio", "all")
        }

    for reading in capture_recordings(
        model.pipeline,
        inputs,
        sorted({readout.tap for readout in readouts}),
        keep,
        prompt_text=next((spec.prompt for spec in readouts.values() if spec.prompt), None),
        window_config=WindowConfig(spec.window_seconds, spec.hop_seconds),
    ):
        if isinstance(reading, AudioError):
            yield reading
            continue
        vectors: dict[Readout, Vector] = {}
        for readout in readouts:
            how = (readout.span, readout.pooling)
            vectors[readout] = hows[how].combine([k[readout.tap][how] for k in reading.outputs])
        yield vectors
