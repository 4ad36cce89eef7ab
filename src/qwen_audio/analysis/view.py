"""View: what stands at one tap for one recording, made small enough to be looked at."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from qwen_audio.analysis import structure as views
from qwen_audio.audio.waveform import Waveform
from qwen_audio.audio.window import Window
from qwen_audio.errors import OptionError
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.reducers import l2_norms
from qwen_audio.models.tap import Tap

from .files import save_numbers

__all__ = ["COLUMNS", "ENVELOPE_POINTS", "View", "decibels", "spread"]

COLUMNS = 1000
"""A picture's columns at most: what a screen shows, and a square matrix of it is still cheap."""
ENVELOPE_POINTS = 2000
_MOST_KERNEL_SECONDS, _LEAST_KERNEL_COLUMNS = 16.0, 16


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """One recording at one tap; made by `AudioModel.view`, or by `View.of` of frames at hand.

    Long recordings are averaged down to `COLUMNS` columns of equal length. What is derived from the
    rows is computed when first asked for.

    Attributes:
        name: of the recording.
        rows: shape (columns, width): the audio's rows, or means of neighbours.
        hop_seconds: a column's length.
        frames_per_column: how many rows of the tap one column stands for (1: they are the rows).
        windows: the seconds that the model heard at once.
        dtype: of the arithmetic.
        kernel_seconds: how far the novelty looks, half of it before and half after.
        envelope: shape (2, points): lowest and highest sample of each stretch of the waveform.
        log_mel: shape (mel columns, bins), in dB of the mel bands' power.
        mel_hz: shape (bins,): where the mel bands lie.
        depth_taps, depth_norms: shape (taps, 3): the quartiles of the rows' lengths at every tap.
    """

    name: str
    tap: Tap
    rows: Float32[np.ndarray, "columns width"]
    hop_seconds: float
    frames_per_column: float
    windows: tuple[Window, ...]
    dtype: str
    kernel_seconds: float
    envelope: Float32[np.ndarray, "2 points"] | None = None
    log_mel: Float32[np.ndarray, "mel_columns bins"] | None = None
    mel_hz: Float64[np.ndarray, "bins"] | None = None
    depth_taps: tuple[str, ...] = ()
    depth_norms: Float32[np.ndarray, "taps 3"] | None = None

    def __post_init__(self) -> None:
        if not (len(self.rows) and self.hop_seconds > 0 and self.windows):
            raise ValueError(f"{self.rows.shape} rows of {self.hop_seconds} s, {self.windows}")
        if not self.hop_seconds < self.kernel_seconds <= self.seconds[-1] + 2 * self.hop_seconds:
            least, most = 2 * self.hop_seconds, self.seconds[-1] + self.hop_seconds
            raise OptionError(
                f"kernel_seconds={self.kernel_seconds:g} for {self.name}, whose columns take "
                f"{self.hop_seconds:g} s each: use {least:.3g} to {most:.3g} s"
            )

    @classmethod
    def of(
        cls,
        frames: HiddenStates,
        name: str = "recording",
        *,
        waveform: Waveform | None = None,
        log_mel: HiddenStates | None = None,
        mel_hz: Float64[np.ndarray, "bins"] | None = None,
        columns: int = COLUMNS,
        kernel_seconds: float | None = None,
    ) -> View:
        """Of rows that `activations` gave; no model runs.

        Args:
            waveform, log_mel, mel_hz: to be shown above; `log_mel` are the frames of the tap "mel",
                `mel_hz` is the model's.
            columns: at most so many; longer recordings are averaged.
            kernel_seconds: how far the novelty looks; a quarter of the recording, at most 16 s (or
                16 columns), unless given.

        Raises:
            OptionError: for frames without audio rows, and values that make no sense.
        """
        chosen = frames.rows("audio")
        rows, seconds = frames.data[chosen], frames.seconds[chosen]
        ones = np.ones(len(rows))
        more: dict[str, Any] = {}
        if log_mel is not None:
            hop = log_mel.hop_seconds
            middles = log_mel.seconds + hop / 2
            mel, _, _ = spread(log_mel.data, middles, np.ones(len(middles)), hop, columns)
            more |= {"log_mel": decibels(mel), "mel_hz": mel_hz}
        if waveform is not None:
            more["envelope"] = views.envelope(waveform.samples, ENVELOPE_POINTS)
        return cls.made(
            name,
            frames.tap,
            spread(rows, seconds + frames.hop_seconds / 2, ones, frames.hop_seconds, columns),
            frames.windows,
            frames.dtype,
            kernel_seconds,
            **more,
        )

    @classmethod
    def made(
        cls,
        name: str,
        tap: Tap,
        columns: tuple[Float32[np.ndarray, "columns width"], float, float],
        windows: tuple[Window, ...],
        dtype: str,
        kernel_seconds: float | None,
        **more: Any,
    ) -> View:
        """Of what `spread` gives, with the kernel that fits unless one is given."""
        rows, hop_seconds, frames_per_column = columns
        if kernel_seconds is None:
            fitting = min(_MOST_KERNEL_SECONDS, len(rows) * hop_seconds / 4)
            kernel_seconds = max(fitting, min(len(rows), _LEAST_KERNEL_COLUMNS) * hop_seconds)
            kernel_seconds = max(kernel_seconds, 2 * hop_seconds)
        return cls(
            name,
            tap,
            rows,
            hop_seconds,
            frames_per_column,
            windows,
            dtype,
            float(kernel_seconds),
            **more,
        )

    @property
    def duration_seconds(self) -> float:
        """Of the recording."""
        return max(window.end_seconds for window in self.windows)

    @property
    def seconds(self) -> Float64[np.ndarray, "columns"]:
        """When each column starts."""
        return np.arange(len(self.rows)) * self.hop_seconds

    @cached_property
    def norms(self) -> Float32[np.ndarray, "columns"]:
        """The Euclidean length of each row."""
        return l2_norms(self.rows)

    @cached_property
    def deviations(self) -> Float32[np.ndarray, "columns width"]:
        """See `views.standardised`."""
        return views.standardised(self.rows)

    @cached_property
    def colours(self) -> Float32[np.ndarray, "columns 3"]:
        """See `views.pca_colours`."""
        return views.pca_colours(self.rows)

    @cached_property
    def similarity(self) -> Float32[np.ndarray, "columns columns"]:
        """See `views.self_similarity`."""
        return views.self_similarity(self.rows)

    @cached_property
    def novelty(self) -> Float32[np.ndarray, "columns"]:
        """See `views.novelty`; NaN within half a kernel of either end."""
        return views.novelty(self.similarity, round(self.kernel_seconds / self.hop_seconds))

    @cached_property
    def boundaries(self) -> Float64[np.ndarray, "found"]:
        """Seconds at which a new section begins; see `views.section_starts`."""
        apart = max(1, round(self.kernel_seconds / self.hop_seconds / 2))
        return self.seconds[np.array(views.section_starts(self.novelty, apart), np.int64)]

    def save(self, path: str | Path) -> Path:
        """.npz: all arrays; .csv and .json: a row a column, with its norm, novelty and colour.

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        arrays = {
            "rows": self.rows,
            "seconds": self.seconds,
            "norms": self.norms,
            "colours": self.colours,
            "similarity": self.similarity,
            "novelty": self.novelty,
            "boundaries": self.boundaries,
            "envelope": self.envelope,
            "log_mel": self.log_mel,
            "mel_hz": self.mel_hz,
            "depth_norms": self.depth_norms,
        }
        return save_numbers(path, self.facts(), arrays, self.table)

    def facts(self) -> dict[str, Any]:
        """What is to be known of it beside its numbers."""
        return {
            "name": self.name,
            "tap": str(self.tap),
            "hop_seconds": self.hop_seconds,
            "frames_per_column": self.frames_per_column,
            "kernel_seconds": self.kernel_seconds,
            "boundaries_seconds": self.boundaries.tolist(),
            "windows": [dataclasses.asdict(window) for window in self.windows],
            "depth_taps": self.depth_taps,
            "dtype": self.dtype,
        }

    def table(self) -> list[dict[str, Any]]:
        """A row a column."""
        names = ("start_seconds", "norm", "novelty", "red", "green", "blue")
        columns = (self.seconds, self.norms, self.novelty, *self.colours.T)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def __repr__(self) -> str:
        columns, width = self.rows.shape
        return (
            f"View({self.name!r} at {self.tap}: {columns} columns of {self.hop_seconds:g} s × "
            f"{width}, {len(self.boundaries)} boundaries)"
        )


def spread(
    rows: Float32[np.ndarray, "rows width"],
    middles: Float[np.ndarray, "rows"],
    counts: Float[np.ndarray, "rows"],
    hop_seconds: float,
    columns: int,
) -> tuple[Float32[np.ndarray, "columns width"], float, float]:
    """Rows of a tap → at most `columns` columns of equal length.

    Args:
        middles, counts: see `views.even_columns`.
        hop_seconds: of the tap: seconds from one frame to the next.

    Returns:
        The columns, the seconds and the frames of each.

    Raises:
        OptionError: where there are no rows, or fewer than two columns are asked for.
    """
    if not isinstance(columns, int) or columns < 2:
        raise OptionError(f"columns={columns!r}: use a whole number, 2 or more")
    if not len(rows):
        raise OptionError("there is no audio to look at: give frames that hold rows of audio")
    span_seconds = float((middles + counts * hop_seconds / 2).max())
    most = max(1, round(span_seconds / hop_seconds))
    made = min(columns, most)
    return (
        views.even_columns(rows, middles, counts, span_seconds, made),
        span_seconds / made,
        most / made,
    )


def decibels(
    log_mel: Float32[np.ndarray, "mel_columns bins"],
) -> Float32[np.ndarray, "mel_columns bins"]:
    """What Whisper's extractor gives, (log10(power) + 4) / 4 → 10 log10(power)."""
    return (40 * log_mel - 40).astype(np.float32)
