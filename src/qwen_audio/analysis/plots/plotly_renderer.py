"""Panels → an interactive plotly figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.errors import MissingExtraError

from .figure_spec import Plottable, figure_spec
from .panels import Axis, Cells, ColourStrip, Envelope, FigureSpec, Heatmap, Line, Panel
from .theme import Theme, ThemeName, theme_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["plot_interactive", "render"]

_PIXELS_PER_INCH = 115
_BETWEEN_PIXELS = 84
"""From one panel to the next: tick labels, an axis label and a title."""
_HEATMAP_COLUMNS, _HEATMAP_ROWS = 1000, 512
"""More make a page large and no clearer: of more every second, third, … is shown."""
_SQUARE_COLUMNS = 500


def plot_interactive(
    result: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> go.Figure:
    """The same panels as `plot` draws, to hover over and zoom into.

    Heat maps show at most 1,000 columns and 512 rows, squares 500 × 500: of more every second,
    third, ….

    Raises:
        OptionError: for an unknown panel or theme, or a panel without data.
        MissingExtraError: without plotly.
    """
    return render(figure_spec(result, panels), theme_of(theme))


def render(spec: FigureSpec, theme: Theme) -> go.Figure:
    """Draw panels one below another."""
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtraError("an interactive plot", "look") from error
    panels = spec.panels
    heights = [_PIXELS_PER_INCH * panel.height_inches for panel in panels]
    total = sum(heights) + _BETWEEN_PIXELS * len(panels) + 60
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        subplot_titles=[escaped(panel.title) for panel in panels],
        row_heights=heights,
        vertical_spacing=min(_BETWEEN_PIXELS / total, 0.9 / max(1, len(panels) - 1)),
    )
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    timed = [row for row, panel in enumerate(panels, start=1) if panel.x.is_time]
    for row, panel in enumerate(panels, start=1):
        figure.add_trace(_trace(panel, theme), row=row, col=1)
        _decorate(figure, panel, row, theme)
        if panel.x.is_time:  # one time axis: zooming one panel zooms all
            figure.update_xaxes(matches=f"x{timed[0]}" if timed[0] > 1 else "x", row=row)
    _place_colour_bars(figure)
    figure.update_layout(
        title={
            "text": escaped(spec.title),
            "subtitle": {"text": escaped(spec.subtitle)},
            "x": 0.01,
            "xanchor": "left",
        },
        height=total,
        margin={"l": 90, "r": 30, "t": 100, "b": 60},
        paper_bgcolor=theme.paper,
        plot_bgcolor=theme.paper,
        font={"color": theme.ink, "family": "system-ui, sans-serif", "size": 12},
        showlegend=False,
        bargap=0,
    )
    grid = {"gridcolor": f"{theme.faint}55", "zerolinecolor": theme.faint}
    figure.update_xaxes(**grid)
    figure.update_yaxes(**grid)
    return figure


def escaped(text: str) -> str:
    """A text that plotly does not take for HTML; line ends become spaces."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\n", " ")


def _trace(panel: Panel, theme: Theme) -> Any:
    import plotly.graph_objects as go

    mark = panel.mark
    x_text = "%{x:.2f} s" if panel.x.is_time else "%{x}"
    start, stop = panel.x.limits or (0.0, 1.0)
    if isinstance(mark, Heatmap):
        return _heatmap(panel, mark, theme, x_text)
    if isinstance(mark, Cells):
        return _cells(panel, mark, theme)
    if isinstance(mark, ColourStrip):
        count = len(mark.colours)
        width = (stop - start) / count
        shades = [f"rgb({r},{g},{b})" for r, g, b in (255 * mark.colours).astype(int)]
        return go.Bar(
            x=start + (np.arange(count) + 0.5) * width,
            y=np.ones(count),
            width=width,
            marker={"color": shades, "line": {"width": 0}},
            hovertemplate=f"{x_text}<extra></extra>",
        )
    if isinstance(mark, Envelope):
        x = np.repeat(np.linspace(start, stop, len(mark.low), endpoint=False), 2)
        y = np.stack([mark.low, mark.high], axis=1).ravel()
        style: dict[str, Any] = {"line": {"color": theme.accent, "width": 1.3}}
        return go.Scatter(x=x, y=y, hovertemplate=f"{x_text}<br>%{{y:.3f}}<extra></extra>", **style)
    return _line(panel, mark, theme, x_text)


def _line(panel: Panel, mark: Line, theme: Theme, x_text: str) -> Any:
    import plotly.graph_objects as go

    style: dict[str, Any] = {"line": {"color": theme.accent, "width": 1.3}}
    if mark.low is not None and mark.high is not None:
        below, above = mark.y - mark.low, mark.high - mark.y
        style["error_y"] = {"array": above, "arrayminus": below, "color": theme.faint}
    if mark.markers:
        colours = [theme.accent] * len(mark.y)
        if mark.highlight is not None:
            colours[mark.highlight] = theme.mark
        style |= {"mode": "lines+markers", "marker": {"color": colours}}
    return go.Scatter(
        x=list(panel.x.names) if panel.x.names else mark.x,
        y=mark.y,
        hovertemplate=f"{x_text}<br>{escaped(panel.y.label)} %{{y:.3f}}<extra></extra>",
        **style,
    )


def _heatmap(panel: Panel, mark: Heatmap, theme: Theme, x_text: str) -> Any:
    import plotly.graph_objects as go

    most = _SQUARE_COLUMNS if panel.placement == "square" else _HEATMAP_COLUMNS
    across = max(1, -(-mark.values.shape[1] // most))
    down = max(1, -(-mark.values.shape[0] // min(most, _HEATMAP_ROWS)))
    low, high = mark.limits or (None, None)
    hover = f"{x_text}<br>{escaped(panel.y.label)} %{{y}}<br>%{{z:.3f}} {escaped(mark.unit)}"
    texts = {}
    if mark.hover is not None:
        texts["text"] = [[escaped(text) for text in row[::across]] for row in mark.hover[::down]]
        hover += "<br>%{text}"
    return go.Heatmap(
        z=mark.values[::down, ::across],
        x=_coordinates(panel.x, mark.values.shape[1])[::across],
        y=_coordinates(panel.y, mark.values.shape[0])[::down],
        zmin=low,
        zmax=high,
        colorscale=theme.plotly_scale(mark.scale),
        colorbar={"title": {"text": escaped(mark.unit), "side": "right"}},
        hovertemplate=f"{hover}<extra></extra>",
        **texts,
    )


def _coordinates(axis: Axis, count: int) -> Any:
    """The names, or the middles, of the rows or columns of a heat map."""
    if axis.names:
        return list(axis.names)
    start, stop = axis.limits or (0, count)
    return start + (np.arange(count) + 0.5) / count * (stop - start)


def _cells(panel: Panel, mark: Cells, theme: Theme) -> Any:
    import plotly.graph_objects as go

    # Columns between the cells, without values, where there are gaps.
    edges = np.unique(np.concatenate([mark.lefts, mark.lefts + mark.widths]).round(6))
    columns = np.searchsorted(edges, mark.lefts.round(6))
    shape = (len(mark.values), len(edges) - 1)
    values = np.full(shape, np.nan)
    values[:, columns] = mark.values
    texts, hover = np.full(shape, "", object), np.full(shape, "", object)
    for row, column in np.ndindex(*mark.values.shape):
        name = escaped(mark.column_names[column])
        texts[row, columns[column]] = escaped(mark.texts[row][column])
        hover[row, columns[column]] = f"{name}: “{escaped(mark.hover[row][column])}”"
    low, high = mark.limits
    return go.Heatmap(
        z=values,
        x=edges,
        y=list(panel.y.names),
        text=texts,
        texttemplate="%{text}",
        textfont={"size": 11},  # or the longest word would make all of them small
        hovertext=hover,
        hoverongaps=False,
        zmin=low,
        zmax=high,
        colorscale=theme.plotly_scale("amounts"),
        colorbar={"title": {"text": mark.unit, "side": "right"}},
        hovertemplate="%{y}, %{hovertext} %{z:.3f}<extra></extra>",
        xgap=2,
        ygap=2,
    )


def _decorate(figure: Any, panel: Panel, row: int, theme: Theme) -> None:
    """Axes, marked positions and labels."""
    for axis, update in ((panel.x, figure.update_xaxes), (panel.y, figure.update_yaxes)):
        options: dict[str, Any] = {
            "title_text": "Time (s)" if axis.is_time else escaped(axis.label)
        }
        if axis.names:
            options["type"] = "category"
        elif axis.is_log:
            options |= {"type": "log", "dtick": "D2"}
        elif axis.limits:
            options["range"] = axis.limits
        if axis.is_reversed:
            options["autorange"] = "reversed"
        if axis.ticks is not None:
            shown = list(axis.ticks)
            options["tickvals"] = [position for position, _ in shown]
            options["ticktext"] = [escaped(text) for _, text in shown]
        update(row=row, **options)
    if isinstance(panel.mark, Cells):
        figure.update_xaxes(tickangle=0, tickfont={"size": 10}, showgrid=False, row=row)
        if panel.captions:
            title = ", then ".join(text for _, text in panel.captions)
            figure.update_xaxes(title_text=title, zeroline=False, row=row)
    if isinstance(panel.mark, ColourStrip):
        return
    for x in panel.windows:
        figure.add_vline(x, line={"color": theme.faint, "width": 1, "dash": "dot"}, row=row)
    for x in panel.sections:
        figure.add_vline(x, line={"color": theme.mark, "width": 1, "dash": "dash"}, row=row)
    top = (panel.y.limits or (0, 1))[1]
    for x, text in panel.labels:
        font = {"color": theme.mark, "size": 11}
        place = {"xanchor": "left", "yanchor": "top", "showarrow": False}
        figure.add_annotation(x=x, y=top, text=text, font=font, row=row, col=1, **place)


def _place_colour_bars(figure: Any) -> None:
    """Each heat map's colour bar beside it."""
    for trace in figure.data:
        if trace.type == "heatmap":
            low, high = figure.layout[(trace.yaxis or "y").replace("y", "yaxis")].domain
            trace.colorbar.update(y=(low + high) / 2, len=max(high - low, 0.06), thickness=12)
