"""Exports: what a view shows as a picture, a table or arrays."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

from qwen_audio import OptionError, View, save_plot
from qwen_audio.analysis.files import csv_bytes, json_value
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.sessions import Session

from .answers import GivenAnswer, prompt_style
from .hidden_states import hidden_states_at

__all__ = ["FORMATS", "NOTHING_SHOWN", "OF_COLLECTION", "PANELS", "Exports"]

NOTHING_SHOWN = "This view shows nothing to export yet: use it first."
_MEDIA_TYPES = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "csv": "text/csv",
    "npz": "application/octet-stream",
}
_PLOTS = ("audio", "choices", "occlusion", "hidden_states", "lens", "compare", "trace")
_TABLES = ("ask", "edit", "search", "map")
FORMATS = dict.fromkeys(_PLOTS, tuple(_MEDIA_TYPES)) | dict.fromkeys(_TABLES, ("csv",))
"""By view."""
PANELS = {"audio": ["waveform", "mel"]}
"""Panels of a view's plot; of the others all."""
OF_COLLECTION = ("search", "map")
_DECIMALS = 6
"""As files of the package have them."""
_NAME_BYTES = 255
"""The longest name that file systems have."""


class Exports:
    """Request handler of all export menus' files."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def file(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """A "view" in a "format"; of hidden states the "tap", of pictures whether "dark"."""
        session = self.context.session(request)
        view, suffix = str(data.get("view")), str(data.get("format"))
        if view not in FORMATS:
            raise OptionError(f"view {view!r:.20}: choose {', '.join(FORMATS)}")
        if suffix not in FORMATS[view]:
            raise OptionError(f"format {suffix!r:.20}: {view} is exported as {FORMATS[view]}")
        result = self._result(session, view, str(data.get("tap")))
        if isinstance(result, list):
            content = csv_bytes(result)
        else:
            content = _saved(result, view, suffix, dark=bool(data.get("dark")))
        return {
            "name": self._file_name(session, view, suffix, result),
            "type": _MEDIA_TYPES[suffix],
            "bytes": base64.b64encode(content).decode(),
            "note": _note(session, result),
        }

    def _result(self, session: Session, view: str, tap: str) -> Any:
        """What a view shows: an object of the package, or the rows of a table."""
        if view in ("audio", "hidden_states"):
            return self._view(session, "mel" if view == "audio" else tap)
        if session.results.get(view) is None:
            raise OptionError(NOTHING_SHOWN)
        return self._rows(session, view) if view in _TABLES else session.results[view]

    def _rows(self, session: Session, view: str) -> list[dict[str, Any]]:
        """The table of a view; files of the collection are named without their folders."""
        if view == "ask":
            rows = _answer_rows(session)
        elif view == "search":
            rows = [each.row() | {"source": each.name} for each in session.search_results]
        elif view == "map":
            projection = session.results["map"]
            named = zip(projection.table(), projection.file_names, strict=True)
            rows = [row | {"source": name} for row, name in named]
        else:
            rows = session.results[view].rows()
        if not rows:
            raise OptionError(NOTHING_SHOWN)
        return [{name: json_value(value, _DECIMALS) for name, value in row.items()} for row in rows]

    def _view(self, session: Session, tap: str) -> View:
        clip, model = session.open_clip, self.context.model
        return View.of(
            hidden_states_at(self.context, clip, str(model.dimensions.tap(tap))),
            clip.name,
            waveform=clip.window_waveform,
            log_mel=hidden_states_at(self.context, clip, "mel"),
            mel_hz=model.mel_hz,
        )

    def _file_name(self, session: Session, view: str, suffix: str, result: Any) -> str:
        """Recording or collection, seconds if it is a part, view, and tap of hidden states."""
        clip, collection = session.clip, self.context.collection
        if view in OF_COLLECTION and collection is not None:
            stem, part = Path(collection.name).stem, None
        elif clip is not None:
            stem = Path(clip.name).stem
            part = None if view == "ask" else clip.window_of_many
        else:
            stem, part = "recording", None
        end = "" if part is None else f".{part.start_seconds:g}-{part.end_seconds:g}s"
        end += f".{view}.{result.tap}" if view == "hidden_states" else f".{view}"
        end += f".{suffix}"
        kept = stem.encode()[: _NAME_BYTES - len(end.encode())]
        return kept.decode(errors="ignore") + end


def _note(session: Session, result: Any) -> str:
    """How a file of rows over time differs from what the page shows."""
    if not isinstance(result, View):
        return ""
    notes = []
    if result.frames_per_column != 1:
        notes.append(
            f"Each of its {len(result.rows)} columns is the mean of {result.frames_per_column:g} "
            "rows; the Python code has a line for all rows."
        )
    part = None if session.clip is None else session.clip.window_of_many
    if part is not None and part.start_seconds > 0:
        notes.append(f"Its times count from the start of the part, at {part.start_seconds:g} s.")
    return " ".join(notes)


def _answer_rows(session: Session) -> list[dict[str, Any]]:
    """Those that are complete, cut off or stopped, newest first."""
    rows = []
    for entry in session.answers:
        given: GivenAnswer = entry["given"]
        if given.answer is None and not given.is_stopped:
            continue
        start, end = (None, None)
        if given.part is not None:
            start, end = given.part.start_seconds, given.part.end_seconds
        is_complete = given.answer is not None and given.answer.complete
        rows.append(
            {
                "question": given.question,
                "prompt": prompt_style(given.is_chat),
                "turn": given.turn,
                "start_seconds": start,
                "end_seconds": end,
                "answer": given.text,
                "ended": "stopped"
                if given.is_stopped
                else "complete"
                if is_complete
                else "cut off",
            }
        )
    return rows


def _saved(result: Any, view: str, suffix: str, *, dark: bool) -> bytes:
    """The file as `save` or `save_plot` writes it; the temporary file is deleted."""
    with tempfile.TemporaryDirectory(prefix="qwen-audio-") as folder:
        path = Path(folder) / f"{view}.{suffix}"
        if suffix in ("png", "svg"):
            save_plot(result, path, PANELS.get(view), theme="dark" if dark else "light")
        else:
            result.save(path)
        return path.read_bytes()
