"""Panels → an interactive plotly figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.html_text import plotly_text
from qwen_audio.errors import check_extra

from .figure_spec import Plottable, figure_spec
from .panels import Axis, Bars, FigureSpec, Image, Line, Panel
from .theme import Theme, ThemeName, theme_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["plot_interactive", "render"]

_PIXELS_PER_INCH = 115
_BETWEEN_PIXELS = 84
"""From one panel to the next: tick labels, an axis label and a title."""
_MAX_COLUMNS, _MAX_ROWS, _MAX_SQUARE = 1000, 512, 500
"""More make a page large and no clearer: of more every second, third, … is shown."""
_SYMBOLS = {"": None, "o": "circle", "s": "square", "^": "triangle-up", "*": "star"}


def plot_interactive(
    result: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> go.Figure:
    """The same panels as `plot` draws, to hover over and zoom into.

    Images show at most 1,000 columns and 512 rows, squares 500 × 500: of more every second,
    third, ….

    Raises:
        OptionError: for an unknown panel or theme, or a panel without data.
        MissingExtraError: without plotly.
    """
    return render(figure_spec(result, panels), theme_of(theme))


def render(spec: FigureSpec, theme: Theme, *, extra: str = "plot") -> go.Figure:
    """Draw panels one below another. `extra` is the one that MissingExtraError names."""
    check_extra("an interactive plot", extra, "plotly")
    from plotly.subplots import make_subplots

    panels = [panel for row in spec.rows for panel in row]
    heights = [_PIXELS_PER_INCH * panel.height_inches for panel in panels]
    total = sum(heights) + _BETWEEN_PIXELS * len(panels) + 60
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        subplot_titles=[plotly_text(panel.title) for panel in panels],
        row_heights=heights,
        vertical_spacing=min(_BETWEEN_PIXELS / total, 0.9 / max(1, len(panels) - 1)),
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    grid = {"gridcolor": f"{theme.faint}55", "zerolinecolor": theme.faint}
    figure.update_xaxes(**grid)
    figure.update_yaxes(**grid)
    timed = next((row for row, panel in enumerate(panels, start=1) if panel.x.is_time), 1)
    for row, panel in enumerate(panels, start=1):
        domain = figure.get_subplot(row, 1).yaxis.domain
        legend = f"legend{row}" if row > 1 else "legend"  # each panel has one of its own
        for mark in panel.marks:
            if isinstance(mark, Image):
                traces = iter([_image(panel, mark, theme, domain)])
            elif isinstance(mark, Bars):
                traces = iter([_bars(mark).update(legend=legend)])
            else:
                traces = (trace.update(legend=legend) for trace in _lines(panel, mark, theme))
            for trace in traces:
                figure.add_trace(trace, row=row, col=1)
        figure.update_layout({legend: {"y": domain[1], "yanchor": "top", "x": 1.01}})
        figure.update_xaxes(**_axis(panel.x), row=row)
        figure.update_yaxes(**_axis(panel.y), row=row)
        _decorate(figure, panel, row, theme)
        if panel.x.is_time:  # one time axis: zooming one panel zooms all
            figure.update_xaxes(matches=f"x{timed}" if timed > 1 else "x", row=row)
    subtitle = {"text": plotly_text(spec.subtitle)}
    figure.update_layout(
        title={"text": plotly_text(spec.title), "subtitle": subtitle, "x": 0.01, "xanchor": "left"},
        height=total,
        margin={"l": 90, "r": 30, "t": 100, "b": 60},
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"color": theme.ink, "family": "system-ui, sans-serif", "size": 12},
        hoverlabel={"namelength": -1},  # shortened to 15 characters, escapes would be cut
        bargap=0,
    )
    return figure


def _hover(axis: Axis, name: str, spec: str = "") -> str:
    """The part of a hover template for one axis."""
    if axis.is_time:
        return f"%{{{name}:.2f}} s"
    return f"{plotly_text(axis.label)} %{{{name}{spec}}}" if axis.label else ""


def _lines(panel: Panel, mark: Line, theme: Theme) -> Iterator[Any]:
    import plotly.graph_objects as go

    colour = theme.line_colour(mark.colour)
    x = np.array(_names(panel.x))[mark.x] if panel.x.names else mark.x
    name = plotly_text(mark.name)
    shared = {"legendgroup": name, "name": name}
    options: dict[str, Any] = {}
    if mark.low is not None and mark.high is not None:
        if mark.style == "none":
            above, below = mark.high - mark.y, mark.y - mark.low
            options["error_y"] = {"array": above, "arrayminus": below}
        else:
            yield go.Scatter(
                x=[*x, *x[::-1]],
                y=[*mark.high, *mark.low[::-1]],
                fill="toself",
                fillcolor=colour,
                opacity=0.2,
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                **shared,
            )
    if mark.hover is not None:
        options["hovertext"] = [plotly_text(text) for text in mark.hover]
    y_text = "%{hovertext}" if mark.hover is not None else _hover(panel.y, "y", ":.3f")
    yield go.Scatter(
        x=x,
        y=mark.y,
        mode="+".join(["lines"] * (mark.style != "none") + ["markers"] * bool(mark.marker)),
        line={
            "color": colour,
            "width": mark.width,
            "dash": "dot" if mark.style == "dotted" else "solid",
        },
        marker={"symbol": _SYMBOLS[mark.marker], "size": 2 * mark.marker_size, "color": colour},
        hovertemplate=f"{_hover(panel.x, 'x')}<br>{y_text}<extra>{name}</extra>",
        showlegend=mark.in_legend,
        **shared,
        **options,
    )


def _bars(mark: Bars) -> Any:
    import plotly.graph_objects as go

    return go.Bar(
        x=mark.starts,
        width=mark.widths,
        offset=0,
        base=mark.bottoms,
        y=mark.heights,
        marker={"color": mark.colour},
        name=plotly_text(mark.name),
        hovertext=[plotly_text(text) for text in mark.hover],
        hovertemplate="%{hovertext}<extra>%{fullData.name}</extra>",
    )


def _image(panel: Panel, mark: Image, theme: Theme, domain: Sequence[float]) -> Any:
    import plotly.graph_objects as go

    rows, columns = mark.values.shape[:2]
    edges = panel.x.cell_edges(columns)
    middles = (edges[1:] + edges[:-1]) / 2
    if mark.values.ndim == 3:
        shades = [f"rgb({r},{g},{b})" for r, g, b in (255 * mark.values[0]).astype(int)]
        return go.Bar(
            x=middles,
            y=np.ones(columns),
            width=edges[1] - edges[0],
            marker={"color": shades, "line": {"width": 0}},
            hovertemplate=f"{_hover(panel.x, 'x')}<extra></extra>",
            showlegend=False,
        )
    y_edges = panel.y.cell_edges(rows)
    y = _names(panel.y) or (y_edges[1:] + y_edges[:-1]) / 2
    x = _names(panel.x) or (middles if mark.x_edges is None else mark.x_edges)
    across = -(-columns // (_MAX_SQUARE if panel.is_square else _MAX_COLUMNS))
    down = -(-rows // (_MAX_SQUARE if panel.is_square else _MAX_ROWS))
    low, high = mark.limits or (None, None)
    parts = [_hover(panel.x, "x"), _hover(panel.y, "y"), f"{plotly_text(mark.unit)} %{{z:.3f}}"]
    options: dict[str, Any] = {}
    for name, texts in (("hovertext", mark.hover), ("text", mark.texts)):
        if texts is not None:
            options[name] = [[plotly_text(text) for text in row[::across]] for row in texts[::down]]
    if mark.texts is not None:  # with a size, or the longest text would make all of them small
        options |= {"texttemplate": "%{text}", "textfont": {"size": 11}}
    if mark.x_edges is not None:
        options |= {"xgap": 2, "ygap": 2}
    return go.Heatmap(
        z=mark.values[::down, ::across],
        x=list(x[::across]) if mark.x_edges is None else x,
        y=list(y[::down]),
        zmin=low,
        zmax=high,
        colorscale=theme.plotly_scales[mark.scale],
        colorbar={
            "title": {"text": plotly_text(mark.unit), "side": "right"},
            "y": sum(domain) / 2,
            "len": max(domain[1] - domain[0], 0.06),
            "thickness": 12,
        },
        hoverongaps=False,
        hovertemplate="<br>".join(filter(None, [*parts, "%{hovertext}" * bool(mark.hover)]))
        + "<extra></extra>",
        **options,
    )


def _names(axis: Axis) -> list[str]:
    """The names of a categorical axis, which plotly shows for points; none of any other."""
    return list(map(plotly_text, axis.names))


def _axis(axis: Axis) -> dict[str, Any]:
    options: dict[str, Any] = {
        "title_text": "Time (s)" if axis.is_time else plotly_text(axis.label)
    }
    if axis.names:
        options |= {"type": "category", "categoryarray": _names(axis), "range": axis.limits}
    elif axis.is_log:
        options |= {"type": "log", "dtick": "D2"}
    else:
        options["range"] = axis.limits
    if axis.is_reversed:
        options["range"] = axis.limits[::-1]
    if axis.ticks is not None:
        options["tickvals"] = [position for position, _ in axis.ticks]
        options["ticktext"] = [plotly_text(text) for _, text in axis.ticks]
    return options


def _decorate(figure: Any, panel: Panel, row: int, theme: Theme) -> None:
    """Marked positions and labels."""
    if panel.captions:
        title = plotly_text(", then ".join(text for _, text in panel.captions))
        options = {"tickangle": 0, "tickfont": {"size": 10}, "showgrid": False, "zeroline": False}
        figure.update_xaxes(title_text=title, **options, row=row)
    for x in panel.windows:
        figure.add_vline(x, line={"color": theme.faint, "width": 1, "dash": "dot"}, row=row)
    dashed = {"color": theme.mark, "width": 1, "dash": "dash"}
    for x in panel.sections:
        figure.add_vline(x, line=dashed, row=row)
        if panel.is_square:
            figure.add_hline(x, line=dashed, row=row)
    if panel.baseline is not None:
        figure.add_hline(panel.baseline, line={**dashed, "color": theme.faint}, row=row)
    for x, text in panel.labels:
        font, top = {"color": theme.mark, "size": 11}, panel.y.limits[1]
        place = {"xanchor": "left", "yanchor": "top", "showarrow": False}
        figure.add_annotation(
            x=x, y=top, text=plotly_text(text), font=font, row=row, col=1, **place
        )
