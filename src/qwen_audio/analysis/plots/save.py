"""Figures → files: images by matplotlib, offline HTML pages by plotly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwen_audio.analysis.files import PLOT_SUFFIXES, atomic_write, check_output_path

from . import matplotlib_renderer, plotly_renderer
from .figure_spec import Plottable, figure_spec
from .panels import FigureSpec
from .theme import ThemeName, theme_of

__all__ = ["save_figure", "save_plot"]


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
    return save_figure(figure_spec(result, panels), path, theme=theme)


def save_figure(
    spec: FigureSpec, path: str | Path, *, theme: ThemeName, extra: str = "plot"
) -> Path:
    """Write a figure as its path's suffix says. Raises as `save_plot` does."""
    target, colours = check_output_path(path, PLOT_SUFFIXES), theme_of(theme)
    if target.suffix.lower() != ".html":
        image = matplotlib_renderer.render(spec, colours, extra=extra)
        return atomic_write(target, lambda path: matplotlib_renderer.save_image(image, path))
    figure = plotly_renderer.render(spec, colours, extra=extra)
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,  # 4.5 MB
        config={"responsive": True, "displaylogo": False},
        default_height=f"{figure.layout.height}px",
        div_id="figure",  # else a random one
    )
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{figure.layout.title.text}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
        f'<body style="margin: 0; background: {colours.paper}">{body}</body></html>\n'
    )
    return atomic_write(target, lambda path: path.write_text(text, encoding="utf-8"))
