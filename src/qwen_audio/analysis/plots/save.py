"""Figures → files: images by matplotlib, offline HTML pages by plotly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_audio.analysis.files import PLOT_SUFFIXES, atomic_write, check_output_path

from .figure_spec import Plottable
from .matplotlib_renderer import plot
from .plotly_renderer import plot_interactive
from .theme import ThemeName, theme_of

__all__ = ["html_page", "save_plot"]


def save_plot(
    result: Plottable,
    path: str | Path,
    panels: Sequence[str] | None = None,
    *,
    theme: ThemeName = "light",
) -> Path:
    """Write a result as .png, .svg, .pdf, or as an .html page that loads no other files.

    Args:
        result, panels, theme: see `plot`.

    Raises:
        OptionError: for another suffix, a path that can't be written to, or as `plot` does.
        MissingExtraError: without matplotlib, or plotly for a page.
    """
    target = check_output_path(path, PLOT_SUFFIXES)
    if target.suffix.lower() == ".html":
        text = html_page(result, panels, theme=theme)
        return atomic_write(target, lambda path: path.write_text(text, encoding="utf-8"))
    figure = plot(result, panels, theme=theme)
    return atomic_write(target, lambda path: figure.savefig(path, format=path.suffix[1:].lower()))


def html_page(
    result: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> str:
    """A page with the interactive plot and plotly's own code (4.5 MB)."""
    figure = plot_interactive(result, panels, theme=theme)
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        config={"responsive": True, "displaylogo": False},
        default_height=f"{figure.layout.height}px",
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{figure.layout.title.text}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>body {{ margin: 0; background: {theme_of(theme).paper}; }}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )
