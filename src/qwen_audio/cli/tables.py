"""What the command line shows as tables: the taps of a checkpoint, a clip's way along the line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.plots.panels import even_share, shown_words
from qwen_audio.api.inspection import ShapeTrace
from qwen_audio.api.parity import ParityReport
from qwen_audio.audio.timecode import format_duration, format_time

__all__ = [
    "inspection_tables",
    "lens_tables",
    "parity_tables",
    "score_tables",
    "taps_tables",
]

Shown = Iterable[Table | Text]


def taps_tables(model: str, taps: Sequence[Mapping[str, Any]], text: Mapping[str, Any]) -> Shown:
    """Every tap of a checkpoint with its plan; `text` is that of generating."""
    yield Text(f"The line of {model}. A tap takes what its row says, and nothing below it.")
    table = _table(
        "tap", "width", "rows", "tensors", "parameters", "download", "read", "memory", "GFLOP/s"
    )
    for row in taps:
        table.add_row(row["tap"], str(row["width"]), _rate(row), *_plan(row))
    table.add_row("text", "", "1 a token", *_plan(text))
    yield table
    yield Text(
        "  download: from a hub, beyond what is here already; memory: of the process, at most, "
        "with audio\n  in full batches; GFLOP/s: for a second of audio (tokens of text come on top)"
    )


def inspection_tables(story: ShapeTrace) -> Shown:
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
        taps.add_row(tap.tap, str(tap.rows), str(tap.width), _rate(row), *_weights(row))
    taps.add_row("text", "", "", "1 a token", *_weights(dataclasses.asdict(story.text)))
    yield taps


def parity_tables(report: ParityReport) -> Shown:
    """How alike ours and transformers' numbers are, tap by tap."""
    yield Text(
        f"{report.model} in {report.dtype} on {report.device}, against transformers "
        f"{report.transformers} (torch {report.torch}; {report.machine})"
    )
    yield Text(f"  {'; '.join(report.clips)}")
    table = _table("tap", "rows", "lowest cosine", "largest relative error")
    for tap in report.taps:
        table.add_row(tap.tap, str(tap.rows), f"{tap.cosine:.7f}", f"{tap.relative_error:.1e}")
    yield table
    if report.skipped_taps:
        first, last = report.skipped_taps[0], report.skipped_taps[-1]
        yield Text(f"  Not compared, as memory does not hold them: {first} … {last}")
    limit = report.max_error
    bounds = f"cosine at least {report.min_cosine:g}"
    bounds += "" if limit is None else f", error at most {limit:g}"
    yield Text(f"  {'Equal' if report.holds else 'NOT EQUAL'} within {bounds}.")


def score_tables(scores: Sequence[Mapping[str, Any]]) -> Shown:
    """What `probe` found, a table a target; the best score is bold."""
    for target in dict.fromkeys(row["target"] for row in scores):
        rows = [row for row in scores if row["target"] == target]
        first = rows[0]
        kind = f"{first['classes']} classes" if first["classes"] else "a quantity"
        yield Text(
            f"{target}: {kind}; {first['recordings']} recordings in {first['groups']} groups, "
            f"{first['folds']} fold{'s' * (first['folds'] != 1)}"
        )
        table = _table(
            "tap", "pooling", "span", "probe", first["metric"], "95 %", "baseline", "shuffled"
        )
        best = max(row["score"] for row in rows)
        for row in rows:
            between = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            table.add_row(
                row["tap"],
                row["pooling"],
                row["span"],
                row["probe"],
                f"{row['score']:.3f}",
                between,
                f"{row['baseline']:.3f}",
                f"{row['control']:.3f}{'' if row['at_chance'] else ' (!)'}",
                style="bold" if row["score"] == best else None,
            )
        yield table


def lens_tables(lens: LogitLens) -> Shown:
    """What would be said, by time and level; after text that is read; the words followed."""
    levels = even_share(len(lens.taps), 6)
    some = "" if len(levels) == len(lens.taps) else f"; {len(levels)} of {len(lens.taps)} levels"
    yield Text(f"{lens.name}: what would be said next, and how likely{some}")
    names = [str(lens.taps[level]) for level in levels]
    steps, texts = shown_words(lens, 20, 8)
    table = _table("time", *names)
    for step in steps:
        cells = [_said(step.words[level], step.probabilities[level]) for level in levels]
        apart = step.end_seconds - step.start_seconds
        between = (
            f"{format_time(step.start_seconds, apart)}–{format_time(step.end_seconds, apart)} s"
        )
        table.add_row(between, *cells)
    if steps:
        yield table
    table = _table("after reading", *names)
    for place in texts:
        cells = [_said(*lens.words(level, place)[0]) for level in levels]
        table.add_row(Text(repr(lens.read[place])), *cells)
    if texts:
        yield table
    for number, word in enumerate(lens.followed):
        shares = lens.followed_probabilities[:, :, number]
        level, place = divmod(int(shares.argmax()), shares.shape[1])
        at = lens.seconds[place]
        where = f"after {lens.read[place]!r}" if at != at else f"at {format_duration(float(at))}"
        what = word.label if word.label == word.word else f"{word.label} (of {word.word!r})"
        yield Text(f"  {what}: likeliest {where}, {lens.taps[level]}: {shares[level, place]:.1%}")
    if lens.nearest_ids is not None:
        ids, counts = np.unique(lens.nearest_ids[:, 0], return_counts=True)
        order = counts.argsort()[::-1][:5]
        found = ", ".join(
            f"{lens.vocabulary[int(ids[k])].strip()} ({counts[k] / counts.sum():.0%})"
            for k in order
        )
        yield Text(f"  nearest tokens of the audio itself at projector: {found}")


def _said(word: str, probability: float) -> Text:
    return Text(f"{word.strip() or repr(word)} {probability:.0%}")


def _rate(row: Mapping[str, Any]) -> str:
    return "1 a position" if row["tap"].startswith("lm.") else f"{row['rate_hz']:g} Hz"


def _plan(plan: Mapping[str, Any]) -> tuple[str, ...]:
    tensors, parameters, read = _weights(plan)
    download, memory = _bytes(plan["download_bytes"]), _bytes(plan["peak_memory_bytes"])
    return tensors, parameters, download, read, memory, f"{plan['gflop_per_second']:,.2f}"


def _weights(plan: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(plan["tensors"]), f"{plan['parameters']:,}", _bytes(plan["read_bytes"])


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
