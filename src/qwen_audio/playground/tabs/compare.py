"""Compare tab: cosine similarity of two recordings at every tap, over time."""

from __future__ import annotations

from typing import Any

from qwen_audio import Comparison
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import heat_map, wav_base64

from .hidden_states import hidden_states_at

__all__ = ["CompareTab"]


class CompareTab:
    """Request handlers of the Compare tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def compare(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Compare the selected window with the first window of another recording."""
        context, session = self.context, self.context.session(request)
        clip = session.open_clip
        window = clip.window
        other = context.load(data)
        taps = [str(tap) for tap in context.model.taps]
        comparison = Comparison.of(
            (hidden_states_at(context, clip, tap), hidden_states_at(context, other, tap))
            for tap in taps
        )
        if session.clip is clip and clip.window == window:  # nothing else was opened meanwhile
            session.other_clip, session.results["compare"] = other, comparison
        low, high = float(comparison.by_time.min()), float(comparison.by_time.max())
        pair = clip, other
        return {
            "names": [each.name for each in pair],
            "spans": [[each.window.start_seconds, each.window.end_seconds] for each in pair],
            "wavs": [wav_base64(each.window_waveform.samples) for each in pair],
            "taps": taps,
            "cosines": list(map(float, comparison.cosines)),
            "by_time": heat_map(comparison.by_time.T, low, high),
            "column_seconds": comparison.column_seconds,
            "values": comparison.by_time.round(3).tolist(),
        }
