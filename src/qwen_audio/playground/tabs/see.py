"""See: what stands at a tap of the line, what it took, and the words on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from qwen_audio import HiddenStates, Stage, View, Waveform
from qwen_audio.playground.context import AppContext, spoken
from qwen_audio.playground.payloads import image, picture_of
from qwen_audio.playground.sessions import Clip

__all__ = ["Seeing", "frames_at"]

_COLUMNS, _SQUARE_COLUMNS, _MOST_DIMENSIONS = 750, 240, 512
"""Of a heat map and of a square of similarities: what a screen shows; of vectors, drawn."""
_SPREAD = 2.5
"""Standard deviations of a dimension over time that take the darkest colours."""
_KEPT_SHARE = 16
"""All taps are read and kept at once where that takes less than this part of all memory."""
_STEPS = 12


class Seeing:
    """The tab's handlers."""

    def __init__(self, room: AppContext) -> None:
        self.room = room

    @spoken
    def see(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """One tap: its rows as pictures, and what it is."""
        clip = self.room.visit(request).opened
        tap = self.room.model.dimensions.tap(str(asked.get("tap")))
        frames = frames_at(self.room, clip, str(tap))
        view = View.of(frames, clip.name, columns=_COLUMNS)
        square = View.of(frames, clip.name, columns=_SQUARE_COLUMNS)
        part = clip.part
        stories = self.room.run_on_model_thread(lambda: self.room.model.inspect(part)).result().taps
        story = next(one for one in stories if one.tap == str(tap))
        mel = tap.stage is Stage.MEL
        return {
            "tap": str(tap),
            "start": clip.seen.start_seconds,
            "end": clip.seen.end_seconds,
            "shape": list(frames.data.shape),
            "rate_hz": story.rate_hz,
            "hop_seconds": frames.hop_seconds,
            "width": story.width,
            "weight_bytes": story.read_bytes,
            "row_bytes": frames.data.nbytes,
            "positions": tap.in_language_model,
            "seconds": clip.timings.get(str(tap)),
            "heat": image(view.rows) if mel else _heat(view),
            "signed": not mel,
            "colours": picture_of(view.colours),
            "alike": image(square.similarity, float(square.similarity.min()), 1.0),
        }

    @spoken
    def measure(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """The seconds from sound to a tap's rows, by doing just that."""
        clip = self.room.visit(request).opened
        tap = str(self.room.model.dimensions.tap(str(asked.get("tap"))))
        if tap not in clip.timings:
            part, timings = clip.part, clip.timings
            timings[tap] = self.room.run_on_model_thread(
                lambda: _timed(self.room, part, tap)[1]
            ).result()
        return {"tap": tap, "seconds": clip.timings.get(tap)}

    @spoken
    def words(self, _: dict[str, Any], request: Any) -> dict[str, Any]:
        """What would be said at every level of the language model, over time."""
        visit = self.room.visit(request)
        clip = visit.opened
        part = clip.part
        lens = self.room.run_on_model_thread(lambda: self.room.model.lens(part)).result()
        visit.kept["lens"] = lens
        start = clip.seen.start_seconds
        return {
            "taps": [str(tap) for tap in lens.taps],
            "steps": [
                {
                    "start": start + step.start_seconds,
                    "end": start + step.end_seconds,
                    "words": list(step.words),
                    "probabilities": list(map(float, step.probabilities)),
                }
                for step in lens.steps(_STEPS)
            ],
        }


def frames_at(room: AppContext, clip: Clip, tap: str) -> HiddenStates:
    """A tap's rows: all taps are read in one pass and kept where memory allows, else this alone."""
    if tap not in clip.frames:
        return room.run_on_model_thread(lambda: _read(room, clip, tap)).result()
    return clip.frames[tap]


def _read(room: AppContext, clip: Clip, tap: str) -> HiddenStates:
    kept, timings, part = clip.frames, clip.timings, clip.part
    if tap in kept:  # another request has read it meanwhile
        return kept[tap]
    stories = room.model.inspect(part).taps
    size = sum(4 * story.rows * story.width for story in stories)
    if size <= room.limits.memory_bytes // _KEPT_SHARE:
        kept |= room.model.activations(part, taps=[story.tap for story in stories])
    else:
        kept.clear()
        frames, timings[tap] = _timed(room, part, tap)
        kept |= frames
    return kept[tap]


def _timed(room: AppContext, part: Waveform, tap: str) -> tuple[Mapping[str, HiddenStates], float]:
    """A tap's rows, and the seconds that they took."""
    start = time.perf_counter()
    frames = room.model.activations(part, taps=[tap])
    return frames, time.perf_counter() - start


def _heat(view: View) -> dict[str, Any]:
    """Every dimension in its own units, as a few large ones would hide all others; of very wide
    rows, every so manieth."""
    every = -(-view.rows.shape[1] // _MOST_DIMENSIONS)
    return image(view.deviations[:, ::every], -_SPREAD, _SPREAD)
