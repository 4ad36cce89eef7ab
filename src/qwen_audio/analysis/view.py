"""View: the hidden states of one recording at one tap, averaged to a size that can be plotted."""

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
from qwen_audio.errors import OptionError, counted, number_option, whole_number_option
from qwen_audio.inference.hidden_states import HiddenStates
from qwen_audio.inference.reducers import l2_norms
from qwen_audio.models.tap import Tap

from .files import save_numbers
from .picture import Picture

__all__ = ["COLUMNS", "ENVELOPE_POINTS", "View", "average_to_columns", "decibels"]

COLUMNS = 1000
"""Maximum number of columns: about a screen's width, and a square matrix of them is cheap."""
ENVELOPE_POINTS = 2000
_MAX_KERNEL_SECONDS, _MIN_KERNEL_COLUMNS = 16.0, 16


@dataclass(frozen=True, eq=False, repr=False)
class View(Picture):
    """One recording at one tap; created by `AudioModel.view`, or by `View.of` from hidden states.

    Long recordings are averaged to `COLUMNS` columns of equal length. Norms, similarity, novelty
    and the other properties are computed on first access.

    Attributes:
        name: of the recording.
        rows: shape (columns, width): the audio rows, or means of neighbouring ones.
        hop_seconds: length of a column.
        frames_per_column: number of the tap's rows per column.
        windows: the model's windows of the recording.
        dtype: of the computation.
        kernel_seconds: length of the novelty's kernel: half of it before a column, half after.
        envelope: shape (2, points): lowest and highest sample of equal segments of the waveform.
        log_mel: shape (mel columns, bins): power of the mel bands in dB.
        mel_hz: shape (bins,): centre frequencies of the mel bands.
        depth_taps, depth_norms: shape (taps, 3): quartiles of the rows' L2 norms at every tap.
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
        if (
            not self.hop_seconds
            < self.kernel_seconds
            <= self.start_seconds[-1] + 2 * self.hop_seconds
        ):
            shortest, longest = 2 * self.hop_seconds, self.start_seconds[-1] + self.hop_seconds
            raise OptionError(
                f"kernel_seconds={self.kernel_seconds:g} for {self.name}, whose columns take "
                f"{self.hop_seconds:g} s each: use {shortest:.3g} to {longest:.3g} s"
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
        """A view of the result of `activations`; nothing is computed by the model.

        Args:
            waveform, log_mel, mel_hz: for the panels above; `log_mel` are the hidden states of the
                tap "mel", `mel_hz` is `AudioModel.mel_hz`.
            columns: maximum number; longer recordings are averaged.
            kernel_seconds: length of the novelty's kernel; by default a quarter of the recording,
                at most 16 s, at least 16 columns.

        Raises:
            OptionError: for hidden states without audio rows, and values out of range.
        """
        chosen = frames.indices("audio")
        rows, seconds = frames.data[chosen], frames.start_seconds[chosen]
        ones = np.ones(len(rows))
        panels: dict[str, Any] = {}
        if log_mel is not None:
            hop = log_mel.hop_seconds
            middles = log_mel.start_seconds + hop / 2
            mel, _, _ = average_to_columns(
                log_mel.data, middles, np.ones(len(middles)), hop, columns
            )
            panels |= {"log_mel": decibels(mel), "mel_hz": mel_hz}
        if waveform is not None:
            panels["envelope"] = views.envelope(waveform.samples, ENVELOPE_POINTS)
        return cls.from_columns(
            name,
            frames.tap,
            average_to_columns(
                rows, seconds + frames.hop_seconds / 2, ones, frames.hop_seconds, columns
            ),
            frames.windows,
            frames.dtype,
            kernel_seconds,
            **panels,
        )

    @classmethod
    def from_columns(
        cls,
        name: str,
        tap: Tap,
        columns: tuple[Float32[np.ndarray, "columns width"], float, float],
        windows: tuple[Window, ...],
        dtype: str,
        kernel_seconds: float | None,
        **panels: Any,
    ) -> View:
        """A view of the columns that `average_to_columns` returns."""
        rows, hop_seconds, frames_per_column = columns
        if kernel_seconds is None:
            fitting = min(_MAX_KERNEL_SECONDS, len(rows) * hop_seconds / 4)
            kernel_seconds = max(fitting, min(len(rows), _MIN_KERNEL_COLUMNS) * hop_seconds)
            kernel_seconds = max(kernel_seconds, 2 * hop_seconds)
        return cls(
            name,
            tap,
            rows,
            hop_seconds,
            frames_per_column,
            windows,
            dtype,
            number_option("kernel_seconds", kernel_seconds, "a number of seconds"),
            **panels,
        )

    @property
    def duration_seconds(self) -> float:
        """Length of the recording."""
        return max(window.end_seconds for window in self.windows)

    @property
    def start_seconds(self) -> Float64[np.ndarray, "columns"]:
        """Where each column begins in the recording."""
        return np.arange(len(self.rows)) * self.hop_seconds

    @property
    def end_seconds(self) -> Float64[np.ndarray, "columns"]:
        """Where each column ends."""
        return self.start_seconds + self.hop_seconds

    @cached_property
    def norms(self) -> Float32[np.ndarray, "columns"]:
        """L2 norm of each row."""
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
        """Starts of sections in seconds; see `views.section_starts`."""
        min_distance = max(1, round(self.kernel_seconds / self.hop_seconds / 2))
        starts = views.section_starts(self.novelty, min_distance)
        return self.start_seconds[np.array(starts, np.int64)]

    def save(self, path: str | Path) -> Path:
        """Write all arrays (.npz), or a table of norm, novelty and colour by column (.csv, .json).

        Raises:
            OptionError: for another suffix, or a path that can't be written to.
        """
        arrays = {
            "rows": self.rows,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
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
        """Metadata: everything but the arrays."""
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
        """One row per column."""
        names = ("start_seconds", "end_seconds", "norm", "novelty", "red", "green", "blue")
        times = (self.start_seconds, self.end_seconds)
        columns = (*times, self.norms, self.novelty, *self.colours.T)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    def __repr__(self) -> str:
        columns, width = self.rows.shape
        return (
            f"View({self.name!r} at {self.tap}: {counted(columns, 'column')} of "
            f"{self.hop_seconds:g} s × {width}, "
            f"{counted(len(self.boundaries), 'boundary', 'boundaries')})"
        )


def average_to_columns(
    rows: Float32[np.ndarray, "rows width"],
    middles: Float[np.ndarray, "rows"],
    counts: Float[np.ndarray, "rows"],
    hop_seconds: float,
    columns: int,
) -> tuple[Float32[np.ndarray, "columns width"], float, float]:
    """Average the rows of a tap to at most `columns` columns of equal length.

    Args:
        middles, counts: see `views.even_columns`.
        hop_seconds: of the tap.

    Returns:
        The columns, their length in seconds, and the number of rows per column.

    Raises:
        OptionError: if there are no rows, or fewer than two columns are requested.
    """
    columns = whole_number_option("columns", columns, 2)
    if not len(rows):
        raise OptionError("there is no audio to show: give hidden states with audio rows")
    span_seconds = float((middles + counts * hop_seconds / 2).max())
    row_count = max(1, round(span_seconds / hop_seconds))
    column_count = min(columns, row_count)
    return (
        views.even_columns(rows, middles, counts, span_seconds, column_count),
        span_seconds / column_count,
        row_count / column_count,
    )


def decibels(
    log_mel: Float32[np.ndarray, "mel_columns bins"],
) -> Float32[np.ndarray, "mel_columns bins"]:
    """Whisper's log-mel values, (log10(power) + 4) / 4, in dB: 10 log10(power)."""
    return (40 * log_mel - 40).astype(np.float32)
