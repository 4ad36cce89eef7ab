"""Search tab: similarity and full-text search of a collection, and its map."""

from __future__ import annotations

import threading
from typing import Any

from qwen_audio import AudioError, Collection, CollectionError, Projection, SearchResult
from qwen_audio.analysis.files import json_value
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import wav_base64
from qwen_audio.playground.sessions import Session

__all__ = ["RESULT_LIMIT", "SearchTab"]

RESULT_LIMIT = 12


class SearchTab:
    """Request handlers of the Search tab. Visitors see file names, never paths."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self._map_lock = threading.Lock()
        self._map: tuple[int, Projection, dict[str, Any]] | None = None
        """Version of the table, its projection, and the payload for the page."""

    @property
    def collection(self) -> Collection:
        """The collection. Raises CollectionError if the playground has none."""
        if self.context.collection is None:
            raise CollectionError(
                "This playground has no collection: start it with --collection music.lance"
            )
        return self.context.collection

    @report_errors
    def search(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Windows most similar to the selected one or, with "text", full-text search."""
        session = self.context.session(request)
        text = data.get("text")
        text = text[:1000] if isinstance(text, str) else None
        search, run = self.collection.search, self.context.run_on_model_thread
        if text is not None:
            work = run(lambda: search(caption=text, limit=RESULT_LIMIT))
        else:
            window = session.open_clip.window_waveform
            work = run(lambda: search(window, limit=RESULT_LIMIT))
        results = work.result()
        session.search_results = results
        clip = session.clip
        session.results["search"] = {
            "text": text,
            "clip": clip and clip.name,
            "window": clip and clip.window_of_many,
        }
        return {
            "text": text,
            "points": self._points_of(results),
            "results": [
                {
                    "name": result.name,
                    "start": result.start_seconds,
                    "end": result.end_seconds,
                    "score": result.score,
                    "caption": result.caption,
                }
                for result in results
            ],
        }

    @report_errors
    def map(self, data: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Every window of the collection as a point, with the columns that can colour them."""
        session = self.context.session(request)
        session.results["map"], payload = self.projection()
        return payload | {"results": self._points_of(session.search_results)}

    @report_errors
    def play(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Audio of a search result ("result") or of a point of the map ("point"), by index."""
        source, window, start, name = self._selected(self.context.session(request), data)
        try:
            waveform = self.collection.waveform(source, window)
        except AudioError as error:  # its message contains the path
            raise AudioError(
                f"{name} can't be played: it was changed or deleted after it was indexed."
            ) from error
        return {
            "name": name,
            "start": start,
            "wav": wav_base64(waveform.samples),
        }

    def projection(self) -> tuple[Projection, dict[str, Any]]:
        """The map and its payload, computed once per version of the collection."""
        with self._map_lock:
            version = self.collection.table.version
            if self._map is None or self._map[0] != version:
                projection = self.collection.map()
                self._map = version, projection, _payload(projection) | {"version": version}
            return self._map[1:]

    def _selected(self, session: Session, data: dict[str, Any]) -> tuple[str, int, float, str]:
        """Source, window and its start, and the name to be shown, of a result or point."""
        index, point = data.get("result"), data.get("point")
        if isinstance(index, int) and 0 <= index < len(session.search_results):
            result = session.search_results[index]
            return result.source, result.window, result.start_seconds, result.name
        if index is not None or self._map is None:
            raise AudioError("That result belongs to an earlier search: search again.")
        version, projection, _ = self._map
        if data.get("version") != version or not isinstance(point, int):
            raise AudioError("The collection has changed: reload this page.")
        if not 0 <= point < len(projection):
            raise AudioError(f"The map has {len(projection)} points: choose one of them.")
        row = projection.rows[point]
        name = projection.file_names[point]
        return row["source"], row["window"], row["start_seconds"], name

    def _points_of(self, results: list[SearchResult]) -> list[int]:
        """Indices of search results on the map; none before there is a map."""
        if self._map is None or not results:
            return []
        keys = {(result.source, result.window) for result in results}
        rows = enumerate(self._map[1].rows)
        return [index for index, row in rows if (row["source"], row["window"]) in keys]


def _payload(projection: Projection) -> dict[str, Any]:
    return {
        "method": projection.method.upper(),
        "x": [round(float(x), 4) for x in projection.points[:, 0]],
        "y": [round(float(y), 4) for y in projection.points[:, 1]],
        "names": projection.file_names,
        "starts": [row["start_seconds"] for row in projection.rows],
        "ends": [row["end_seconds"] for row in projection.rows],
        "captions": [row["caption"] for row in projection.rows],
        "columns": [
            {"name": name, "values": [json_value(value) for value in projection.values(name)]}
            for name in projection.columns
        ],
    }
