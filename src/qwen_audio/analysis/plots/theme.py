"""Colours of the light and the dark theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from qwen_audio.errors import OptionError

__all__ = ["Theme", "ThemeName", "theme_of"]


ThemeName: TypeAlias = Literal["light", "dark"]


Scale: TypeAlias = str | tuple[tuple[float, str], ...]


_BERLIN: Scale = (
    (0.0, "#9eb0ff"),
    (0.25, "#2f6e8a"),
    (0.5, "#11191e"),
    (0.75, "#7a2d10"),
    (1.0, "#ffacac"),
)


@dataclass(frozen=True)
class Theme:
    """Colours as CSS writes them, and the names of matplotlib's colour maps."""

    paper: str
    ink: str
    faint: str
    accent: str
    mark: str
    amounts: str
    """From nothing to much."""
    signed: str
    """From one side to the other, with nothing in the middle."""
    amounts_scale: Scale
    signed_scale: Scale
    """The same two as plotly calls them, or the nearest that it has."""


_THEMES: dict[str, Theme] = {
    "light": Theme(
        "#ffffff",
        "#1b1f24",
        "#8a929c",
        "#2f6fdb",
        "#c2410c",
        "YlGnBu",
        "RdBu_r",
        "YlGnBu",
        "RdBu_r",
    ),
    "dark": Theme(
        "#14171c", "#e6e9ee", "#7d8794", "#7fb2ff", "#ffb35c", "magma", "berlin", "Magma", _BERLIN
    ),
}


def theme_of(name: str) -> Theme:
    """Raises OptionError for a name that is no theme."""
    if name not in get_args(ThemeName):
        raise OptionError(f"theme={name!r}: use one of {', '.join(get_args(ThemeName))}")
    return _THEMES[name]
