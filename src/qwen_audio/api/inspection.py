"""Shapes of a recording at every tap and their cost, without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio.audio.track import AudioTrack
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.audio.window import Window, WindowConfig
from qwen_audio.inference.cost import CostEstimate
from qwen_audio.inference.pipeline import Pipeline
from qwen_audio.models.family import Family
from qwen_audio.models.tap import ModelDimensions, Stage, Tap

__all__ = ["ShapeTrace", "TapSummary", "WindowSummary", "trace_shapes"]


@dataclass(frozen=True)
class WindowSummary:
    """Counts for one window: samples, frames, audio tokens, positions."""

    window: int
    """From 0 on."""
    start_seconds: float
    end_seconds: float
    samples: int
    mel_frames: int
    encoder_frames: int
    audio_tokens: int
    prompt_tokens: int
    """Text of the prompt, with the markers around the audio."""
    positions: int
    """Of the language model's input: audio, padding and prompt tokens."""
    padding_tokens: int
    """With which some families fill up short audio."""


@dataclass(frozen=True)
class TapSummary:
    """Rows and width of one tap, over all windows, and the weights it needs."""

    tap: str
    rows: int
    width: int
    rate_hz: float
    tensors: int
    parameters: int
    read_bytes: int


@dataclass(frozen=True)
class ShapeTrace:
    """See `AudioModel.inspect`. `dataclasses.asdict` gives it as plain data."""

    source: str
    duration_seconds: float
    samples: int
    source_rate_hz: int
    source_channels: int
    source_format: str
    tracks: tuple[AudioTrack, ...]
    """Of the file; empty for arrays."""
    track: int
    """The one that was decoded."""
    notes: tuple[str, ...]
    """What was left out of the file: other audio tracks, damaged parts."""
    prompt: str | None
    """As rendered; None where there is no language model."""
    mel_bins: int
    windows: tuple[WindowSummary, ...]
    taps: tuple[TapSummary, ...]
    text: CostEstimate | None
    """Cost of generating text: all of the checkpoint; None where there is no language model."""


def trace_shapes(
    pipeline: Pipeline, waveform: Waveform, window_config: WindowConfig, prompt_text: str | None
) -> ShapeTrace:
    """Counts for a waveform, with a rendered prompt, or None where there is no language model."""
    prompt_tokens = 0 if prompt_text is None else pipeline.tokenizer.text_tokens(prompt_text)
    windows = tuple(
        _window(pipeline.checkpoint.family, number, window, prompt_tokens)
        for number, window in enumerate(waveform.windows(window_config))
    )
    dimensions = pipeline.checkpoint.dimensions
    return ShapeTrace(
        source=waveform.name,
        duration_seconds=waveform.duration_seconds,
        samples=waveform.samples.size,
        source_rate_hz=waveform.source_rate_hz,
        source_channels=waveform.source_channels,
        source_format=waveform.source_format,
        tracks=waveform.tracks,
        track=waveform.track,
        notes=waveform.info.notes,
        prompt=prompt_text,
        mel_bins=dimensions.mel_bins,
        windows=windows,
        taps=tuple(_tap(pipeline, dimensions, tap, windows) for tap in dimensions.taps()),
        text=None if prompt_text is None else pipeline.cost(None),
    )


def _window(family: Family, number: int, window: Window, prompt_tokens: int) -> WindowSummary:
    samples = round(window.duration_seconds * SAMPLE_RATE_HZ)
    mel = family.mel_frames(samples)
    has_lm = family.dimensions.has_language_model
    tokens, padding = (family.audio_tokens(mel), family.padding_tokens(mel)) if has_lm else (0, 0)
    return WindowSummary(
        number,
        window.start_seconds,
        window.end_seconds,
        samples,
        mel,
        family.rows(Stage.ENCODER, mel),
        tokens - padding,
        prompt_tokens,
        prompt_tokens + tokens,
        padding,
    )


def _tap(
    pipeline: Pipeline, dimensions: ModelDimensions, tap: Tap, windows: tuple[WindowSummary, ...]
) -> TapSummary:
    family = pipeline.checkpoint.family
    count = {
        Stage.MEL: lambda w: w.mel_frames,
        Stage.ENCODER: lambda w: w.encoder_frames,
        Stage.AUDIO_TOWER: lambda w: family.rows(Stage.AUDIO_TOWER, w.mel_frames),
        Stage.PROJECTOR: lambda w: w.audio_tokens + w.padding_tokens,
        Stage.LM: lambda w: w.positions,
        Stage.LM_NORM: lambda w: w.positions,
    }[tap.stage]
    cost = pipeline.cost(tap)
    return TapSummary(
        tap=str(tap),
        rows=sum(count(window) for window in windows),
        width=dimensions.width(tap),
        rate_hz=dimensions.rate_hz(tap),
        tensors=cost.tensors,
        parameters=cost.parameters,
        read_bytes=cost.read_bytes,
    )
