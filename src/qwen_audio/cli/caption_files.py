"""Captions as files, with the times of their windows: .csv, .jsonl, .srt and .vtt."""

from __future__ import annotations

import argparse
import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.analysis.files import (
    atomic_write,
    check_output_folder,
    check_output_path,
    csv_bytes,
    csv_text,
    write_errors,
)
from qwen_audio.errors import OptionError
from qwen_audio.paths import is_folder, path_to_text

from .journal import recording_key
from .output_names import output_paths

if TYPE_CHECKING:
    from qwen_audio.api.answer import Answer

__all__ = [
    "SUBTITLE_FORMATS",
    "caption_rows",
    "check_caption_output",
    "check_subtitles",
    "other_settings",
    "read_table",
    "save_subtitles",
    "save_table",
    "subtitle_paths",
]

TABLE_SUFFIXES = (".csv", ".jsonl")
SUBTITLE_FORMATS = ("srt", "vtt")


def check_caption_output(options: argparse.Namespace) -> Path | None:
    """-o and --format: the table, or the file or folder of subtitles; None without -o.

    Raises:
        OptionError: for a suffix or a format that is missing or has no effect, or a path that can't
            be written to.
    """
    if options.output is None:
        for name in ("resume", "format"):
            if getattr(options, name):
                raise OptionError(f"--{name} is for captions in a file: name one with -o")
        return None
    output = Path(options.output)
    if options.format is not None:
        if output.suffix.lower() in (*TABLE_SUFFIXES, ".srt", ".vtt"):
            raise OptionError(f"--format {options.format} -o {output}: name a folder")
        return check_output_folder(output)
    if is_folder(output):
        raise OptionError(f"{output} is a folder: add --format srt or --format vtt")
    return check_output_path(output, (*TABLE_SUFFIXES, *(f".{name}" for name in SUBTITLE_FORMATS)))


def subtitle_paths(output: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The file of subtitles of each recording; none where the captions are one table.

    Raises:
        OptionError: for one file of several recordings, or as `output_paths` does.
    """
    if options.format is not None:
        return output_paths(options.depths, output, options.format)
    if output.suffix.lower() in TABLE_SUFFIXES:
        return {}
    if len(options.files) > 1:
        raise OptionError(
            f"{output} holds the captions of one recording: for {len(options.files)}, name a "
            f"folder and --format {output.suffix[1:].lower()}"
        )
    return dict.fromkeys(options.files, output)


def caption_rows(file: str, answers: Iterable[Answer], spec: str) -> list[dict[str, Any]]:
    """A row for each window: source, window, start_seconds, end_seconds, text, complete and spec.

    Args:
        spec: fingerprint of the settings that decide the texts, so that other settings are noticed.
    """
    return [
        {
            "source": path_to_text(file),
            "window": answer.window,
            "start_seconds": answer.start_seconds,
            "end_seconds": answer.end_seconds,
            "text": answer.text,
            "complete": answer.complete,
            "spec": spec,
        }
        for answer in answers
    ]


def save_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of all recordings as CSV, or as JSON Lines.

    Raises:
        OptionError: if it can't be written.
    """
    if path.suffix.lower() == ".csv":
        data = csv_bytes(rows)
    else:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    atomic_write(path, lambda draft: draft.write_bytes(data))


def save_subtitles(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows of one recording as SubRip (.srt) or WebVTT (.vtt).

    Raises:
        OptionError: if it can't be written.
    """
    make = _srt if path.suffix.lower() == ".srt" else _vtt
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    data = make(rows).encode(errors="replace")
    atomic_write(path, lambda draft: draft.write_bytes(data))


def read_table(path: Path, spec: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each recording in a table that `save_table` wrote.

    Raises:
        OptionError: for anything else, and for rows that were made with other settings.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    try:
        text = path.read_bytes().decode()  # with line ends in quoted cells as they are
        if path.suffix.lower() == ".csv":
            table = [_typed(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
        else:
            table = [json.loads(line) for line in text.split("\n") if line]
        for row in table:
            rows.setdefault(row["source"], []).append(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} holds no captions that can be read ({error}): leave out --resume to make it "
            "anew"
        ) from error
    for row in table:
        _check_spec(path, row.get("spec"), spec)
    return rows


def check_subtitles(path: Path, spec: str, file: str) -> bool:
    """Whether a file of subtitles says what it was made of and with; SubRip has no place for it.

    Raises:
        OptionError: if that is another recording, or other settings.
    """
    if path.suffix.lower() == ".srt":
        return False
    header = ""
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as opened:
        header = "".join(opened.readline() for _ in range(5))
    found = re.search(r"^NOTE spec (\w+)$", header, re.MULTILINE)
    _check_spec(path, found and found[1], spec)
    if (noted := re.search(r'^NOTE source ("(?:[^"\\\n]|\\.)*")$', header, re.MULTILINE)) is None:
        return True
    source = json.loads(noted[1])
    if recording_key(source) != recording_key(file):
        raise OptionError(
            f"{path} holds the captions of {source}, not of {file}: name another output, or leave "
            "out --resume to make it anew"
        )
    return True


def _check_spec(path: Path, found: str | None, spec: str) -> None:
    if not found:
        raise OptionError(
            f"{path} doesn't say with which settings it was made: leave out --resume to make it "
            "anew"
        )
    if found != spec:
        raise other_settings(path)


def other_settings(path: Path) -> OptionError:
    """The error for a finished file that can't be continued."""
    return OptionError(
        f"{path} was made with other settings: give the same, or leave out --resume to make it anew"
    )


def _typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of CSV as it was before it was text."""
    return {
        "source": csv_text(row["source"]),
        "window": int(row["window"]),
        "start_seconds": float(row["start_seconds"]),
        "end_seconds": float(row["end_seconds"]),
        "text": csv_text(row["text"]),
        "complete": row["complete"] == "True",
        "spec": row.get("spec"),
    }


def _srt(rows: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"{number}\n{_times(row, ',')}\n{_cue(row['text'], str)}\n"
        for number, row in enumerate(rows, start=1)
    )


def _vtt(rows: Iterable[Mapping[str, Any]]) -> str:
    def escape(line: str) -> str:
        return html.escape(line, quote=False)

    rows = list(rows)
    cues = [f"{_times(row, '.')}\n{_cue(row['text'], escape)}\n" for row in rows]
    source = json.dumps(rows[0]["source"]).replace("-->", r"--\u003e")  # which would be a time
    notes = [f"NOTE spec {rows[0]['spec']}\n", f"NOTE source {source}\n"]  # no player shows them
    return "\n".join(["WEBVTT\n", *notes, *cues])


def _times(row: Mapping[str, Any], point: str) -> str:
    return f"{_time(row['start_seconds'], point)} --> {_time(row['end_seconds'], point)}"


def _time(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds: 00:01:02,500."""
    whole, milliseconds = divmod(round(1000 * seconds), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


def _cue(text: str, escape: Callable[[str], str]) -> str:
    """The lines of a cue: a blank one would end it."""
    lines = [escape(line) for line in text.splitlines() if line.strip()]
    return "\n".join(lines) or "…"
