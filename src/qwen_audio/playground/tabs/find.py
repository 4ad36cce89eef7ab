"""Find: the nearest windows of a collection, by sound or by words, and its map."""

from __future__ import annotations

import threading
from pathlib import PurePath
from typing import Any

from qwen_audio import AudioError, Collection, CollectionError, Projection, SearchResult, Window
from qwen_audio.analysis.files import json_value
from qwen_audio.playground.context import AppContext, spoken
from qwen_audio.playground.payloads import sound_of
from qwen_audio.playground.sessions import Session

__all__ = ["HITS", "Finding"]

HITS = 12


class Finding:
    """The tab's handlers. Visitors see names of files, never where they lie."""

    def __init__(self, room: AppContext) -> None:
        self.room = room
        self._drawing = threading.Lock()
        self._drawn: tuple[int, Projection, dict[str, Any]] | None = None

    @property
    def collection(self) -> Collection:
        """What is searched. Raises CollectionError if the playground was opened without."""
        if self.room.collection is None:
            raise CollectionError("There is no collection here: open with --collection music.lance")
        return self.room.collection

    @spoken
    def find(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """Windows that sound like what is open, or whose captions hold words."""
        visit = self.room.visit(request)
        words = asked.get("text")
        words = words[:1000] if isinstance(words, str) else None
        search = self.collection.search
        if words is not None:
            found = self.room.run_on_model_thread(lambda: search(text=words, limit=HITS))
        else:
            part = visit.opened.part
            found = self.room.run_on_model_thread(lambda: search(part, limit=HITS))
        hits = found.result()
        visit.found = hits
        clip = visit.clip
        visit.kept["find"] = {
            "words": words,
            "clip": clip and clip.name,
            "window": clip and clip.several,
        }
        return {
            "words": words,
            "points": self._places(hits),
            "hits": [
                {
                    "name": PurePath(hit.source).name,
                    "start": hit.window.start_seconds,
                    "end": hit.window.end_seconds,
                    "score": hit.score,
                    "caption": hit.caption,
                }
                for hit in hits
            ],
        }

    @spoken
    def map(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:  # noqa: ARG002
        """Every window of the collection as a point, and what points can be coloured by."""
        visit = self.room.visit(request)
        visit.kept["map"], answer = self.laid_out()
        return answer | {"found": self._places(visit.found)}

    @spoken
    def hear(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """One of the windows that were found ("hit"), or of those on the map ("point")."""
        source, window = self._chosen(self.room.visit(request), asked)
        name = PurePath(source).name
        try:
            heard = self.collection.waveform(source, window)
        except AudioError as error:  # which says where it lies
            raise AudioError(
                f"{name} can't be heard any more: it has changed or gone since it was indexed."
            ) from error
        return {"name": name, "start": window.start_seconds, "sound": sound_of(heard.samples)}

    def laid_out(self) -> tuple[Projection, dict[str, Any]]:
        """The map, and what the page is told of it; made once for as long as the collection stays
        as it is."""
        with self._drawing:
            version = self.collection.table.version
            if self._drawn is None or self._drawn[0] != version:
                made = self.collection.map()
                self._drawn = version, made, _told(made) | {"version": version}
            return self._drawn[1:]

    def _chosen(self, visit: Session, asked: dict[str, Any]) -> tuple[str, Window]:
        hit, point = asked.get("hit"), asked.get("point")
        if isinstance(hit, int) and 0 <= hit < len(visit.found):
            return visit.found[hit].source, visit.found[hit].window
        if hit is not None or self._drawn is None:
            raise AudioError("That was found by an earlier search: search again.")
        version, made, _ = self._drawn
        if asked.get("version") != version or not isinstance(point, int):
            raise AudioError("The collection has changed since: open this page anew.")
        if not 0 <= point < len(made):
            raise AudioError("There is no such point on the map.")
        row = made.rows[point]
        return row["source"], Window(row["start_seconds"], row["end_seconds"])

    def _places(self, hits: list[SearchResult]) -> list[int]:
        """Where on the map what was found is, once there is a map."""
        if self._drawn is None or not hits:
            return []
        wanted = {(hit.source, hit.columns["window"]) for hit in hits}
        rows = enumerate(self._drawn[1].rows)
        return [place for place, row in rows if (row["source"], row["window"]) in wanted]


def _told(made: Projection) -> dict[str, Any]:
    return {
        "method": made.method.upper(),
        "x": [round(float(x), 4) for x in made.points[:, 0]],
        "y": [round(float(y), 4) for y in made.points[:, 1]],
        "names": [PurePath(row["source"]).name for row in made.rows],
        "starts": [row["start_seconds"] for row in made.rows],
        "ends": [row["end_seconds"] for row in made.rows],
        "captions": [row["caption"] for row in made.rows],
        "columns": {
            name: [json_value(value) for value in made.values(name)] for name in made.columns
        },
    }
