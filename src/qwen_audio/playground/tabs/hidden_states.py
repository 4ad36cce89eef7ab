"""Hidden states tab: the rows of one tap, their cost, and the logit lens."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from qwen_audio import HiddenStates, Stage, View, Waveform
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import colour_strip, heat_map
from qwen_audio.playground.sessions import Clip

__all__ = ["HiddenStatesTab", "hidden_states_at"]

_HEAT_MAP_COLUMNS, _SIMILARITY_COLUMNS, _MAX_DIMENSIONS = 750, 240, 512
"""Resolution of the heat map and of the self-similarity matrix: about that of a screen."""
_MAX_DEVIATIONS = 2.5
"""Standard deviations, per dimension over time, at the ends of the colour scale."""
_CACHE_SHARE = 16
"""All taps are computed at once and cached if they take at most memory_bytes / 16."""
_LENS_SEGMENTS = 12


class HiddenStatesTab:
    """Request handlers of the Hidden states tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def view(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The rows of one "tap" as images, with its shape and cost."""
        context, clip = self.context, self.context.session(request).open_clip
        tap = context.model.dimensions.tap(str(data.get("tap")))
        states = hidden_states_at(context, clip, str(tap))
        view = View.of(states, clip.name, columns=_HEAT_MAP_COLUMNS)
        similarity = View.of(states, clip.name, columns=_SIMILARITY_COLUMNS).similarity
        window = clip.window_waveform
        trace = context.run_on_model_thread(lambda: context.model.inspect(window)).result()
        summary = next(each for each in trace.taps if each.tap == str(tap))
        is_mel = tap.stage is Stage.MEL
        return {
            "tap": str(tap),
            "start": clip.window.start_seconds,
            "end": clip.window.end_seconds,
            "shape": list(states.data.shape),
            "rate_hz": summary.rate_hz,
            "hop_seconds": states.hop_seconds,
            "width": summary.width,
            "weight_bytes": summary.read_bytes,
            "row_bytes": states.data.nbytes,
            "positions": tap.in_language_model,
            "seconds": clip.tap_seconds.get(str(tap)),
            "heat_map": heat_map(view.rows) if is_mel else _deviation_map(view),
            "signed": not is_mel,
            "colours": colour_strip(view.colours),
            "similarity": heat_map(similarity, float(similarity.min()), 1.0),
        }

    @report_errors
    def time_tap(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Seconds from samples to the rows of one "tap", measured by computing just these."""
        clip = self.context.session(request).open_clip
        tap = str(self.context.model.dimensions.tap(str(data.get("tap"))))
        if tap not in clip.tap_seconds:
            window, tap_seconds = clip.window_waveform, clip.tap_seconds
            timing = self.context.run_on_model_thread(lambda: _timed(self.context, window, tap))
            tap_seconds[tap] = timing.result()[1]
        return {"tap": tap, "seconds": clip.tap_seconds.get(tap)}

    @report_errors
    def lens(self, _: dict[str, Any], request: Any) -> dict[str, Any]:
        """Logit lens: the most probable token at every layer of the language model, over time."""
        context, session = self.context, self.context.session(request)
        clip = session.open_clip
        window = clip.window_waveform
        lens = context.run_on_model_thread(lambda: context.model.lens(window)).result()
        session.results["lens"] = lens
        start = clip.window.start_seconds
        return {
            "taps": [str(tap) for tap in lens.taps],
            "segments": [
                {
                    "start": start + segment.start_seconds,
                    "end": start + segment.end_seconds,
                    "tokens": list(segment.words),
                    "probabilities": list(map(float, segment.probabilities)),
                }
                for segment in lens.steps(_LENS_SEGMENTS)
            ],
        }


def hidden_states_at(context: AppContext, clip: Clip, tap: str) -> HiddenStates:
    """The rows of a tap for the selected window, from the cache or the model.

    All taps are computed in one pass and cached if memory allows, otherwise only this one.
    """
    if tap not in clip.hidden_states:
        return context.run_on_model_thread(lambda: _compute(context, clip, tap)).result()
    return clip.hidden_states[tap]


def _compute(context: AppContext, clip: Clip, tap: str) -> HiddenStates:
    cache, tap_seconds, window = clip.hidden_states, clip.tap_seconds, clip.window_waveform
    if tap in cache:  # computed for another request meanwhile
        return cache[tap]
    summaries = context.model.inspect(window).taps
    nbytes = sum(4 * summary.rows * summary.width for summary in summaries)
    if nbytes <= context.limits.memory_bytes // _CACHE_SHARE:
        cache |= context.model.activations(window, taps=[summary.tap for summary in summaries])
    else:
        cache.clear()
        states, tap_seconds[tap] = _timed(context, window, tap)
        cache |= states
    return cache[tap]


def _timed(
    context: AppContext, window: Waveform, tap: str
) -> tuple[Mapping[str, HiddenStates], float]:
    """The rows of a tap, and the seconds that computing them took."""
    start = time.perf_counter()
    states = context.model.activations(window, taps=[tap])
    return states, time.perf_counter() - start


def _deviation_map(view: View) -> dict[str, Any]:
    """Every dimension in its own standard deviations, since a few large ones would hide the rest.

    Of wide rows every n-th dimension, at most 512.
    """
    stride = -(-view.rows.shape[1] // _MAX_DIMENSIONS)
    return heat_map(view.deviations[:, ::stride], -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
