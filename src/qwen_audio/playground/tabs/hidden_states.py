"""Hidden states tab: the rows of one tap as images, with their numbers and their cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from qwen_audio import HiddenStates, Stage, View, Waveform
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import colour_strip, float_array

__all__ = ["HiddenStatesTab", "hidden_states_at"]

_HEAT_MAP_COLUMNS, _SIMILARITY_COLUMNS, _MAX_DIMENSIONS = 750, 240, 512
"""Resolution of the heat map and of the self-similarity matrix: about that of a screen."""
_MAX_DEVIATIONS = 2.5
"""Standard deviations, per dimension over time, at the ends of the colour scale."""
_CACHE_SHARE = 16
"""All taps are computed at once and cached if they take at most memory_bytes / 16."""


class HiddenStatesTab:
    """Request handlers of the view of one tap."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self._known_bytes: dict[str, int] = {}

    @report_errors
    def view(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """The rows of one "tap", self-similarity, shape and cost."""
        context, clip = self.context, self.context.session(request).open_clip
        dimensions, window = context.model.dimensions, clip.window
        tap = dimensions.tap(str(data.get("tap")))
        states = hidden_states_at(context, clip, str(tap))
        view = View.of(states, clip.name, columns=_HEAT_MAP_COLUMNS)
        similarity = View.of(states, clip.name, columns=_SIMILARITY_COLUMNS).similarity
        is_mel = tap.stage is Stage.MEL
        rows = _mel_rows(context, states, clip.name) if is_mel else _standardised_rows(view, states)
        return rows | {
            "tap": str(tap),
            "start": window.start_seconds,
            "end": window.end_seconds,
            "shape": list(states.data.shape),
            "rate_hz": dimensions.rate_hz(tap),
            "hop_seconds": states.hop_seconds,
            "rows_per_column": view.frames_per_column,
            "width": dimensions.width(tap),
            "weight_bytes": self._read_bytes(str(tap)),
            "row_bytes": states.data.nbytes,
            "positions": tap.in_language_model,
            "seconds": clip.tap_seconds.get(str(tap)),
            "colours": colour_strip(view.colours),
            "similarity": float_array(similarity, half=True),
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

    def _read_bytes(self, tap: str) -> int:
        """Bytes of the weights up to a tap, asked once: a view needn't wait for the model."""
        if tap not in self._known_bytes:
            model = self.context.model
            cost = self.context.run_on_model_thread(lambda: model.cost(tap)).result()
            self._known_bytes[tap] = cost.read_bytes
        return self._known_bytes[tap]


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
    names = [summary.tap for summary in summaries]
    nbytes = sum(4 * summary.rows * summary.width for summary in summaries)
    if tap in names and nbytes <= context.limits.memory_bytes // _CACHE_SHARE:
        cache |= context.model.activations(window, taps=names)
    else:  # one inside a layer, or too many at once
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


def _mel_rows(context: AppContext, states: HiddenStates, name: str) -> dict[str, Any]:
    """The power of each mel band in dB, over time."""
    view = View.of(states, name, log_mel=states, columns=_HEAT_MAP_COLUMNS)
    decibels: Any = view.log_mel  # not None: it was given
    return {
        "values": float_array(decibels, half=True),
        "low": float(decibels.min()),
        "high": float(decibels.max()),
        "hz": [float(hz) for hz in context.model.mel_hz],
        "stride": 1,
    }


def _standardised_rows(view: View, states: HiddenStates) -> dict[str, Any]:
    """Every dimension in its own standard deviations, since a few large ones would hide the rest.

    Of wide rows every n-th dimension, at most 512. With them the dimensions' means and standard
    deviations, and the rows of the prompt, which have no time, as they are.
    """
    stride = -(-view.rows.shape[1] // _MAX_DIMENSIONS)
    answer = {
        "values": float_array(view.deviations[:, ::stride], half=True),
        "low": -_MAX_DEVIATIONS,
        "high": _MAX_DEVIATIONS,
        "means": float_array(view.rows.mean(axis=0)[::stride]),
        "standard_deviations": float_array(view.rows.std(axis=0)[::stride]),
        "stride": stride,
    }
    if states.tap.in_language_model:
        chosen = states.indices("prompt")
        answer["prompt"] = {
            "positions": [int(position) for position in chosen],
            "tokens": [states.tokens[position] for position in chosen],
            "rows": float_array(states.data[chosen][:, ::stride]),
        }
    return answer
