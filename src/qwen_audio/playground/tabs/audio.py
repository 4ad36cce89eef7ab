"""Audio tab: open a recording, or a part of it; its log-mel spectrogram, and shapes by stage."""

from __future__ import annotations

from typing import Any

from qwen_audio import AudioError, ModelDimensions, ShapeTrace, Stage, Tap
from qwen_audio.audio.window import WINDOW_SECONDS
from qwen_audio.errors import counted
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.examples import prepared_caption
from qwen_audio.playground.payloads import heat_map

__all__ = ["AudioTab"]

_RECORDINGS = frozenset({"ticket", "example", "row"})


class AudioTab:
    """Request handlers of the Audio tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def open(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Open an upload ("ticket"), an "example" or a "row" of the collection.

        With "window", a number, or "part", [start, end] in seconds or None, that part of it; with
        these alone, another part of the open recording.
        """
        session = self.context.session(request)
        clip = None
        if not _RECORDINGS.isdisjoint(data):
            is_latest = session.begin_opening()
            clip = self.context.load(data)
            if not is_latest():  # a small file is decoded before a large one that came first
                raise AudioError("Another recording has been opened meanwhile.")
        chosen = session.open_clip if clip is None else clip
        if "window" in data:
            chosen.select_window(data["window"])
        if "part" in data:
            chosen.select_part(data["part"])
        if clip is None:
            session.clear_part_results()
        else:
            session.open(clip)
        return _open_part(self.context, chosen)


def _tokens(trace: ShapeTrace, dimensions: ModelDimensions) -> str:
    """How many of audio, at what rate, and how many of padding: of one window."""
    (window,) = trace.windows
    if not dimensions.has_language_model:
        return "none"
    padding = f", and {window.padding_tokens} of padding" * (window.padding_tokens > 0)
    rate_hz = dimensions.rate_hz(Tap(Stage.PROJECTOR))
    return f"{window.audio_tokens}, {rate_hz:g} a second{padding}"


def _open_part(context: AppContext, clip: Clip) -> dict[str, Any]:
    """The open part of a clip, as the page draws it, and where its audio is fetched."""
    model, waveform, window, selected = (
        context.model,
        clip.waveform,
        clip.window,
        clip.window_waveform,
    )
    activations = context.run_on_model_thread(lambda: model.activations(selected, taps=["mel"]))
    mel = activations.result()["mel"]
    trace = context.run_on_model_thread(lambda: model.inspect(selected)).result()
    channels = {1: "mono", 2: "stereo"}.get(
        waveform.source_channels, f"{waveform.source_channels} channels"
    )
    source = f"{waveform.source_format}, {waveform.source_rate_hz} Hz, {channels}"
    facts = [
        ("recording", f"{waveform.duration_seconds:.2f} s"),
        ("source", source),
        ("model input", "16000 Hz, mono"),
        ("mel frames", f"{trace.windows[0].mel_frames}, one per 10 ms"),
        ("audio tokens", _tokens(trace, model.dimensions)),
    ]
    if clip.window_of_many is not None:
        facts.insert(1, ("open part", f"{window.duration_seconds:.2f} s"))
    if len(waveform.tracks) > 1:
        facts.insert(2, ("audio tracks", f"{len(waveform.tracks)}; used: {waveform.track}"))
    caption = None
    if clip.example is not None and clip.window_of_many is None:
        caption = prepared_caption(context.model, clip.example)
    return {
        "name": clip.name,
        "example": clip.example,
        "row": clip.row,
        "audio": clip.audio_token,
        "windows": [[each.start_seconds, each.end_seconds] for each in clip.windows],
        "window": clip.window_index,
        "part": clip.part is not None,
        "start": window.start_seconds,
        "end": window.end_seconds,
        "duration": waveform.duration_seconds,
        "max_seconds": WINDOW_SECONDS,
        "facts": facts,
        "pipeline": _pipeline(clip, trace),
        "mel": heat_map(mel.data),
        "mel_hop_seconds": mel.hop_seconds,
        "mel_hz": [float(hz) for hz in getattr(model, "mel_hz", ())] or None,
        "caption": caption,
        "note": "This recording is silent. The model still answers questions about it, but its "
        "answers have no basis."
        if clip.is_silent
        else None,
    }


def _pipeline(clip: Clip, trace: ShapeTrace) -> list[dict[str, str]]:
    """For each stage of the model its last tap's shape for the open part, and the rate of rows."""
    seconds = f"{clip.window.duration_seconds:.2f} s"
    stages = [{"stage": "file", "shape": seconds, "note": clip.waveform.source_format}]
    taps = {tap.tap.partition(".")[0]: tap for tap in trace.taps}
    for name, tap in taps.items():
        layers = sum(each.tap.partition(".")[0] == name for each in trace.taps)
        in_text = name == "lm"
        rate = "1 row a token" if in_text else f"{tap.rate_hz:g} rows/s"
        stages.append(
            {
                "stage": name,
                "shape": f"{tap.rows} × {tap.width}",
                "note": rate if layers == 1 else f"{rate} · {counted(layers, 'tap')}",
            }
        )
    return [*stages, {"stage": "text", "shape": "answer", "note": "one token at a time"}]
