"""Hidden states as a server sends them, as `HiddenStates`."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qwen_audio.api.embeddings import Embeddings
from qwen_audio.api.vector_reader import read_vectors
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ, Waveform
from qwen_audio.audio.window import Window, WindowConfig, WindowLimits
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.spans import Span
from qwen_audio.models.row_times import RowTimes

__all__ = ["hidden_states"]


def hidden_states(
    data: bytes,
    seconds: float,
    name: str,
    model: Mapping[str, Any],
    window_seconds: float,
    hop_seconds: float | None,
) -> dict[str, HiddenStates]:
    """The content of a safetensors file as hidden states by tap.

    Args:
        seconds: of the recording.
        name: of the recording.
        model: as the server lists it.
        window_seconds, hop_seconds: by which the recording was divided.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "activations.safetensors")
        path.write_bytes(data)
        ((_, by_tap),) = read_vectors(path)
        rows_by_tap = {
            tap: (np.array(rows), rows) for tap, rows in by_tap.items()
        }  # read before the file is removed
    limits = WindowLimits(model["min_window_seconds"], model["max_window_seconds"])
    config = WindowConfig(window_seconds, hop_seconds, limits)
    silence = Waveform(np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32))
    windows = silence.windows(config)
    row_times = {tap["name"]: RowTimes(tuple(tap["row_seconds"])) for tap in model["taps"]}
    return {
        tap: _states(array, rows, windows, row_times[rows.spec.tap], name)
        for tap, (array, rows) in rows_by_tap.items()
    }


def _states(
    array: np.ndarray,
    rows: Embeddings,
    windows: tuple[Window, ...],
    row_times: RowTimes,
    name: str,
) -> HiddenStates:
    spans: list[Span] = []
    start = 0
    pairs = zip(rows.index.span.tolist(), rows.index.window.tolist(), strict=True)
    for (kind, window), members in itertools.groupby(pairs):
        stop = start + sum(1 for _ in members)
        spans.append(Span(kind, start, stop, window))
        start = stop
    token = rows.index.token
    return HiddenStates(
        array,
        rows.tap,
        rows.index.start_seconds,
        tuple(spans),
        windows,
        row_times,
        rows.spec.dtype,
        name,
        () if token is None else tuple(token.tolist()),
        rows.spec,
    )
