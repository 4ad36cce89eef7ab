"""Panels of a LogitLens: the likeliest tokens, their entropy, the tracked tokens."""

from __future__ import annotations

import re

import numpy as np

from qwen_audio.analysis.logit_lens import LensSegment, LogitLens
from qwen_audio.analysis.structure import even_columns
from qwen_audio.audio.timecode import format_time

from .panels import Axis, Cells, FigureSpec, Heatmap, Panel, named_axis, short_name, time_axis

__all__ = ["LENS_PANELS", "lens_figure", "missing_lens_panels", "short_word", "shown_words"]

LENS_PANELS = ("words", "entropy", "followed", "nearest")

_SEGMENTS, _TEXT_POSITIONS, _TIME_COLUMNS, _MAX_LEVELS = 10, 6, 1000, 34
_GAP = 0.35
"""Between the audio's columns and the text's, in columns."""


def missing_lens_panels(lens: LogitLens) -> dict[str, str]:
    """The panels without data, and how to provide it."""
    missing = {}
    if not lens.followed:
        missing["followed"] = "name words to track (tokens)"
    if not len(lens.rows("audio")):
        missing |= dict.fromkeys(("entropy", "followed"), "the span holds no audio: use 'all'")
    if lens.nearest_ids is None:
        missing["nearest"] = "ask for it (nearest)"
    return missing


def lens_figure(lens: LogitLens, names: tuple[str, ...]) -> FigureSpec:
    """The panels named, which must have data."""
    panels: list[Panel] = []
    for name in names:
        if name == "words":
            panels.append(_words(lens))
        elif name == "entropy":
            title = "Entropy over the whole vocabulary"
            panels.append(_by_level(lens, name, title, 0.45, lens.entropy_bits, "Bits", None))
        elif name == "followed":
            panels += _tracked(lens)
        else:
            panels.append(_nearest(lens))
    title = f"{short_name(lens.name)}: logit lens"
    return FigureSpec(title, f"prompt: {_question(lens)} · {lens.dtype}", tuple(panels))


def shown_words(lens: LogitLens, segments: int, texts: int) -> tuple[list[LensSegment], list[int]]:
    """The columns of a grid of words: segments of audio, then the last positions of text.

    Args:
        segments, texts: how many of each at most.

    Returns:
        The segments, and the indices of the text positions: of the first window, and after its
        audio where it is the only one.
    """
    stop = next((span.start for span in lens.spans if span.window > 0), len(lens.read))
    positions = [int(row) for row in lens.rows("prompt") if row < stop][-texts:]
    after = max(lens.rows("audio"), default=-1) if len(lens.windows) == 1 else -1
    return lens.steps(segments), [position for position in positions if position > after]


def short_word(token: str, most: int = 11) -> str:
    """A token's text for a cell: no marks around special tokens, blanks escaped, shortened."""
    text = _visible(token)
    if text.startswith("<|"):
        text = text.removeprefix("<|").removesuffix("|>")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _visible(token: str) -> str:
    return token.strip() or repr(token)[1:-1]


def _question(lens: LogitLens) -> str:
    """The last line of the prompt that isn't a marker of the chat template."""
    lines = [line.strip() for line in re.split(r"<\|[^|]*\|>|\n", lens.prompt)]
    texts = [line for line in lines if line and line not in ("user", "assistant", "system")]
    last = texts[-1] if texts else lens.prompt
    return last if len(last) <= 100 else f"{last[:99]}…"


def _end_seconds(lens: LogitLens) -> float:
    return float(lens.seconds[lens.rows("audio")].max()) + lens.taps[0].hop_seconds


def _words(lens: LogitLens) -> Panel:
    """The likeliest token, by segment of audio or position of text, and by level."""
    levels = list(range(len(lens.taps)))
    step = -(-len(levels) // _MAX_LEVELS)
    levels = levels[::-1][::step][::-1]
    segments, texts = shown_words(lens, _SEGMENTS, _TEXT_POSITIONS)
    gap = _GAP if segments and texts else 0.0
    best = [
        [(s.words[level], s.probabilities[level]) for s in segments]
        + [lens.words(level, position)[0] for position in texts]
        for level in levels
    ]
    count = len(segments)
    lefts = np.arange(count + len(texts)) + gap * (np.arange(count + len(texts)) >= count)
    edges = [s.start_seconds for s in segments] + [s.end_seconds for s in segments[-1:]]
    long = bool(edges) and edges[-1] > 120
    times = [format_time(edge, edges[1] - edges[0], as_timecode=long) for edge in edges]
    read = [short_word(lens.read[position]) for position in texts]
    ticks = [(float(k), time) for k, time in enumerate(times)]
    ticks += [(count + gap + k + 0.5, word) for k, word in enumerate(read)]
    captions = []
    if segments:
        captions.append((count / 2, f"Time of the audio ({'min:s' if long else 's'})"))
    if texts:
        captions.append((count + gap + len(texts) / 2, "Text after the audio"))
    cells = Cells(
        lefts,
        np.ones(len(lefts)),
        np.array([[share for _, share in row] for row in best]).reshape(len(levels), len(lefts)),
        [[short_word(word) for word, _ in row] for row in best],
        [[_visible(word) for word, _ in row] for row in best],
        [*([f"{t} s" for t in times[:-1]] if not long else times[:-1]), *read],
        "Probability",
        (0.0, 1.0),
    )
    return Panel(
        "words",
        "Likeliest next token, by time and tap; the top row is the model's output",
        0.27 * len(levels) + 0.8,
        Axis(limits=(0, len(lefts) + gap), ticks=tuple(ticks)),
        named_axis([str(lens.taps[level]) for level in levels], "Tap", len(levels)),
        cells,
        captions=captions,
    )


def _by_level(
    lens: LogitLens,
    name: str,
    title: str,
    margin: float,
    values: np.ndarray,
    unit: str,
    limits: tuple[float, float] | None,
) -> Panel:
    """Values of the audio positions by time and level, averaged onto at most 1,000 columns."""
    audio, hop, end = lens.rows("audio"), lens.taps[0].hop_seconds, _end_seconds(lens)
    columns = max(1, min(_TIME_COLUMNS, round(end / hop)))
    middles = lens.seconds[audio] + hop / 2
    rows = even_columns(values[:, audio].T, middles, np.ones(len(audio)), end, columns).T
    chosen = audio[((np.arange(columns) + 0.5) / columns * len(audio)).astype(int)]
    count = len(lens.taps)
    hover = [
        [" · ".join(f"{_visible(w)} {p:.0%}" for w, p in lens.words(k, int(i))) for i in chosen]
        for k in range(count)
    ]
    y = named_axis([str(tap) for tap in lens.taps], "Tap", max(5, count // 3))
    height = max(0.9, 0.12 * count) + margin
    image = Heatmap(rows, unit, limits=limits, hover=hover)
    return Panel(name, title, height, time_axis(end), y, image)


def _tracked(lens: LogitLens) -> list[Panel]:
    shares = lens.followed_probabilities[:, lens.rows("audio")]
    highest = float(shares.max(initial=0.0)) or 1.0
    panels = []
    for number, token in enumerate(lens.followed):
        word = token.word.strip()
        more = "" if token.label == word else f" (first token of {token.word!r})"
        most = f"at most {shares[..., number].max(initial=0.0):.1%}"
        title = f"Probability of “{token.label}”{more}, {most}"
        values = lens.followed_probabilities[:, :, number]
        limits = (0.0, highest)
        panels.append(_by_level(lens, "followed", title, 0.2, values, "Probability", limits))
    return panels


def _nearest(lens: LogitLens) -> Panel:
    """The token embedding nearest to the projector's rows: the most frequent one of a segment."""
    ids = np.zeros((1, 1), int) if lens.nearest_ids is None else lens.nearest_ids
    cosines = np.zeros((1, 1)) if lens.nearest_cosines is None else lens.nearest_cosines
    seconds, end = lens.seconds[lens.rows("audio")], _end_seconds(lens)
    count = min(_SEGMENTS, len(seconds))
    segment = np.minimum((seconds / end * count).astype(int), count - 1)
    filled = sorted(set(segment.tolist()))
    words, hover, means = [], [], []
    for number in filled:
        inside = segment == number
        known, counts = np.unique(ids[inside, 0], return_counts=True)
        order = counts.argsort(kind="stable")[::-1][:5]
        names = [_visible(lens.vocabulary[int(known[k])]) for k in order]
        words.append(short_word(lens.vocabulary[int(known[counts.argmax()])]))
        hover.append(" · ".join(f"{n} ×{counts[k]}" for n, k in zip(names, order, strict=True)))
        means.append(float(cosines[inside, 0].mean()))
    width = end / count
    lefts = np.array(filled) * width
    cells = Cells(
        lefts,
        np.full(len(lefts), width),
        np.array([means]),
        [words],
        [hover],
        [f"{format_time(left, width)} s" for left in lefts],
        "Cosine",
        (0.0, max(float(cosines.max()), 1e-6)),
    )
    title = "Nearest token embeddings of the audio at projector, before any layer"
    y = Axis(limits=(-0.5, 0.5), names=("projector",), ticks=())
    return Panel("nearest", title, 0.8, time_axis(end), y, cells)
