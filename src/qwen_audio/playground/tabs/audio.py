"""Audio tab: open a recording; waveform and log-mel spectrogram of one window."""

from __future__ import annotations

from typing import Any

from qwen_audio import AudioError, ModelDimensions, ShapeTrace, Stage, Tap
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import heat_map, wav_base64
from qwen_audio.playground.sessions import Clip

__all__ = ["AudioTab"]


class AudioTab:
    """Request handlers of the Audio tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def open(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Open an upload ("ticket"), an example ("example") or another "window" of the clip."""
        session = self.context.session(request)
        if "window" in data:
            session.open_clip.select_window(data["window"])
            session.clear_window_results()
        else:
            is_latest = session.begin_opening()
            clip = self.context.load(data)
            if not is_latest():  # a small file is decoded before a large one that came first
                raise AudioError("Another recording has been opened meanwhile.")
            session.open(clip)
        return _window_payload(self.context, session.open_clip)


def _tokens(trace: ShapeTrace, dimensions: ModelDimensions) -> str:
    """How many of audio, at what rate, and how many of padding: of one window."""
    (window,) = trace.windows
    if not dimensions.has_language_model:
        return "none"
    padding = f", and {window.padding_tokens} of padding" * (window.padding_tokens > 0)
    rate_hz = dimensions.rate_hz(Tap(Stage.PROJECTOR))
    return f"{window.audio_tokens}, {rate_hz:g} a second{padding}"


def _window_payload(context: AppContext, clip: Clip) -> dict[str, Any]:
    """The selected window of a clip, as the page draws and plays it."""
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
    facts = [
        ("duration", f"{waveform.duration_seconds:.2f} s"),
        ("source", f"{waveform.source_format}, {waveform.source_rate_hz} Hz, {channels}"),
        ("model input", "16000 Hz, mono"),
        ("mel frames", f"{trace.windows[0].mel_frames}, one per 10 ms"),
        ("audio tokens", _tokens(trace, model.dimensions)),
    ]
    if len(waveform.tracks) > 1:
        facts.insert(2, ("audio tracks", f"{len(waveform.tracks)}; used: {waveform.track}"))
    return {
        "name": clip.name,
        "windows": [[each.start_seconds, each.end_seconds] for each in clip.windows],
        "window": clip.window_index,
        "start": window.start_seconds,
        "end": window.end_seconds,
        "facts": facts,
        "wav": wav_base64(selected.samples),
        "mel": heat_map(mel.data),
        "mel_hz": [float(hz) for hz in getattr(model, "mel_hz", ())] or None,
        "note": "This recording is silent. The model still answers questions about it, but its "
        "answers have no basis."
        if clip.is_silent
        else None,
    }
