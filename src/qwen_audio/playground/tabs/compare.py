"""Compare tab: two recordings at every tap, over time or aligned; which is which, swapped."""

from __future__ import annotations

from functools import partial
from typing import Any

from qwen_audio import AudioError, Comparison, Stage, Tap
from qwen_audio.analysis.alignment import Alignment, AlignmentKind, check_alignment
from qwen_audio.analysis.row_metrics import Metric, check_metric
from qwen_audio.playground.clip import Clip
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import float_array, wav_base64
from qwen_audio.playground.sessions import Session

from .hidden_states import hidden_states_at

__all__ = ["CompareTab", "chosen_clip"]

_CHOICES = frozenset({"example", "ticket", "row"})


class CompareTab:
    """Request handlers of the Compare tab."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def compare(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Compare the open part with the first window of another recording.

        That is an "example", an upload ("ticket"), a "row" of the collection, or, without any of
        them, the one of the last comparison. "metric" and "alignment" are those of
        `AudioModel.compare`. The other's audio is in the answer if it was named, or with "wav".
        """
        context, session = self.context, self.context.session(request)
        metric = check_metric(str(data.get("metric", "cosine")))
        kind = check_alignment(str(data.get("alignment", "time")))
        clip = session.open_clip
        window = clip.window
        other = chosen_clip(context, session, data)
        comparison = _comparison(context, (clip, other), metric, kind)
        if session.clip is clip and clip.window == window:  # nothing else was opened meanwhile
            session.other_clip, session.results["compare"] = other, comparison
        path, is_new = comparison.path_seconds, not _CHOICES.isdisjoint(data)
        samples = other.window_waveform.samples
        return {
            "clip": _recording(clip),
            "other": _recording(other),
            "wav": wav_base64(samples) if is_new or data.get("wav") is True else None,
            "metric": metric,
            "alignment": kind,
            "taps": comparison.taps,
            "overall": float_array(comparison.overall),
            "by_time": float_array(comparison.by_time),
            "column_seconds": comparison.column_seconds,
            "path": None if path is None else float_array(path),
            "distance": comparison.path_distance,
        }

    @report_errors
    def swap(self, _: dict[str, Any], request: Any) -> dict[str, Any]:
        """Open the recording that the open one is compared with, and compare it with that one."""
        session = self.context.session(request)
        clip, other = session.open_clip, session.other_clip
        if other is None:
            raise AudioError("There is nothing to swap: choose a recording to compare with first.")
        session.begin_opening()  # one that is being decoded was asked for before
        session.open(other)
        session.other_clip = clip
        return {"name": other.name}


def _comparison(
    context: AppContext, pair: tuple[Clip, Clip], metric: Metric, kind: AlignmentKind
) -> Comparison:
    """From the rows that are cached for both; where memory is too small for that, in one pass."""
    taps = [str(tap) for tap in context.model.taps]
    for clip in pair:
        hidden_states_at(context, clip, taps[0])  # and all others, if they fit
    if not all(tap in clip.hidden_states for clip in pair for tap in taps):
        one, two = (clip.window_waveform for clip in pair)
        work = partial(context.model.compare, one, two, metric=metric, alignment=kind)
        return context.run_on_model_thread(work).result()
    alignment = None
    if kind == "dtw":
        tower = str(Tap(Stage.AUDIO_TOWER))
        alignment = Alignment.of(*(hidden_states_at(context, clip, tower) for clip in pair))
    rows = (tuple(hidden_states_at(context, clip, tap) for clip in pair) for tap in taps)
    return Comparison.of(((one, two) for one, two in rows), metric=metric, alignment=alignment)


def chosen_clip(context: AppContext, session: Session, data: dict[str, Any]) -> Clip:
    """The recording that a request names, or the one of the last comparison.

    Raises:
        AudioError: if there is none, or it can't be decoded.
    """
    if not _CHOICES.isdisjoint(data):
        return context.load(data)
    if session.other_clip is None:
        raise AudioError("Choose a recording to compare with first.")
    return session.other_clip


def _recording(clip: Clip) -> dict[str, Any]:
    """What the page says of one of both."""
    window = clip.window
    return {
        "name": clip.name,
        "example": clip.example,
        "row": clip.row,
        "start": window.start_seconds,
        "end": window.end_seconds,
        "seconds": clip.waveform.duration_seconds,
        "is_whole": clip.window_of_many is None,
    }
