"""Compare tab: where in the language model the answers about two recordings come apart."""

from __future__ import annotations

from typing import Any

from qwen_audio import OptionError, Trace, Waveform
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.playground.context import AppContext, report_errors
from qwen_audio.playground.payloads import float_array

from .compare import chosen_clip

__all__ = ["TraceCard"]


class TraceCard:
    """Request handler of the card of activation patching."""

    def __init__(self, context: AppContext) -> None:
        self.context = context

    @report_errors
    def trace(self, data: dict[str, Any], request: Any) -> dict[str, Any]:
        """Patch the open part with the recording that it is compared with.

        "answers" are two texts, of the open part and of the other; without them what the model
        says of each. Both are cut to the length of the shorter one.
        """
        context, session = self.context, self.context.session(request)
        answers = _answers(data.get("answers"))
        clip = session.open_clip
        window = clip.window
        other = chosen_clip(context, session, data)
        pair = clip.window_waveform, other.window_waveform
        # In whole samples, as ends of parts are rounded to them.
        samples = min(len(waveform.samples) for waveform in pair)
        one, two = (Waveform(each.samples[:samples], each.name) for each in pair)
        trace: Trace = context.run_on_model_thread(
            lambda: context.model.trace(one, two, answers=answers)
        ).result()
        if session.clip is clip and clip.window == window:  # nothing else was opened meanwhile
            session.other_clip, session.results["trace"] = other, trace
        seconds = [len(waveform.samples) / SAMPLE_RATE_HZ for waveform in pair]
        return {
            "names": trace.names,
            "answers": trace.answers,
            "taps": trace.taps,
            "spans": trace.spans,
            "positions": trace.positions,
            "log_probabilities": trace.log_probabilities.tolist(),
            "difference": float_array(trace.difference),
            "share": float_array(trace.share),
            "prompt": trace.prompt,
            "seconds": min(seconds),
            "cut": trace.names[seconds.index(max(seconds))] if seconds[0] != seconds[1] else None,
        }


def _answers(given: Any) -> list[str] | None:
    """Two texts, or None. Raises OptionError for anything else."""
    if given is None:
        return None
    if not isinstance(given, list) or len(given) != 2:
        raise OptionError(f"answers {given!r:.60}: give two texts, one for each recording")
    texts = [str(text).strip() for text in given]
    if not any(texts):
        return None
    if not all(texts):
        raise OptionError("Type an answer for each recording, or leave both empty.")
    return texts
