"""Colours and fonts of the light and the dark theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from qwen_audio.errors import OptionError

__all__ = ["Theme", "ThemeName", "matplotlib_settings", "theme_of"]

ThemeName: TypeAlias = Literal["light", "dark"]
Scale: TypeAlias = str | tuple[tuple[float, str], ...]

_BERLIN: Scale = (
    (0.0, "#9eb0ff"),
    (0.25, "#2f6e8a"),
    (0.5, "#11191e"),
    (0.75, "#7a2d10"),
    (1.0, "#ffacac"),
)
"""matplotlib's colour map of that name, which plotly lacks."""


@dataclass(frozen=True)
class Theme:
    """Colours in CSS notation, and colour scales.

    Attributes:
        paper, ink, faint: background, text, and grids and frames.
        accent, mark: curves; what is emphasised.
        amounts, signed: matplotlib's names of a sequential and a diverging colour map.
        amounts_scale, signed_scale: the same, or nearly, for plotly.
    """

    paper: str
    ink: str
    faint: str
    accent: str
    mark: str
    amounts: str
    signed: str
    amounts_scale: Scale
    signed_scale: Scale

    def matplotlib_scale(self, scale: str) -> str:
        """The colour map of a scale: "amounts", "signed", or a map's name in lower case."""
        return {"amounts": self.amounts, "signed": self.signed}.get(scale, scale)

    def plotly_scale(self, scale: str) -> Scale:
        """The colour scale of the same name in plotly."""
        scales = {"amounts": self.amounts_scale, "signed": self.signed_scale}
        return scales.get(scale, scale.capitalize())


_THEMES: dict[str, Theme] = {
    "light": Theme(
        *("#ffffff", "#1b1f24", "#8a929c", "#2f6fdb", "#c2410c"),
        *("YlGnBu", "RdBu_r", "YlGnBu", "RdBu_r"),
    ),
    "dark": Theme(
        *("#14171c", "#e6e9ee", "#7d8794", "#7fb2ff", "#ffb35c"),
        *("magma", "berlin", "Magma", _BERLIN),
    ),
}


def theme_of(name: str) -> Theme:
    """The theme of a name. Raises OptionError for any other name."""
    if name not in get_args(ThemeName):
        raise OptionError(f"theme={name!r}: use one of {', '.join(get_args(ThemeName))}")
    return _THEMES[name]


def matplotlib_settings(theme: Theme) -> Any:
    """matplotlib's rc settings in a theme."""
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
