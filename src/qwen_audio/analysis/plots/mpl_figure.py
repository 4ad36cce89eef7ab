"""Pictures: a View, Lens, Layers or Comparison → a matplotlib figure, in a light or dark theme."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.comparison import Comparison
from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.plots import panels as p
from qwen_audio.analysis.similarity import LayerSimilarity
from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration
from qwen_audio.errors import MissingExtraError

from .mpl_lens import draw_lens
from .mpl_style import WIDTH_INCHES, bar, heading, settings_of, time_axis
from .mpl_view import draw_view
from .panels import Plottable, chosen_panels
from .theme import Theme, ThemeName, theme_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot"]

_ONE_AT_A_TIME = threading.Lock()
"""matplotlib's settings, which the theme is given by, are one set for all threads."""
_DOTS_PER_INCH = 120


def plot(
    thing: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> Figure:
    """Draw what was seen: 1200 pixels wide, one panel below another.

    Args:
        thing: what `view`, `lens`, `layers` or `Comparison.of` gave.
        panels: of a View: waveform, mel, heat, colours, norms, novelty, similarity, depth; of a
            Lens: words, entropy, followed, nearest. All that there are numbers for unless given.
        theme: "light" or "dark".

    Returns:
        A matplotlib Figure: `savefig` writes it. pyplot is not touched, and threads may draw.

    Raises:
        OptionError: for an unknown panel or theme, or a panel whose numbers weren't asked for.
        MissingExtraError: without matplotlib.
    """
    names, colours = chosen_panels(thing, panels), theme_of(theme)
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture", "look") from error
    with _ONE_AT_A_TIME, mpl.rc_context(settings_of(colours)):
        figure = Figure(layout="constrained", dpi=_DOTS_PER_INCH)
        engine: Any = figure.get_layout_engine()
        engine.set(h_pad=0.06, w_pad=0.06, hspace=0.02)
        if isinstance(thing, View):
            draw_view(figure, thing, names, colours)
        elif isinstance(thing, LogitLens):
            draw_lens(figure, thing, names, colours)
        elif isinstance(thing, Comparison):
            _draw_comparison(figure, thing, colours)
        else:
            _draw_layers(figure, thing, colours)
        figure.draw_without_rendering()  # text is laid out as the theme says, and not later
    return figure


def _draw_layers(figure: Figure, layers: LayerSimilarity, theme: Theme) -> None:
    count = len(layers.taps)
    side = min(WIDTH_INCHES, 2.6 + 0.5 * count)
    figure.set_size_inches(max(side, 5.5), max(side, 5.5) * 0.92)
    recordings = f"{len(layers.names)} recording{'s' * (len(layers.names) != 1)}"
    heading(
        figure,
        "How alike the taps are",
        f"{recordings}, {layers.examples} stretches of sound, {layers.dtype}",
        theme,
    )
    axes = figure.add_subplot()
    image = axes.imshow(layers.similarity, cmap=theme.amounts, vmin=0, vmax=1, aspect="equal")
    shown = p.even_share(count, 30)
    labels = [layers.taps[k] for k in shown]
    axes.set_xticks(shown, labels, rotation=90)
    axes.set_yticks(shown, labels)
    axes.set(xlabel="Tap", ylabel="Tap")
    if count <= 18:
        fills: Any = image.cmap(image.norm(layers.similarity))
        ink = fills[..., :3] @ np.array([0.3, 0.59, 0.11])
        for row, column in np.ndindex(count, count):
            value = layers.similarity[row, column]
            colour = "#000000" if ink[row, column] > 0.55 else "#ffffff"
            style = {"ha": "center", "va": "center", "fontsize": 6.5, "color": colour}
            axes.text(column, row, f"{value:.2f}".replace("0.", "."), **style)  # type: ignore[arg-type]
    bar(
        figure,
        image,
        axes,
        "Linear CKA (debiased); 1: the same up to rotation and size",
        shrink=0.8,
    )


def _draw_comparison(figure: Figure, compared: Comparison, theme: Theme) -> None:
    """Taps from shallow, below, to deep; beside each the cosine of the means."""
    count, columns = compared.by_time.shape
    end = columns * compared.column_seconds
    figure.set_size_inches(WIDTH_INCHES, 1.6 + 0.26 * max(count, 6))
    told = (
        f"{format_duration(end)} · {columns} columns of {format_duration(compared.column_seconds)}"
    )
    heading(figure, "How alike two recordings are, by depth and time", told, theme)
    axes = figure.add_subplot()
    extent = (0, end, -0.5, count - 0.5)
    image = axes.imshow(compared.by_time, origin="lower", extent=extent, cmap=theme.amounts)
    shown = p.even_share(count, 40)
    axes.set_yticks(shown, [compared.taps[k] for k in shown])
    axes.set(ylabel="Tap")
    time_axis(axes, end, last=True)
    means = axes.secondary_yaxis("right")
    means.set_yticks(shown, [f"{compared.cosines[k]:.3f}" for k in shown])
    means.set_ylabel("Cosine of the means over time")
    bar(figure, image, axes, "Cosine at each moment")
