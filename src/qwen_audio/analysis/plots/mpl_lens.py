"""A Lens as a grid of words by time and level, its entropy, and the words that are followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.plots import panels as p
from qwen_audio.audio.timecode import format_time

from .mpl_style import WIDTH_INCHES, bar, heading, time_axis
from .theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_lens"]

_STEPS, _TEXTS, _COLUMNS = 10, 6, 1000
_ROW_INCHES, _MOST_LEVELS = 0.27, 34


def draw_lens(figure: Figure, lens: LogitLens, names: Sequence[str], theme: Theme) -> None:
    """The panels asked for, one below another."""
    levels = len(p.even_share(len(lens.taps), _MOST_LEVELS))
    tall = max(0.9, 0.12 * len(lens.taps))
    heights: list[float] = []
    rows: list[tuple[str, int]] = []
    for name in names:
        repeats = len(lens.followed) if name == "followed" else 1
        height = {
            "words": _ROW_INCHES * levels + 1.1,
            "entropy": tall + 0.75,
            "followed": tall + 0.35,
            "nearest": 1.1,
        }
        for number in range(repeats):
            heights.append(height[name])
            rows.append((name, number))
    figure.set_size_inches(WIDTH_INCHES, sum(heights) + 0.8)
    heading(
        figure,
        f"{p.short_name(lens.name)}: what would be said",
        f"asked: {_asked(lens)} · {lens.dtype}",
        theme,
    )
    grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
    highest = p.highest_followed(lens) if "followed" in names else 0.0
    for place, (name, number) in enumerate(rows):
        axes = figure.add_subplot(grid[place])
        if name == "words":
            _words(figure, axes, lens, theme)
        elif name == "entropy":
            _levels_over_time(axes, lens)
            image = _image(axes, lens, lens.entropy_bits, cmap=theme.amounts)
            axes.set_title("Uncertainty: entropy over the whole vocabulary")
            bar(figure, image, axes, "Bits")
            time_axis(axes, _end(lens), last=True)
        elif name == "followed":
            _levels_over_time(axes, lens)
            values = lens.followed_probabilities[:, :, number]
            image = _image(axes, lens, values, cmap=theme.amounts, vmin=0, vmax=highest or 1.0)
            word = lens.followed[number]
            more = "" if word.label == word.word.strip() else f" (first token of {word.word!r})"
            most = f"at most {p.highest_followed(lens, number):.1%}"
            axes.set_title(f"Probability of “{drawable(word.label)}”{more}, {most}")
            bar(figure, image, axes, "Probability")
            time_axis(axes, _end(lens), last=number == len(lens.followed) - 1)
        else:
            _nearest(figure, axes, lens, theme)


def drawable(text: str) -> str:
    """A text with □ where the font has no such letter; spaces and line ends made visible."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    font = get_font(fontManager.findfont(FontProperties(family="DejaVu Sans")))
    known = font.get_charmap()
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(letter if ord(letter) in known else "□" for letter in shown)


def _asked(lens: LogitLens) -> str:
    """The last line that a person would have written, without the markers around it."""
    import re

    plain = [part.strip() for part in re.split(r"<\|[^|]*\|>|\n", lens.prompt)]
    texts = [part for part in plain if part and part not in ("user", "assistant", "system")]
    last = texts[-1] if texts else lens.prompt
    return drawable(last if len(last) <= 100 else f"{last[:99]}…")


def _end(lens: LogitLens) -> float:
    return float(lens.seconds[lens.rows("audio")].max()) + lens.taps[0].hop_seconds


def _image(axes: Axes, lens: LogitLens, values: np.ndarray, **more: Any) -> Any:
    columns, length = p.over_time(lens, values, _COLUMNS)
    extent = (0, columns.shape[1] * length, -0.5, len(lens.taps) - 0.5)
    return axes.imshow(columns, origin="lower", extent=extent, interpolation="nearest", **more)


def _levels_over_time(axes: Axes, lens: LogitLens) -> None:
    shown = p.even_share(len(lens.taps), max(5, len(lens.taps) // 3))
    axes.set_yticks(shown, [str(lens.taps[k]) for k in shown])
    axes.set_ylabel("Level")


def _words(figure: Figure, axes: Axes, lens: LogitLens, theme: Theme) -> None:
    """Cells of one word each: time to the right, then the text that is read; depth upwards."""
    import matplotlib as mpl

    levels = p.even_share(len(lens.taps), _MOST_LEVELS)
    steps, texts = p.shown_words(lens, _STEPS, _TEXTS)
    gap = 0.35 if steps and texts else 0.0
    colours = mpl.colormaps[theme.amounts]
    cells: list[tuple[float, int, str, float]] = []
    for column, step in enumerate(steps):
        for row, level in enumerate(levels):
            cells.append((column, row, step.words[level], step.probabilities[level]))
    for column, position in enumerate(texts):
        for row, level in enumerate(levels):
            word, share = lens.words(level, position)[0]
            cells.append((len(steps) + gap + column, row, word, share))
    for x, y, word, share in cells:
        fill = colours(min(1.0, share))
        axes.add_patch(
            mpl.patches.Rectangle((x + 0.02, y - 0.46), 0.96, 0.92, color=fill, linewidth=0)
        )
        bright = fill[0] * 0.3 + fill[1] * 0.59 + fill[2] * 0.11
        text = drawable(p.short_word(word))
        ink = "#000000" if bright > 0.5 else "#ffffff"
        size = 7.2 if len(text) <= 8 else 6.0
        axes.text(x + 0.5, y, text, ha="center", va="center", fontsize=size, color=ink)
    width = len(steps) + gap + len(texts)
    axes.set(xlim=(0, width), ylim=(-0.5, len(levels) - 0.5), ylabel="Level")
    axes.set_yticks(range(len(levels)), [str(lens.taps[k]) for k in levels])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    edges = [step.start_seconds for step in steps] + [step.end_seconds for step in steps[-1:]]
    ticks = [float(column) for column in range(len(edges))]
    long = bool(steps) and edges[-1] > 120
    names = [format_time(edge, edges[1] - edges[0], as_timecode=long) for edge in edges]
    ticks += [len(steps) + gap + column + 0.5 for column in range(len(texts))]
    names += [drawable(p.short_word(lens.read[position])) for position in texts]
    axes.set_xticks(ticks, names, fontsize=6.8)
    unit = "min:s" if long else "s"
    below: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
    for left, count, label in (
        (0.0, len(steps), f"Time of the audio ({unit})"),
        (len(steps) + gap, len(texts), "Then the text it reads"),
    ):
        if count:
            where = (left + count / 2, 0)
            axes.annotate(label, where, (0, -18), ha="center", fontsize=8.5, **below)
    axes.set_title("The likeliest next word, by time and level; top: what the model says")
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), theme.amounts)
    bar(figure, scale, axes, "Probability")


def _nearest(figure: Figure, axes: Axes, lens: LogitLens, theme: Theme) -> None:
    """The token embeddings that the projector's rows are nearest to: one word a step."""
    import matplotlib as mpl

    if lens.nearest_ids is None or lens.nearest_cosines is None:
        return
    audio = lens.seconds[lens.rows("audio")]
    end, steps = _end(lens), min(_STEPS, len(audio))
    place = np.minimum((audio / end * steps).astype(int), steps - 1)
    highest = max(float(lens.nearest_cosines.max()), 1e-6)
    for step in sorted(set(place.tolist())):
        mine = place == step
        ids, counts = np.unique(lens.nearest_ids[mine, 0], return_counts=True)
        word = lens.vocabulary[int(ids[counts.argmax()])]
        cosine = float(lens.nearest_cosines[mine, 0].mean())
        fill = mpl.colormaps[theme.amounts](max(0.0, cosine) / highest)
        left, width = step * end / steps, end / steps
        axes.add_patch(mpl.patches.Rectangle((left, 0), width * 0.98, 1, color=fill, linewidth=0))
        ink = "#000000" if fill[0] * 0.3 + fill[1] * 0.59 + fill[2] * 0.11 > 0.5 else "#ffffff"
        text = drawable(p.short_word(word))
        axes.text(left + width / 2, 0.5, text, ha="center", va="center", fontsize=7.2, color=ink)
    axes.set(ylim=(0, 1), title="The audio's own nearest tokens at projector, before any layer")
    axes.set_yticks([])
    time_axis(axes, end, last=True)
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, highest), theme.amounts)
    bar(figure, scale, axes, "Cosine")
