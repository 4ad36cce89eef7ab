"""Colours and fonts of the light and the dark theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from qwen_audio.errors import OptionError

__all__ = ["Theme", "ThemeName", "matplotlib_settings", "theme_of"]

ThemeName: TypeAlias = Literal["light", "dark"]
PlotlyScale: TypeAlias = str | tuple[tuple[float, str], ...]

_BERLIN: PlotlyScale = (
    *((0.0, "#9eb0ff"), (0.25, "#2f6e8a"), (0.5, "#11191e")),
    *((0.75, "#7a2d10"), (1.0, "#ffacac")),
)
"""matplotlib's colour map of that name, which plotly lacks."""


@dataclass(frozen=True)
class Theme:
    """Colours in CSS notation, and colour scales.

    Attributes:
        paper, ink, faint: background, text, and grids and frames.
        accent, mark: curves; what is emphasised.
        matplotlib_scales: names of the sequential, the signed and the spectrogram's colour map.
        plotly_scales: the same, or nearly, for plotly.
    """

    paper: str
    ink: str
    faint: str
    accent: str
    mark: str
    matplotlib_scales: dict[str, str]
    plotly_scales: dict[str, PlotlyScale]

    def line_colour(self, colour: str | None) -> str:
        """Of a Line: None is the accent, "mark" what is emphasised; else a colour itself."""
        return {None: self.accent, "mark": self.mark}.get(colour, colour or "")


_THEMES: dict[str, Theme] = {
    "light": Theme(
        *("#ffffff", "#1b1f24", "#8a929c", "#2f6fdb", "#c2410c"),
        {"sequential": "YlGnBu", "signed": "RdBu_r", "magma": "magma"},
        {"sequential": "YlGnBu", "signed": "RdBu_r", "magma": "Magma"},
    ),
    "dark": Theme(
        *("#14171c", "#e6e9ee", "#7d8794", "#7fb2ff", "#ffb35c"),
        {"sequential": "magma", "signed": "berlin", "magma": "magma"},
        {"sequential": "Magma", "signed": _BERLIN, "magma": "Magma"},
    ),
}


def theme_of(name: str) -> Theme:
    """The theme of a name. Raises OptionError for any other name."""
    if name not in get_args(ThemeName):
        raise OptionError(f"theme={name!r}: use one of {', '.join(get_args(ThemeName))}")
    return _THEMES[name]


def matplotlib_settings(theme: Theme) -> Any:
    """matplotlib's rc settings in a theme."""
    names = ("text.color", "xtick.color", "ytick.color", "axes.titlecolor", "axes.labelcolor")
    return {
        **dict.fromkeys(names, theme.ink),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), theme.paper),
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "text.parse_math"), False),
        "axes.edgecolor": theme.faint,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "image.aspect": "auto",
    }
