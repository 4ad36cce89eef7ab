"""A view of a recording: rows at one tap averaged over time, and norms at every tap."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from qwen_audio.analysis.structure import envelope
from qwen_audio.analysis.view import ENVELOPE_POINTS, View, average_to_columns, decibels
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import WindowConfig
from qwen_audio.inference.reader import capture_recording
from qwen_audio.inference.reducers import audio_norms, mean_groups
from qwen_audio.models.tap import Stage, Tap

from .base import ModelBase

__all__ = ["compute_view"]

_MEL = Tap(Stage.MEL)


def compute_view(
    model: ModelBase,
    waveform: Waveform,
    tap: Tap,
    prompt_text: str | None,
    window_config: WindowConfig,
    columns: int,
    kernel_seconds: float | None,
    depth: bool,
    mel_hz: Float64[np.ndarray, "mel_bins"],
) -> View:
    """A recording's view at one tap; see `AudioModel.view`."""
    windows = len(waveform.windows(window_config))
    # Averaged within each window first, to a quarter of a column; then over columns.
    reducer = partial(mean_groups, max_groups=max(1, math.ceil(4 * columns / windows)))
    captured = capture_recording(
        model.pipeline, waveform, [_MEL, tap], reducer, prompt_text, window_config
    )
    columns_by_tap = {}
    for source_tap in {_MEL, tap}:
        centres, counts = [], []
        hop_seconds = model.pipeline.row_times(source_tap).hop_seconds
        for window, output in zip(captured.windows, captured.outputs, strict=True):
            group_sizes = output[source_tap][1].astype(np.float64)  # times are exact
            centre_rows = np.cumsum(group_sizes) - group_sizes / 2
            centres.append(window.start_seconds + centre_rows * hop_seconds)
            counts.append(group_sizes)
        columns_by_tap[source_tap] = average_to_columns(
            np.concatenate([output[source_tap][0] for output in captured.outputs]),
            np.concatenate(centres),
            np.concatenate(counts),
            hop_seconds,
            columns,
        )
    norms = _norms_by_tap(model, waveform, prompt_text, window_config) if depth else {}
    return View.from_columns(
        waveform.name,
        tap,
        columns_by_tap[tap],
        captured.windows,
        model.dtype,
        kernel_seconds,
        envelope=envelope(waveform.samples, ENVELOPE_POINTS),
        log_mel=decibels(columns_by_tap[_MEL][0]),
        mel_hz=mel_hz,
        **norms,
    )


def _norms_by_tap(
    model: ModelBase, waveform: Waveform, prompt_text: str | None, window_config: WindowConfig
) -> dict[str, Any]:
    """Quartiles of the L2 norms of the audio rows, at every tap."""
    if prompt_text is None and model.dimensions.has_language_model:
        prompt_text = model.pipeline.tokenizer.render(None)
    outputs = capture_recording(
        model.pipeline, waveform, model.taps, audio_norms, prompt_text, window_config
    ).outputs
    quartiles = [
        np.percentile(np.concatenate([output[tap] for output in outputs]), [25, 50, 75])
        for tap in model.taps
    ]
    return {
        "depth_taps": tuple(map(str, model.taps)),
        "depth_norms": np.array(quartiles, np.float32),
    }
