"""Audio of a map's page: in the page, linked, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_audio.audio.opus import DATA_URI_BYTES_PER_SECOND, data_uri, encode_opus
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion
from qwen_audio.audio.window import Window
from qwen_audio.errors import AudioError, OptionError
from qwen_audio.inference.progress_bars import OnProgress

from .records import load_indexed

__all__ = ["audio_mode", "audio_urls"]

MAX_EMBEDDED_BYTES = 20e6
"""Of audio in a page: larger pages open slowly."""


def audio_mode(rows: Sequence[dict[str, Any]], audio: str | None) -> str:
    """Whether the audio of a page is "embedded", "linked" or "none".

    Raises:
        OptionError: for an unknown value of `audio`, or too much audio to embed.
    """
    if audio not in (None, "embed", "link", "none"):
        raise OptionError(f"audio={audio!r}: use 'embed', 'link' or 'none'")
    seconds = sum(row["end_seconds"] - row["start_seconds"] for row in rows)
    size_bytes = seconds * DATA_URI_BYTES_PER_SECOND
    if audio == "embed" and size_bytes > MAX_EMBEDDED_BYTES:
        raise OptionError(
            f"audio='embed': {seconds:.0f} s of audio take {size_bytes / 1e6:.0f} MB, and "
            f"a page holds {MAX_EMBEDDED_BYTES / 1e6:.0f}: use 'link', or fewer rows (where=)"
        )
    if audio is None:
        audio = "embed" if size_bytes <= MAX_EMBEDDED_BYTES else "link"
    return {"embed": "embedded", "link": "linked", "none": "none"}[audio]


def audio_urls(
    rows: Sequence[dict[str, Any]],
    mode: str,
    track: int | None,
    on_progress: OnProgress | None,
) -> tuple[list[str | None], tuple[str, ...]]:
    """For every row a data: URL, a link or None; and why some files could not be embedded."""
    if mode == "none":
        return [None] * len(rows), ()
    if mode == "linked":
        return [_link(row) for row in rows], ()
    urls: list[str | None] = [None] * len(rows)
    failures = []
    points_of: dict[str, list[int]] = {}
    for point, row in enumerate(rows):
        points_of.setdefault(row["source"], []).append(point)
    seconds = 0.0
    for number, (source, points) in enumerate(points_of.items()):  # each is decoded once
        if on_progress is not None:
            on_progress("embedding audio", number, len(points_of), "recordings", seconds)
        row = rows[points[0]]
        version = SourceVersion(row["source_bytes"], row["source_changed"], row["content_hash"])
        try:
            waveform = load_indexed(Source(source), version, track)
        except AudioError as error:
            failures.append(str(error))
            continue
        seconds += waveform.duration_seconds
        for point in points:
            row = rows[point]
            samples = waveform.samples_in(Window(row["start_seconds"], row["end_seconds"]))
            urls[point] = data_uri(encode_opus(samples)) if samples.size else None
    return urls, tuple(failures)


def _link(row: dict[str, Any]) -> str | None:
    """URL of a window with a media fragment, for sources that a browser can play."""
    source = Source(row["source"])
    fragment = f"#t={row['start_seconds']:g},{row['end_seconds']:g}"
    if source.is_local:
        return Path(source.path).as_uri() + fragment
    return source.uri + fragment if source.uri.startswith(("http://", "https://")) else None
