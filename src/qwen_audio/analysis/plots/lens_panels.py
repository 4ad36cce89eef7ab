"""Panels of a LogitLens: the likeliest tokens, their entropy, the tracked tokens."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

import numpy as np

from qwen_audio.analysis.lens_segments import LensSegment
from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.structure import even_columns
from qwen_audio.audio.timecode import format_time

from .panels import (
    Axis,
    Image,
    Panel,
    PanelBuilders,
    evenly_spaced,
    named_axis,
    short_name,
    time_axis,
)

__all__ = ["lens_heading", "lens_panels", "short_word", "shown_words"]

_SEGMENTS, _TEXT_POSITIONS, _TIME_COLUMNS, _MAX_TAPS = 10, 6, 1000, 34
_GAP = 0.35
"""Between the audio's columns and the text's, in columns."""


def lens_heading(lens: LogitLens) -> tuple[str, str]:
    """Title, and a subtitle with the last line of the prompt that is no chat template marker."""
    lines = [line.strip() for line in re.split(r"<\|[^|]*\|>|\n", lens.prompt)]
    texts = [line for line in lines if line and line not in ("user", "assistant", "system")]
    prompt = texts[-1] if texts else lens.prompt
    prompt = prompt if len(prompt) <= 100 else f"{prompt[:99]}…"
    return f"{short_name(lens.name)}: logit lens", f"prompt: {prompt} · {lens.dtype}"


def lens_panels(lens: LogitLens) -> PanelBuilders:
    """Builders of the panels, or how to provide their data."""
    no_audio = "" if len(lens.indices("audio")) else "the span holds no audio: use 'all'"
    no_tokens = "" if lens.followed else "name words to track (tokens)"
    ids, cosines = lens.nearest_ids, lens.nearest_cosines
    title = "Entropy over the whole vocabulary"
    return {
        "words": partial(_words, lens),
        "entropy": no_audio or partial(_by_tap, lens, title, 0.45, lens.entropy_bits, "Bits"),
        "followed": no_audio or no_tokens or partial(_tracked, lens),
        "nearest": "ask for it (nearest)"
        if ids is None or cosines is None
        else partial(_nearest, lens, ids, cosines),
    }


def shown_words(lens: LogitLens, segments: int, texts: int) -> tuple[list[LensSegment], list[int]]:
    """The columns of a grid of words: segments of audio, then the last positions of text.

    Args:
        segments, texts: how many of each at most.

    Returns:
        The segments, and the indices of the text positions: of the first window, and after its
        audio where it is the only one.
    """
    stop = next((span.start for span in lens.spans if span.window > 0), len(lens.read))
    positions = [int(row) for row in lens.indices("prompt") if row < stop][-texts:]
    after = max(lens.indices("audio"), default=-1) if len(lens.windows) == 1 else -1
    return lens.steps(segments), [position for position in positions if position > after]


def short_word(token: str, most: int = 11) -> str:
    """A token's text for a cell: no marks around special tokens, blanks escaped, shortened."""
    text = _visible(token)
    if text.startswith("<|"):
        text = text.removeprefix("<|").removesuffix("|>")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _visible(token: str) -> str:
    return token.strip() or repr(token)[1:-1]


def _words(lens: LogitLens) -> list[Panel]:
    """The likeliest token, by segment of audio or position of text, and by tap."""
    levels = evenly_spaced(len(lens.taps), _MAX_TAPS)
    segments, texts = shown_words(lens, _SEGMENTS, _TEXT_POSITIONS)
    count, gap = len(segments), _GAP if segments and texts else 0.0
    best = [
        [(s.words[level], s.probabilities[level]) for s in segments]
        + [("", np.nan)] * bool(gap)
        + [lens.words(level, position)[0] for position in texts]
        for level in levels
    ]
    bounds = [s.start_seconds for s in segments] + [s.end_seconds for s in segments[-1:]]
    long = bool(bounds) and bounds[-1] > 120
    times = [format_time(bound, bounds[1] - bounds[0], as_timecode=long) for bound in bounds]
    read = [short_word(lens.read[position]) for position in texts]
    after = count + gap
    columns = [time if long else f"{time} s" for time in times[:-1]] + [""] * bool(gap) + read
    captions = [
        (count / 2, f"Time of the audio ({'min:s' if long else 's'})"),
        (after + len(texts) / 2, "Text after the audio"),
    ]
    ticks = [(float(k), time) for k, time in enumerate(times)]
    ticks += [(after + k + 0.5, word) for k, word in enumerate(read)]
    image = Image(
        np.array([[probability for _, probability in row] for row in best], float),
        "Probability",
        limits=(0.0, 1.0),
        x_edges=np.array([*range(count + 1), *(after + np.arange(not gap, len(texts) + 1))]),
        texts=[[short_word(word) if word else "" for word, _ in row] for row in best],
        hover=[
            [
                f"{column}: “{_visible(word)}”"
                for column, (word, _) in zip(columns, row, strict=True)
            ]
            for row in best
        ],
    )
    panel = Panel(
        "Likeliest next token, by time and tap; the top row is the model's output",
        0.27 * len(levels) + 0.8,
        Axis(limits=(0, after + len(texts)), ticks=tuple(ticks)),
        named_axis([str(lens.taps[level]) for level in levels], "Tap", len(levels)),
        (image,),
        captions=[captions[k] for k in range(2) if (segments, texts)[k]],
    )
    return [panel]


def _by_tap(
    lens: LogitLens,
    title: str,
    margin_inches: float,
    values: np.ndarray,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> list[Panel]:
    """Values of the audio positions by time and tap, averaged onto at most 1,000 columns."""
    audio, hop, end, count = (
        lens.indices("audio"),
        lens.row_times.hop_seconds,
        _end(lens),
        len(lens.taps),
    )
    columns = max(1, min(_TIME_COLUMNS, round(end / hop)))
    middles = lens.start_seconds[audio] + hop / 2
    rows = even_columns(values[:, audio].T, middles, np.ones(len(audio)), end, columns).T
    shown = audio[((np.arange(columns) + 0.5) / columns * len(audio)).astype(int)]
    hover = [
        [" · ".join(f"{_visible(w)} {p:.0%}" for w, p in lens.words(k, int(i))) for i in shown]
        for k in range(count)
    ]
    y = named_axis([str(tap) for tap in lens.taps], "Tap", max(5, count // 3))
    image = Image(rows, unit, limits=limits, hover=hover)
    return [Panel(title, max(0.9, 0.12 * count) + margin_inches, time_axis(end), y, (image,))]


def _end(lens: LogitLens) -> float:
    """When the last audio position ends."""
    return float(lens.end_seconds[lens.indices("audio")].max())


def _tracked(lens: LogitLens) -> list[Panel]:
    probabilities = lens.followed_probabilities
    audio = probabilities[:, lens.indices("audio")]
    panels = []
    for number, token in enumerate(lens.followed):
        more = f" (first token of {token.word!r})" * (token.label != token.word.strip())
        most = f"at most {audio[..., number].max(initial=0.0):.1%}"
        title = f"Probability of “{token.label}”{more}, {most}"
        limits = (0.0, float(audio.max(initial=0.0)) or 1.0)
        panels += _by_tap(lens, title, 0.2, probabilities[:, :, number], "Probability", limits)
    return panels


def _nearest(lens: LogitLens, ids: np.ndarray, cosines: np.ndarray) -> list[Panel]:
    """The token embedding nearest to the projector's rows: the most frequent one of a segment."""
    seconds, end = lens.start_seconds[lens.indices("audio")], _end(lens)
    count = min(_SEGMENTS, len(seconds))
    segment = np.minimum((seconds / end * count).astype(int), count - 1)
    means, texts, hover = np.full((1, count), np.nan), [""] * count, [""] * count
    for number in np.unique(segment):
        inside = segment == number
        nearest, others = (
            Counter(ids[inside, 0].tolist()),
            Counter(ids[inside, 1:].ravel().tolist()),
        )
        means[0, number] = cosines[inside, 0].mean()
        texts[number] = short_word(lens.vocabulary[nearest.most_common(1)[0][0]])
        counted = [
            " · ".join(f"{_visible(lens.vocabulary[i])} ×{n}" for i, n in tokens.most_common(5))
            for tokens in (nearest, others)
        ]
        start = number * end / count
        hover[number] = f"{format_time(start, end / count)} s: “{counted[0]}”, then {counted[1]}"
    x = time_axis(end)
    image = Image(
        means,
        "Cosine",
        limits=(0.0, max(float(cosines.max()), 1e-6)),
        x_edges=x.cell_edges(count),
        texts=[texts],
        hover=[hover],
    )
    title = "Nearest token embeddings of the audio at projector, before any layer"
    return [Panel(title, 0.8, x, Axis("", (-0.5, 0.5), ("projector",), ()), (image,))]
