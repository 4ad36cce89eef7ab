"""Results as tables and lines of rich: taps, shape traces, parity reports, scores, lenses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.plots.lens_panels import shown_words
from qwen_audio.analysis.plots.panels import evenly_spaced
from qwen_audio.api.inspection import ShapeTrace
from qwen_audio.api.parity import ParityReport
from qwen_audio.audio.timecode import format_duration, format_range, format_time
from qwen_audio.errors import counted
from qwen_audio.weights.option_values import quantize_name

__all__ = [
    "inspection_tables",
    "lens_tables",
    "parity_tables",
    "score_tables",
    "taps_tables",
]

Renderables = Iterable[Table | Text]


def taps_tables(
    model: str, taps: Sequence[Mapping[str, Any]], text: Mapping[str, Any] | None
) -> Renderables:
    """Every tap of a model with its cost estimate; `text` is the cost of generating text, None
    where there is no language model."""
    yield Text(f"Taps of {model}, each with its own cost: nothing after it is read or computed.")
    table = _table(
        "tap", "width", "rows", "tensors", "parameters", "download", "read", "memory", "GFLOP/s"
    )
    for row in taps:
        table.add_row(row["tap"], str(row["width"]), _rate(row), *_cost_cells(row))
    text_memory = text_flops = ""
    if text is not None:
        table.add_row("text", "", "1 a token", *_cost_cells(text))
        cached = f"{text['cache_bytes'] / 1e9:.2g} GB of cached keys and values"
        text_memory, text_flops = f", of text with {cached}", " (text tokens come on top)"
    yield table
    yield Text(
        "  download: from a hub, beyond what is cached; memory: peak of the process, with audio\n"
        f"  in full batches{text_memory};\n  GFLOP/s: per second of audio{text_flops}"
    )
    if padded := taps[0]["padded_seconds"]:
        yield Text(
            f"  windows are padded to {padded:g} s: a shorter one costs as much as {padded:g} s"
        )


def inspection_tables(trace: ShapeTrace) -> Renderables:
    """A table of a recording's windows, and one of its taps over all windows."""
    yield Text(
        f"{trace.source}: {trace.duration_seconds:g} s, {trace.source_format}, "
        f"{trace.source_rate_hz} Hz, {counted(trace.source_channels, 'channel')}; "
        f"{trace.samples} samples at 16 kHz in {counted(len(trace.windows), 'window')}"
    )
    for track in trace.tracks if len(trace.tracks) > 1 else ():
        yield Text(f"  audio track {track}{' (used)' * (track.index == trace.track)}")
    padding = ("padding",) * any(w.padding_tokens for w in trace.windows)
    columns = ("encoder", "audio tokens", *padding, "prompt tokens", "positions")
    windows = _table("window", "samples", "mel", *columns)
    for w in trace.windows:
        padding_tokens = (w.padding_tokens,) * len(padding)
        tokens = (w.audio_tokens, *padding_tokens, w.prompt_tokens)
        counts = (w.encoder_frames, *tokens, w.positions)
        mel = f"{trace.mel_bins} × {w.mel_frames}"
        time = format_range(w.start_seconds, w.end_seconds)
        windows.add_row(time, str(w.samples), mel, *map(str, counts))
    yield windows
    if trace.prompt is not None:
        padded = ", padding" * len(padding)
        yield Text(
            f"  prompt {trace.prompt!r}; positions of the language model: audio{padded} and prompt "
            "tokens"
        )
    taps = _table("tap", "rows", "width", "rate", "tensors", "parameters", "weights")
    for tap in trace.taps:
        row = dataclasses.asdict(tap)
        taps.add_row(tap.tap, str(tap.rows), str(tap.width), _rate(row), *_weight_cells(row))
    if trace.text is not None:
        taps.add_row("text", "", "", "1 a token", *_weight_cells(dataclasses.asdict(trace.text)))
    yield taps


def parity_tables(report: ParityReport) -> Renderables:
    """The differences from transformers' own model, tap by tap."""
    yield Text(
        f"{report.model} in {', '.join(filter(None, (report.quantization, report.dtype)))} on "
        f"{report.device}, against transformers {report.transformers} (torch {report.torch}; "
        f"{report.machine})"
    )
    yield Text(f"  {'; '.join(report.clips)}")
    table = _table("tap", "rows", "lowest cosine", "largest relative error")
    for tap in report.taps:
        table.add_row(tap.tap, str(tap.rows), f"{tap.cosine:.7f}", f"{tap.relative_error:.1e}")
    yield table
    if report.skipped_taps:
        first, last = report.skipped_taps[0], report.skipped_taps[-1]
        yield Text(f"  Not compared (not enough memory): {first} … {last}")
    if report.quantization is not None and report.min_cosine < 0:
        is_stored = quantize_name(report.quantization) is None
        yield Text(
            "  The difference that products of quantised weights make: transformers computes with "
            "the same weights, dequantised."
            if is_stored
            else "  The difference that quantisation makes: transformers computes with the weights "
            "as they were."
        )
        return
    limit = report.max_error
    bounds = f"cosine at least {report.min_cosine:g}"
    bounds += "" if limit is None else f", error at most {limit:g}"
    yield Text(f"  {'Equal' if report.holds else 'NOT EQUAL'} within {bounds}.")


def score_tables(scores: Sequence[Mapping[str, Any]]) -> Renderables:
    """The scores of `probe`, one table per target; the best score is bold."""
    for target in dict.fromkeys(row["target"] for row in scores):
        rows = [row for row in scores if row["target"] == target]
        first = rows[0]
        task = first["task"]
        noun = "label" if task == "labels" else "class"
        kind = "a quantity" if task == "quantity" else counted(first["classes"], noun, task)
        yield Text(
            f"{target}: {kind}; {counted(first['recordings'], 'recording')} in "
            f"{counted(first['groups'], 'group')}, {counted(first['folds'], 'fold')}"
        )
        table = _table(
            "tap", "pooling", "span", "probe", first["metric"], "95 %", "baseline", "control"
        )
        best = max(row["score"] for row in rows)
        for row in rows:
            interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            table.add_row(
                row["tap"],
                row["pooling"],
                row["span"],
                row["probe"],
                f"{row['score']:.3f}",
                interval,
                f"{row['baseline']:.3f}",
                f"{row['control']:.3f}{'' if row['control_at_chance'] else ' (!)'}",
                style="bold" if row["score"] == best else None,
            )
        yield table


def lens_tables(lens: LogitLens) -> Renderables:
    """The most likely next token by time and layer, then after text; the tracked words."""
    levels = evenly_spaced(len(lens.taps), 6)
    some = "" if len(levels) == len(lens.taps) else f"; {len(levels)} of {len(lens.taps)} taps"
    yield Text(f"{lens.name}: most likely next token and its probability{some}")
    names = [str(lens.taps[level]) for level in levels]
    segments, text_positions = shown_words(lens, 20, 8)
    table = _table("time", *names)
    for segment in segments:
        cells = [_token(segment.words[level], segment.probabilities[level]) for level in levels]
        seconds = segment.end_seconds - segment.start_seconds
        start = format_time(segment.start_seconds, seconds)
        table.add_row(f"{start}–{format_time(segment.end_seconds, seconds)} s", *cells)
    if segments:
        yield table
    table = _table("after the text", *names)
    for position in text_positions:
        cells = [_token(*lens.words(level, position)[0]) for level in levels]
        table.add_row(Text(repr(lens.read[position])), *cells)
    if text_positions:
        yield table
    for number, word in enumerate(lens.followed):
        probabilities = lens.followed_probabilities[:, :, number]
        level, position = divmod(int(probabilities.argmax()), probabilities.shape[1])
        seconds = float(lens.start_seconds[position])
        is_text = math.isnan(seconds)
        where = f"after {lens.read[position]!r}" if is_text else f"at {format_duration(seconds)}"
        label = word.label if word.label == word.word else f"{word.label} (of {word.word!r})"
        yield Text(
            f"  {label}: most likely {where}, {lens.taps[level]}: "
            f"{probabilities[level, position]:.1%}"
        )
    if lens.nearest_ids is not None:
        ids, counts = np.unique(lens.nearest_ids[:, 0], return_counts=True)
        most_common = counts.argsort()[::-1][:5]
        tokens = ", ".join(
            f"{lens.vocabulary[int(ids[k])].strip()} ({counts[k] / counts.sum():.0%})"
            for k in most_common
        )
        yield Text(f"  token embeddings nearest to the audio at projector: {tokens}")


def _token(text: str, probability: float) -> Text:
    return Text(f"{text.strip() or repr(text)} {probability:.0%}")


def _rate(row: Mapping[str, Any]) -> str:
    return "1 a position" if row["tap"].startswith("lm.") else f"{row['rate_hz']:g} Hz"


def _cost_cells(cost: Mapping[str, Any]) -> tuple[str, ...]:
    tensors, parameters, read = _weight_cells(cost)
    download, memory = _bytes(cost["download_bytes"]), _bytes(cost["peak_memory_bytes"])
    return tensors, parameters, download, read, memory, f"{cost['gflop_per_second']:,.2f}"


def _weight_cells(cost: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(cost["tensors"]), f"{cost['parameters']:,}", _bytes(cost["read_bytes"])


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
