"""Collection tab: search by the open recording, by a row, or by words of captions."""

from __future__ import annotations

from typing import Any

from qwen_audio import AudioError, CollectionError, SearchResults
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import report_errors

from .collection import CollectionTab, row_payload

__all__ = ["RESULT_LIMIT", "SearchCard"]

RESULT_LIMIT = 12
_MAX_TEXT = 1000
_MAX_COMPARED = 20
"""Recordings with the open one's name and duration, whose audio is compared with it."""
_SAME_SECONDS = 0.001


class SearchCard:
    """Request handler of the searches."""

    def __init__(self, tab: CollectionTab) -> None:
        self.tab = tab

    @report_errors
    def search(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The best rows for a "text", full-text search of captions; for a "row"'s id, its nearest
        neighbours; without either, those similar to the open part of the recording.

        A row is not its own neighbour. The windows of the open recording itself are left out,
        unless "include_self".
        """
        session = self.tab.context.session(request)
        rows = self.tab.newest_rows()
        text, row_id = data.get("text"), data.get("row")
        query: dict[str, Any] = dict.fromkeys(("text", "clip", "window", "row"))
        left_out: str | None = None
        if isinstance(text, str):
            text = text[:_MAX_TEXT]
            query["text"] = text
            results = self._run(caption=text)
        elif row_id is not None:
            index = rows.find(str(row_id))
            row = rows[index]
            query |= {"row": str(row_id), "name": rows.file_names[index]}
            query |= {"start": row["start_seconds"], "end": row["end_seconds"]}
            results = self._run(like=f"{row['source']}#{row['window']}")
            left_out = "the window itself"
        else:
            clip = session.open_clip
            own = [] if data.get("include_self") else self._own_sources(clip)
            part = clip.window_of_many
            query |= {"clip": clip.name, "window": part, "include_self": not own}
            results = self._run(audio=clip.window_waveform, where=_without(own))
            left_out = "the recording itself" if own else None
        session.search_results = results
        session.results["search"] = query
        found = [rows.index_of(result.source, result.window) for result in results]
        if None in found:
            raise CollectionError("The collection has changed meanwhile: search again")
        return {
            "version": rows.version,
            "query": {
                name: query.get(name) for name in ("text", "clip", "row", "name", "start", "end")
            },
            "metric": results.metric,
            "typical": results.typical_score,
            "left_out": left_out,
            "results": [
                row_payload(rows, index) | {"score": result.score}
                for index, result in zip(found, results, strict=True)
                if index is not None
            ],
        }

    def _run(self, **options: Any) -> SearchResults:
        search = self.tab.collection.search
        with self.tab.named_without_folder():
            return self.tab.context.run_on_model_thread(
                lambda: search(limit=RESULT_LIMIT, **options)
            ).result()

    def _own_sources(self, clip: Clip) -> list[str]:
        """The sources in the collection that are the open recording: that of its row, or those of
        its name and duration whose audio is the same."""
        rows = self.tab.newest_rows()
        if clip.row is not None:
            return [str(rows[rows.find(clip.row)]["source"])]
        seconds = clip.waveform.duration_seconds
        candidates = [
            str(row["source"])
            for row in rows.first_windows(clip.name)
            if abs((row["duration_seconds"] or 0) - seconds) < _SAME_SECONDS
        ]
        return [source for source in candidates[:_MAX_COMPARED] if self._is_same(source, clip)]

    def _is_same(self, source: str, clip: Clip) -> bool:
        try:
            samples = self.tab.collection.waveform(source).samples
        except (AudioError, CollectionError):  # gone or changed: another recording
            return False
        opened = clip.waveform.samples
        return samples.shape == opened.shape and bool((samples == opened).all())


def _without(sources: list[str]) -> str | None:
    """SQL that leaves out recordings; None for none."""
    if not sources:
        return None
    literals = ", ".join("'" + source.replace("'", "''") + "'" for source in sources)
    return f"source NOT IN ({literals})"
