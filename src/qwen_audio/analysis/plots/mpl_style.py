"""What every drawing has: settings of a theme, a heading, a time axis, colour bars with units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwen_audio.audio.timecode import format_timecode

from .theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["WIDTH_INCHES", "bar", "heading", "settings_of", "time_axis"]

WIDTH_INCHES = 10.0


def settings_of(theme: Theme) -> Any:
    """What matplotlib is to draw with."""
    return {
        "text.parse_math": False,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.labelsize": 8.5,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": theme.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "image.interpolation": "auto",
        "image.aspect": "auto",
    }


def heading(figure: Figure, title: str, more: str, theme: Theme) -> None:
    """A title and, below it and smaller, what is to be known of it. The figure's size is set."""
    left, height = 0.008, figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top", "color": theme.ink}
    figure.text(left, 1 - 0.1 / height, title, fontsize=13, weight="bold", **style)
    figure.text(left, 1 - 0.38 / height, more, fontsize=8.5, **style)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, 1 - 0.6 / height))  # the panels' part


def time_axis(axes: Axes, seconds: float, *, last: bool) -> None:
    """0 to the recording's end, in seconds, or minutes where it is long."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, seconds)
    long = seconds > 120
    if long:
        steps = [1, 1.2, 2, 3, 6, 10]  # whole parts of a minute, whatever the length
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=steps))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_timecode(value)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axes.tick_params(labelbottom=last)
    if last:
        axes.set_xlabel(
            "Time (h:min:s)" if seconds >= 3600 else f"Time ({'min:s' if long else 's'})"
        )


def bar(figure: Figure, image: Any, axes: Axes, label: str, **more: Any) -> None:
    """A colour bar that says its unit, beside the axes; or in `cax`, axes of its own."""
    beside: dict[str, Any] = {"ax": axes, "pad": 0.01, "fraction": 0.035, "aspect": 12}
    place = {} if "cax" in more else beside
    shown = figure.colorbar(image, **place, **more)
    shown.set_label(label, fontsize=8)
    shown.ax.tick_params(labelsize=7)
    shown.outline.set_visible(False)
