"""Downloads: what a tab shows as an npz, CSV or PNG file."""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

from qwen_audio import OptionError, Projection, View, plot
from qwen_audio.analysis.files import csv_bytes
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.sessions import Session

from .hidden_states import hidden_states_at
from .snippets import NOTHING_SHOWN

__all__ = ["Downloads"]

_MEDIA_TYPES = {"npz": "application/octet-stream", "csv": "text/csv", "png": "image/png"}


class Downloads:
    """Request handler of all tabs' download buttons."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def file(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """A "view" in a "format"; for hidden states also the "tap", for PNG whether "dark"."""
        session = self.context.session(request)
        view, suffix = str(data.get("view")), str(data.get("format"))
        if suffix not in _MEDIA_TYPES:
            raise OptionError(f"format {suffix!r:.20}: choose {', '.join(_MEDIA_TYPES)}.")
        result, panels = self._result(session, view, str(data.get("tap")))
        content = _file_bytes(result, panels, suffix, "dark" if data.get("dark") else "light")
        collection, clip = self.context.collection, session.clip
        name = clip.name if clip else "recording"
        if view in ("search", "map") and collection:
            name = collection.name
        stem = Path(name).stem
        tap = f".{data['tap']}" if view == "hidden_states" else ""
        return {
            "name": f"{stem}.{view}{tap}.{suffix}",
            "type": _MEDIA_TYPES[suffix],
            "bytes": base64.b64encode(content).decode(),
        }

    def _result(self, session: Session, view: str, tap: str) -> tuple[Any, list[str] | None]:
        """What a view shows, and which panels of its plot (None: all)."""
        if view in ("audio", "hidden_states"):
            clip, model = session.open_clip, self.context.model
            tap = "mel" if view == "audio" else str(model.dimensions.tap(tap))
            result = View.of(
                hidden_states_at(self.context, clip, tap),
                clip.name,
                waveform=clip.window_waveform,
                log_mel=hidden_states_at(self.context, clip, "mel"),
                mel_hz=model.mel_hz,
            )
            return result, ["waveform", "mel"] if view == "audio" else None
        if view not in session.results:
            raise OptionError(NOTHING_SHOWN)
        if view == "ask":
            return [
                {"question": entry["question"], "answer": str(entry["answer"])}
                for entry in session.answers
                if entry["answer"] is not None
            ], None
        if view == "search":
            return [
                {
                    "file": result.name,
                    "start_seconds": result.start_seconds,
                    "end_seconds": result.end_seconds,
                    "score": result.score,
                    "caption": result.caption or "",
                }
                for result in session.search_results
            ], None
        if view == "map":
            return _map_rows(session.results["map"]), None
        return session.results[view], None


def _map_rows(projection: Projection) -> list[dict[str, Any]]:
    """One row per point, with file names instead of paths."""
    columns: dict[str, list[Any]] = {
        "file": projection.file_names,
        "start_seconds": [row["start_seconds"] for row in projection.rows],
        "end_seconds": [row["end_seconds"] for row in projection.rows],
        "x": projection.points[:, 0].tolist(),
        "y": projection.points[:, 1].tolist(),
    }
    for name in projection.columns:
        values = projection.values(name)
        if values not in columns.values():
            columns[f"{name} (column)" if name in columns else name] = values
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _file_bytes(result: Any, panels: list[str] | None, suffix: str, theme: Any) -> bytes:
    """The file as `save` or `plot` makes it; any temporary file is deleted."""
    if isinstance(result, list):
        if suffix != "csv" or not result:
            raise OptionError("This view is a table: choose csv." if result else NOTHING_SHOWN)
        return csv_bytes(result)
    if suffix == "png":
        buffer = io.BytesIO()
        plot(result, panels, theme=theme).savefig(buffer, format="png")
        return buffer.getvalue()
    with tempfile.TemporaryDirectory(prefix="qwen-audio-") as folder:
        path = Path(folder) / f"view.{suffix}"
        result.save(path)
        return path.read_bytes()
