"""Pictures → files: images by matplotlib, pages that work offline by plotly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_audio.analysis.files import PLOT_SUFFIXES, atomic_write, check_output_path

from .mpl_figure import plot
from .panels import Plottable
from .plotly_figure import plot_interactive
from .theme import ThemeName, theme_of

__all__ = ["page_of", "save_plot"]


def save_plot(
    thing: Plottable,
    path: str | Path,
    panels: Sequence[str] | None = None,
    *,
    theme: ThemeName = "light",
) -> Path:
    """Write what was seen as .png, .svg, .pdf, or as an .html page that needs nothing beside it.

    Args:
        thing, panels, theme: see `picture`.

    Raises:
        OptionError: for another suffix, a path that can't be written to, or as `picture` does.
        MissingExtraError: without matplotlib, or plotly for a page.
    """
    target = check_output_path(path, PLOT_SUFFIXES)
    if target.suffix.lower() == ".html":
        text = page_of(thing, panels, theme=theme)
        return atomic_write(target, lambda draft: draft.write_text(text, encoding="utf-8"))
    figure = plot(thing, panels, theme=theme)
    return atomic_write(
        target, lambda draft: figure.savefig(draft, format=target.suffix[1:].lower())
    )


def page_of(
    thing: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> str:
    """A page with `chart` in it, plotly's own code included (4.5 MB)."""
    from html import escape

    figure = plot_interactive(thing, panels, theme=theme)
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        config={"responsive": True, "displaylogo": False},
        default_height=f"{figure.layout.height}px",
    )
    colours = theme_of(theme)
    title = escape(str(figure.layout.title.text), quote=False)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>body {{ margin: 0; background: {colours.paper}; }}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )
