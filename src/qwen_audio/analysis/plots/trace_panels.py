"""The panel of a Trace: shares by tap and span."""

from __future__ import annotations

from functools import partial

from qwen_audio.analysis.trace import Trace

from .panels import Image, Panel, PanelBuilders, named_axis, short_name

__all__ = ["trace_heading", "trace_panels"]

_MAX_CELLS_WITH_TEXT = 34


def trace_heading(trace: Trace) -> tuple[str, str]:
    """Title, and a subtitle with the answers and their differences."""
    one, two = (short_name(name) for name in trace.names)
    first, second = (text if len(text) <= 40 else f"{text[:39]}…" for text in trace.answers)
    subtitle = (
        f"log p(“{first}”) − log p(“{second}”): {trace.difference_a:+.2f} → "
        f"{trace.difference_b:+.2f} nats · {trace.dtype}"
    )
    return f"{one} with the rows of {two}", subtitle


def trace_panels(trace: Trace) -> PanelBuilders:
    """The heat map."""
    return {"shares": partial(_shares, trace)}


def _shares(trace: Trace) -> list[Panel]:
    names = [f"{span} ({count})" for span, count in zip(trace.spans, trace.positions, strict=True)]
    texts = [[f"{value:.2f}" for value in row] for row in trace.share]
    hover = [[f"{value:+.3f} nats" for value in row] for row in trace.difference]
    image = Image(
        trace.share,
        "Share",
        scale="signed",
        limits=(-1.0, 1.0),
        texts=texts if len(trace.taps) <= _MAX_CELLS_WITH_TEXT else None,
        hover=hover,
    )
    return [
        Panel(
            "Share of the way from the first recording's answer (0) to the second's (1)",
            0.26 * max(len(trace.taps), 6) + 0.5,
            named_axis(names, "Patched rows (positions)", len(names)),
            named_axis(trace.taps, "Tap", 40),
            (image,),
        )
    ]
