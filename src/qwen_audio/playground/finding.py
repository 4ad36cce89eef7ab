"""Find: the nearest windows of a collection, by sound or by words, and its map."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import AudioError, CollectionError
from qwen_audio.loading import load_waveform

from .drawn import sound_of
from .room import Room, spoken

if TYPE_CHECKING:
    from qwen_audio.collection import Collection

__all__ = ["Finding"]

_HITS = 12


class Finding:
    """The tab's handlers. Visitors see names of files, never where they lie."""

    def __init__(self, room: Room) -> None:
        self.room = room

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
        with self.room.turn:
            if isinstance(words, str):
                hits = self.collection.search(text=words[:1000], limit=_HITS)
            else:
                hits = self.collection.search(visit.opened.part, limit=_HITS)
        visit.found = hits
        visit.kept["find"] = words if isinstance(words, str) else visit.opened.name
        return {
            "words": words,
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
    def hear(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """One of the windows that were found, to be played."""
        found = self.room.visit(request).found
        number = asked.get("hit")
        if not isinstance(number, int) or not 0 <= number < len(found):
            raise AudioError("That was found by an earlier search: search again.")
        hit = found[number]
        waveform = load_waveform(hit.source)
        return {
            "name": PurePath(hit.source).name,
            "start": hit.window.start_seconds,
            "sound": sound_of(waveform.cut(hit.window)),
        }
