"""Compare: another recording beside the one that is open."""

from __future__ import annotations

from typing import Any

from qwen_audio import Comparison
from qwen_audio.playground.context import AppContext, spoken
from qwen_audio.playground.payloads import image, sound_of

from .see import frames_at

__all__ = ["Comparing"]


class Comparing:
    """The tab's handlers."""

    def __init__(self, room: AppContext) -> None:
        self.room = room

    @spoken
    def compare(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """The window that is open with the first window of another recording."""
        visit = self.room.visit(request)
        clip = visit.opened
        seen = clip.seen
        other = self.room.load(asked)
        taps = [str(tap) for tap in self.room.model.taps]
        compared = Comparison.of(
            (frames_at(self.room, clip, tap), frames_at(self.room, other, tap)) for tap in taps
        )
        if visit.clip is clip and clip.seen == seen:  # else they look at something else by now
            visit.other, visit.kept["compare"] = other, compared
        low, high = float(compared.by_time.min()), float(compared.by_time.max())
        return {
            "names": [clip.name, other.name],
            "spans": [[part.seen.start_seconds, part.seen.end_seconds] for part in (clip, other)],
            "sounds": [sound_of(part.part.samples) for part in (clip, other)],
            "taps": taps,
            "cosines": list(map(float, compared.cosines)),
            "by_time": image(compared.by_time.T, low, high),
            "column_seconds": compared.column_seconds,
            "values": compared.by_time.round(3).tolist(),
        }
