"""Charts: a View, Lens, Layers or Comparison → a plotly figure to hover over and zoom into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwen_audio.analysis.comparison import Comparison
from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.similarity import LayerSimilarity
from qwen_audio.analysis.view import View
from qwen_audio.errors import MissingExtraError

from .panels import Panel, Plottable, chosen_panels, plain, short_name
from .plotly_lens import lens_panels
from .plotly_view import view_panels
from .theme import Theme, ThemeName, theme_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["plot_interactive", "plotly"]

_BETWEEN = 84
"""Pixels from one panel to the next: an axis with its title, and a heading."""


def plot_interactive(
    thing: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> go.Figure:
    """The same panels as `picture` has, to hover over and zoom into.

    Heat maps show at most 500 columns and 512 dimensions (every second, third, … of more).

    Raises:
        OptionError: for an unknown panel or theme, or a panel whose numbers weren't asked for.
        MissingExtraError: without plotly.
    """
    names, colours = chosen_panels(thing, panels), theme_of(theme)
    plotly()
    from plotly.subplots import make_subplots

    makers: dict[type, Any] = {
        View: view_panels,
        LogitLens: lens_panels,
        LayerSimilarity: _layers_panels,
        Comparison: _comparison_panels,
    }
    made = [panel for name in names for panel in makers[type(thing)](thing, colours, name)]
    heights = [height for _, height, _ in made]
    total = sum(heights) + _BETWEEN * len(made) + 60
    figure = make_subplots(
        rows=len(made),
        cols=1,
        subplot_titles=[title for title, _, _ in made],
        row_heights=heights,
        vertical_spacing=min(_BETWEEN / total, 0.9 / max(1, len(made) - 1)),
    )
    for row, (_, _, add) in enumerate(made, start=1):
        add(figure, row)
    _place_bars(figure)
    end = thing.duration_seconds if isinstance(thing, View) else None
    if end is not None:  # one time axis: zooming one panel zooms all
        timed = [row for row, name in enumerate(names, start=1) if name != "depth"]
        for row in timed:
            figure.update_xaxes(
                range=[0, end], matches=f"x{timed[0]}" if timed[0] > 1 else "x", row=row
            )
    figure.update_layout(
        title={"text": _title(thing), "x": 0.01, "xanchor": "left"},
        height=total,
        margin={"l": 90, "r": 30, "t": 90, "b": 60},
        paper_bgcolor=colours.paper,
        plot_bgcolor=colours.paper,
        font={"color": colours.ink, "family": "system-ui, sans-serif", "size": 12},
        showlegend=False,
        bargap=0,
    )
    figure.update_xaxes(gridcolor=f"{colours.faint}55", zerolinecolor=colours.faint)
    figure.update_yaxes(gridcolor=f"{colours.faint}55", zerolinecolor=colours.faint)
    figure.update_annotations(x=0, xanchor="left", font={"size": 13})
    return figure


def plotly() -> None:
    """Raises MissingExtraError without plotly."""
    try:
        import plotly.graph_objects  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a chart", "look") from error


def _title(thing: Plottable) -> str:
    if isinstance(thing, LayerSimilarity):
        return f"How alike the taps are: {len(thing.names)} recordings, {thing.examples} examples"
    if isinstance(thing, Comparison):
        return "How alike two recordings are, by depth and time"
    name = plain(short_name(thing.name))
    return f"{name} at {thing.tap}" if isinstance(thing, View) else f"{name}: what would be said"


def _place_bars(figure: Any) -> None:
    """Each heat map's colour bar beside it."""
    for trace in figure.data:
        if trace.type == "heatmap" and trace.showscale is not False:
            axis = figure.layout[(trace.yaxis or "y").replace("y", "yaxis")]
            low, high = axis.domain
            trace.colorbar.update(y=(low + high) / 2, len=max(high - low, 0.06), thickness=12)


def _layers_panels(layers: LayerSimilarity, theme: Theme, _name: str) -> list[Panel]:
    import plotly.graph_objects as go

    def add(figure: Any, row: int) -> None:
        trace = go.Heatmap(
            z=layers.similarity,
            x=list(layers.taps),
            y=list(layers.taps),
            zmin=0,
            zmax=1,
            colorscale=theme.amounts_scale,
            colorbar={"title": {"text": "CKA"}},
            hovertemplate="%{x} and %{y}: %{z:.3f}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(autorange="reversed", title_text="Tap", row=row)
        figure.update_xaxes(title_text="Tap", row=row)

    return [("Linear CKA (debiased); 1: the same up to rotation and size", 600, add)]


def _comparison_panels(compared: Comparison, theme: Theme, _name: str) -> list[Panel]:
    import plotly.graph_objects as go

    count, columns = compared.by_time.shape

    def add(figure: Any, row: int) -> None:
        trace = go.Heatmap(
            z=compared.by_time,
            x=[compared.column_seconds * (column + 0.5) for column in range(columns)],
            y=list(compared.taps),
            colorscale=theme.amounts_scale,
            colorbar={"title": {"text": "Cosine"}},
            hovertemplate="%{x:.2f} s at %{y}: %{z:.3f}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(title_text="Tap", row=row)
        figure.update_xaxes(title_text="Time (s)", row=row)

    return [("Cosine at each moment", max(200, 24 * count), add)]
