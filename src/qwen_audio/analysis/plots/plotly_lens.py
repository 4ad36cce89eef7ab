"""A Lens as panels of a chart: words by time and level, entropy, the words that are followed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qwen_audio.analysis.logit_lens import LensSegment, LogitLens
from qwen_audio.analysis.plots import panels as p
from qwen_audio.audio.timecode import format_time, format_timecode

from .panels import Panel, plain
from .theme import Theme

__all__ = ["lens_panels"]

_COLUMNS, _STEPS, _TEXTS = 1000, 10, 6


def lens_panels(lens: LogitLens, theme: Theme, name: str) -> list[Panel]:
    """One panel, or one for each word that is followed."""
    import plotly.graph_objects as go

    levels = [str(tap) for tap in lens.taps]
    amounts = theme.amounts_scale
    tall = 60 + 14 * len(levels)

    def over_time(values: Any, unit: str, **more: Any) -> Callable[[Any, int], None]:
        def add(figure: Any, row: int) -> None:
            columns, length = p.over_time(lens, values, _COLUMNS)
            x = (np.arange(columns.shape[1]) + 0.5) * length
            shown = {"colorscale": amounts, "colorbar": {"title": {"text": unit}}, **more}
            hover = f"%{{x:.2f}} s, %{{y}}<br>%{{z:.3f}} {unit}<br>%{{text}}<extra></extra>"
            texts = _top_words(lens, columns.shape[1])
            trace = go.Heatmap(z=columns, x=x, y=levels, text=texts, hovertemplate=hover, **shown)
            figure.add_trace(trace, row=row, col=1)
            figure.update_xaxes(title_text="Time (s)", row=row)
            figure.update_yaxes(title_text="Level", type="category", row=row)

        return add

    if name == "words":
        return [
            (
                "The likeliest next word, by time and level; top: what the model says",
                26 * len(levels) + 40,
                lambda figure, row: _words(figure, row, lens, levels, amounts),
            )
        ]
    if name == "entropy":
        title = "Uncertainty: entropy over the whole vocabulary"
        return [(title, tall, over_time(lens.entropy_bits, "bits"))]
    if name == "followed":
        highest = p.highest_followed(lens) or 1.0
        return [
            (
                f"Probability of “{plain(word.label)}”, "
                f"at most {p.highest_followed(lens, number):.1%}",
                tall,
                over_time(
                    lens.followed_probabilities[:, :, number], "probability", zmin=0, zmax=highest
                ),
            )
            for number, word in enumerate(lens.followed)
        ]

    def nearest(figure: Any, row: int) -> None:
        if lens.nearest_ids is None or lens.nearest_cosines is None:
            return
        words = [[lens.vocabulary[int(i)] for i in ids] for ids in lens.nearest_ids]
        trace = go.Scatter(
            x=lens.seconds[lens.rows("audio")],
            y=lens.nearest_cosines[:, 0],
            line={"color": theme.accent},
            text=[plain(", ".join(some)) for some in words],
            hovertemplate="%{x:.2f} s: cosine %{y:.3f}<br>%{text}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_xaxes(title_text="Time (s)", row=row)
        figure.update_yaxes(title_text="Cosine", row=row)

    return [("The audio's own nearest tokens at projector (hover for words)", 120, nearest)]


def _top_words(lens: LogitLens, columns: int) -> list[list[str]]:
    """At each level and column of time the likeliest words of the position in its middle."""
    audio = lens.rows("audio")
    chosen = audio[((np.arange(columns) + 0.5) / columns * len(audio)).astype(int)]
    return [
        [
            plain(" · ".join(f"{w.strip() or w!r} {q:.0%}" for w, q in lens.words(level, int(at))))
            for at in chosen
        ]
        for level in range(len(lens.taps))
    ]


def _start(step: LensSegment) -> str:
    return format_time(step.start_seconds, step.end_seconds - step.start_seconds)


def _words(figure: Any, row: int, lens: LogitLens, levels: list[str], amounts: Any) -> None:
    import plotly.graph_objects as go

    steps, texts = p.shown_words(lens, _STEPS, _TEXTS)
    long = bool(steps) and steps[-1].end_seconds > 120
    names = [format_timecode(s.start_seconds) if long else f"{_start(s)} s" for s in steps]
    names += [lens.read[place].strip().removeprefix("<|").removesuffix("|>") for place in texts]
    words: list[list[str]] = []
    whole: list[list[str]] = []
    shares: list[list[float]] = []
    for level in range(len(levels)):
        said = [(step.words[level], step.probabilities[level]) for step in steps]
        said += [lens.words(level, place)[0] for place in texts]
        words.append([plain(p.short_word(word)) for word, _ in said])
        whole.append([plain(word.strip() or repr(word)[1:-1]) for word, _ in said])
        shares.append([share for _, share in said])
    trace = go.Heatmap(
        z=shares,
        x=np.arange(len(names)),
        customdata=[[plain(name) for name in names]] * len(levels),
        y=levels,
        text=words,
        texttemplate="%{text}",
        textfont={"size": 11},  # or the longest word would make all of them small
        hovertext=whole,
        zmin=0,
        zmax=1,
        colorscale=amounts,
        colorbar={"title": {"text": "probability"}},
        hovertemplate="%{y}, %{customdata}: “%{hovertext}” %{z:.1%}<extra></extra>",
        xgap=2,
        ygap=2,
    )
    figure.add_trace(trace, row=row, col=1)
    figure.update_xaxes(
        title_text="Time of the audio, then the text it reads",
        tickvals=np.arange(len(names)),
        ticktext=[plain(name) for name in names],
        tickfont={"size": 10},
        tickangle=0,
        showgrid=False,
        zeroline=False,
        row=row,
    )
    figure.update_yaxes(title_text="Level", type="category", row=row)
