"""Collection tab: its rows, by public ids; visitors see file names, never paths."""

from __future__ import annotations

import base64
import dataclasses
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qwen_audio import AudioError, Collection, CollectionError, Waveform, Window
from qwen_audio.collection.rows import CollectionRows
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import wav_base64

__all__ = ["CollectionTab", "checked_index", "encoded", "row_payload"]

_MAX_ROWS_AT_ONCE = 500
_MAX_TEXT = 1000


class CollectionTab:
    """Request handlers for rows of the collection: to list, sort, filter and play them.

    The rows of the newest version are kept in memory, without their vectors.
    """

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self._lock = threading.Lock()
        self._rows: CollectionRows | None = None
        if context.collection is not None:
            context.load_row = self.load_row

    @property
    def collection(self) -> Collection:
        """The collection. Raises CollectionError if the playground has none."""
        if self.context.collection is None:
            raise CollectionError(
                "This playground has no collection: start it with --collection music.lance"
            )
        return self.context.collection

    @contextmanager
    def named_without_folder(self) -> Iterator[None]:
        """In errors of the collection, its name in place of its path."""
        try:
            yield
        except CollectionError as error:
            message = str(error).replace(self.collection.location, self.collection.name)
            raise CollectionError(message) from error

    def newest_rows(self) -> CollectionRows:
        """All rows of the collection's newest version."""
        with self._lock:
            if self._rows is None or self._rows.version != self.collection.table.version:
                self._rows = self.collection.rows()
            return self._rows

    def adopt(self, rows: Any) -> CollectionRows:
        """Keep rows that were read together with the vectors, in place of equal ones."""
        with self._lock:
            self._rows = rows
        kept: CollectionRows = rows
        return kept

    def shown_rows(self, data: dict[str, Any]) -> CollectionRows:
        """The rows of the "version" that a page shows. Raises CollectionError for an older one."""
        rows = self._rows
        if rows is None or data.get("version") != rows.version:
            raise CollectionError("The collection has changed since this page read it: reload it")
        return rows

    @report_errors
    def rows(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Names, times, captions and columns of the rows with "indices"."""
        rows = self.shown_rows(data)
        indices = data.get("indices")
        if not isinstance(indices, list) or len(indices) > _MAX_ROWS_AT_ONCE:
            raise CollectionError(f"indices: give a list of at most {_MAX_ROWS_AT_ONCE}")
        return {"rows": [row_payload(rows, checked_index(rows, index)) for index in indices]}

    @report_errors
    def order(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Indices of all rows sorted by a "column", "descending" or not."""
        rows = self.shown_rows(data)
        indices = rows.order(str(data.get("column")), is_descending=bool(data.get("descending")))
        return {"order": encoded(indices, "<i4")}

    @report_errors
    def filter(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Which rows contain all words of a "text": a byte a row."""
        rows = self.shown_rows(data)
        return {"matches": encoded(rows.containing(str(data.get("text", ""))[:_MAX_TEXT]), "u1")}

    @report_errors
    def play(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Audio of the row with an id, "row"."""
        rows = self.newest_rows()
        index = rows.find(str(data.get("row")))
        row, name = rows[index], rows.file_names[index]
        waveform = self._waveform(row, name, whole=False)
        return {"name": name, "start": row["start_seconds"], "wav": wav_base64(waveform.samples)}

    def load_row(self, row_id: str) -> Clip:
        """The recording of a row, with the row's window as its open part.

        Of a recording that is longer than the playground's limit only the window is opened.

        Raises:
            AudioError: if the recording was changed or deleted; its message names no folder.
            CollectionError: if there is no such row.
        """
        rows = self.newest_rows()
        index = rows.find(row_id)
        row, name = rows[index], rows.file_names[index]
        seconds = row["duration_seconds"]
        whole = seconds is not None and seconds <= self.context.limits.recording_seconds
        clip = Clip(self._waveform(row, name, whole=whole), row=row_id)
        part = Window(row["start_seconds"], row["end_seconds"])
        if whole and part.duration_seconds < clip.waveform.duration_seconds:
            longest = max(each.duration_seconds for each in clip.windows)
            if part.duration_seconds <= longest:
                clip.select_part([part.start_seconds, part.end_seconds])
        return clip

    def _waveform(self, row: dict[str, Any], name: str, *, whole: bool) -> Waveform:
        try:
            waveform = self.collection.waveform(row["source"], None if whole else row["window"])
        except AudioError as error:  # its message contains the path
            raise AudioError(
                f"{name} can't be opened: it was changed or deleted after it was indexed"
            ) from error
        return dataclasses.replace(waveform, name=name)


def checked_index(rows: CollectionRows, index: Any) -> int:
    """A page's index of a row. Raises CollectionError for another value."""
    if type(index) is not int or not 0 <= index < len(rows):
        raise CollectionError(f"The collection has {len(rows)} rows: choose one of them")
    return index


def row_payload(rows: CollectionRows, index: int) -> dict[str, Any]:
    """What a page shows of a row: no path."""
    row = rows[index]
    return {
        "index": index,
        "id": rows.id(index),
        "name": rows.file_names[index],
        "start": row["start_seconds"],
        "end": row["end_seconds"],
        "caption": row["caption"],
        "columns": [
            [name, _text(row[name])]
            for name in rows.shown_columns
            if name not in ("caption", "start_seconds", "end_seconds") and row[name] is not None
        ],
    }


def encoded(values: Any, dtype: str) -> str:
    """An array in base64, as a page's typed arrays take it."""
    return base64.b64encode(values.astype(dtype).tobytes()).decode()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "none"
    return str(value)
