"""Hear: open a recording, look at one window of it."""

from __future__ import annotations

from typing import Any

from qwen_audio.playground.context import AppContext, spoken
from qwen_audio.playground.payloads import image, sound_of
from qwen_audio.playground.sessions import Clip

__all__ = ["Hearing", "shown"]


class Hearing:
    """The tab's handlers."""

    def __init__(self, room: AppContext) -> None:
        self.room = room

    @spoken
    def open(self, asked: dict[str, Any], request: Any) -> dict[str, Any]:
        """An upload ("ticket"), an example, or another window of what is open."""
        visit = self.room.visit(request)
        if "window" in asked:
            visit.opened.turn_to(int(asked["window"]))
            visit.look_anew()
        else:
            visit.open(self.room.load(asked))
        return shown(self.room, visit.opened)


def shown(room: AppContext, clip: Clip) -> dict[str, Any]:
    """One window of a clip, as the page draws and plays it."""
    waveform, window, part = clip.waveform, clip.seen, clip.part
    mel = room.run_on_model_thread(lambda: room.model.activations(part, taps=["mel"])).result()[
        "mel"
    ]
    story = room.run_on_model_thread(lambda: room.model.inspect(part)).result().windows[0]
    channels = {1: "mono", 2: "stereo"}.get(
        waveform.source_channels, f"{waveform.source_channels} channels"
    )
    facts = [
        ("recording", f"{waveform.duration_seconds:.2f} s"),
        ("as it came", f"{waveform.source_format}, {waveform.source_rate_hz} Hz, {channels}"),
        ("as it is heard", "16000 Hz, mono"),
        ("mel frames", f"{story.mel_frames}, one per 10 ms"),
        ("audio tokens", f"{story.audio_tokens}, one per 40 ms"),
    ]
    return {
        "name": clip.name,
        "windows": [[one.start_seconds, one.end_seconds] for one in clip.windows],
        "window": clip.window,
        "start": window.start_seconds,
        "end": window.end_seconds,
        "facts": facts,
        "sound": sound_of(part.samples),
        "mel": image(mel.data),
        "mel_hz": [float(hz) for hz in getattr(room.model, "mel_hz", ())] or None,
        "note": "This recording is silent. The model will answer all the same, "
        "but not about anything that is there."
        if clip.silent
        else None,
    }
