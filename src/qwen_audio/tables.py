"""What the command line shows as tables: the taps of a checkpoint, a clip's way along the line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .inspection import Inspection

__all__ = ["inspection_tables", "taps_tables"]

Shown = Iterable[Table | Text]


def taps_tables(model: str, taps: Sequence[Mapping[str, Any]], text: Mapping[str, Any]) -> Shown:
    """Every tap of a checkpoint with what it needs; `text` is the cost of generating."""
    yield Text(f"The line of {model}. A tap needs what its row says, and nothing below it.")
    table = _table("tap", "width", "rows", "tensors", "parameters", "weights")
    for row in taps:
        table.add_row(row["tap"], str(row["width"]), _rate(row), *_cost(row))
    table.add_row("text", "", "1 a token", *_cost(text))
    yield table


def inspection_tables(story: Inspection) -> Shown:
    """One table of a clip's windows, one of what stands at each tap over all of them."""
    yield Text(
        f"{story.name}: {story.seconds:g} s, {story.source_format}, {story.source_rate_hz} Hz, "
        f"{story.source_channels} channel{'s' * (story.source_channels != 1)}; "
        f"{story.samples} samples at 16 kHz in {len(story.windows)} "
        f"window{'s' * (len(story.windows) != 1)}"
    )
    windows = _table("window", "samples", "mel", "encoder", "audio tokens", "ids", "positions")
    for w in story.windows:
        counts = (w.encoder_frames, w.audio_tokens, w.prompt_ids, w.positions)
        mel = f"{story.mel_bins} × {w.mel_frames}"
        windows.add_row(str(w.window), str(w.samples), mel, *map(str, counts))
    yield windows
    yield Text(f"  prompt {story.prompt!r}: ids before the audio is merged, positions after")
    taps = _table("tap", "rows", "width", "rate", "tensors", "parameters", "weights")
    for tap in story.taps:
        row = dataclasses.asdict(tap)
        taps.add_row(tap.tap, str(tap.rows), str(tap.width), _rate(row), *_cost(row))
    taps.add_row("text", "", "", "1 a token", *_cost(dataclasses.asdict(story.text)))
    yield taps


def _rate(row: Mapping[str, Any]) -> str:
    return "1 a position" if row["tap"].startswith("lm.") else f"{row['rate_hz']:g} Hz"


def _cost(cost: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(cost["tensors"]), f"{cost['parameters']:,}", _bytes(cost["bytes"])


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table
