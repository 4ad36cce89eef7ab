"""Scores by depth: one panel a target, as a picture (PNG, SVG, PDF) and as an interactive page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.analysis.plots.theme import Theme, ThemeName, theme_of
from qwen_audio.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["depth_page", "depth_picture"]

_COLOURS: dict[ThemeName, tuple[str, ...]] = {
    "light": (
        *("#0b6e99", "#d1495b", "#5b8c5a", "#8d6cab", "#c77f1b"),
        *("#4a4e69", "#17a2a2", "#a0522d", "#d977b0", "#7a7a00"),
    ),
    "dark": (
        *("#5cc0ee", "#ff8b96", "#8fce8c", "#c3a1e6", "#f2b65a"),
        *("#aab0d8", "#5fd8d8", "#e0a080", "#f2a5d3", "#cdcd55"),
    ),
}
_MARKERS = (("o", "circle"), ("s", "square"), ("^", "triangle-up"))
"""As matplotlib and as plotly call them: the next where there are more lines than colours."""
_MOST_BANDS = 4
"""Of more lines' intervals nothing could be told."""
_METRICS = {"accuracy": "accuracy", "r2": "R²"}


@dataclass(frozen=True, eq=False)
class _Line:
    """One line of a panel: the same probe, pooling and span at every tap, shallowest first."""

    name: str
    colour: str
    marker: tuple[str, str]
    rows: pd.DataFrame
    weighted: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Panel:
    target: str
    metric: str
    about: str
    taps: list[str]
    lines: list[_Line]


def _panels(scores: pd.DataFrame, colours: Sequence[str]) -> Iterator[_Panel]:
    """Names leave out what is the same in all lines."""
    keys = ["probe", "pooling", "span"]
    plain = ~scores["tap"].str.startswith("weighted")
    depth = {tap: place for place, tap in enumerate(dict.fromkeys(scores["tap"][plain]))}
    telling = [key for key in keys if scores[key].nunique() > 1]
    for target, of_target in scores.groupby("target", sort=False):
        first = of_target.iloc[0]
        lines = []
        for number, (values, rows) in enumerate(of_target.groupby(keys, sort=False)):
            parts = dict(zip(keys, values, strict=True))
            name = ", ".join(
                f"over {parts[key]}" if key == "span" else str(parts[key])
                for key in telling or ["probe"]
            )
            weighted = rows["tap"].str.startswith("weighted")
            by_depth = rows[~weighted].sort_values("tap", key=lambda taps: taps.map(depth))
            turn, place = divmod(number, len(colours))
            marker = _MARKERS[turn % len(_MARKERS)]
            lines.append(_Line(name, colours[place], marker, by_depth, rows[weighted]))
        kind = f"{first['classes']} classes" if first["classes"] else "a quantity"
        taps = sorted(set(of_target["tap"][plain.loc[of_target.index]]), key=depth.__getitem__)
        about = f"{kind}, {first['recordings']} recordings"
        yield _Panel(str(target), _METRICS[first["metric"]], about, taps, lines)


def depth_picture(
    scores: pd.DataFrame, path: str | Path, title: str = "", *, theme: ThemeName = "light"
) -> None:
    """Write a chart of `probe`'s scores: bands are 95 % intervals, stars are layers combined.

    Args:
        scores: what `probe` gave.
        theme: "light" or "dark".

    Raises:
        OptionError: for an unknown theme.
        MissingExtraError: without the extra [probe].
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a chart", "probe") from error

    shades = theme_of(theme)
    panels = list(_panels(scores, _COLOURS[theme]))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (7.8 * columns, 4.1 * rows + 0.5)
    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor=shades.paper)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, shades)
        _explain(axis, shades)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=12, color=shades.ink)
    figure.savefig(path)


def _draw(axis: Any, panel: _Panel, theme: Theme) -> None:
    place = {tap: x for x, tap in enumerate(panel.taps)}
    end = len(panel.taps)
    for line in panel.lines:
        x = [place[tap] for tap in line.rows["tap"]]
        if len(panel.lines) <= _MOST_BANDS:
            axis.fill_between(
                x, line.rows["low"], line.rows["high"], color=line.colour, alpha=0.15, lw=0
            )
        style: dict[str, Any] = {"marker": line.marker[0], "ms": 4.5, "lw": 1.8}
        axis.plot(x, line.rows["score"], color=line.colour, label=line.name, **style)
        axis.plot(x, line.rows["control"], ":", color=line.colour, lw=1.3)
        for number, (_, row) in enumerate(line.weighted.iterrows()):
            error = [[row["score"] - row["low"]], [row["high"] - row["score"]]]
            axis.errorbar(
                end + number, row["score"], error, fmt="*", color=line.colour, ms=10, lw=1
            )
    weighted = list(dict.fromkeys(tap for line in panel.lines for tap in line.weighted["tap"]))
    baseline = panel.lines[0].rows["baseline"].iloc[0]
    axis.axhline(baseline, color=theme.faint, lw=1, ls="--", zorder=0)
    names = [*panel.taps, *weighted]
    axis.set_facecolor(theme.paper)
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(labelsize=9, colors=theme.ink)
    axis.set_ylabel(panel.metric, color=theme.ink)
    axis.set_title(f"{panel.target}  ({panel.about})", loc="left", fontsize=11, color=theme.ink)
    lowest = min(min(line.rows["control"].min(), line.rows["low"].min()) for line in panel.lines)
    axis.set_ylim(min(0.0, max(-0.5, lowest - 0.03)), 1.02)
    axis.grid(axis="y", color=theme.faint, alpha=0.3, lw=0.8)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.faint)


def _explain(axis: Any, theme: Theme) -> None:
    """A legend of the lines, and of what is grey: beside the panel, where it hides nothing."""
    from matplotlib.lines import Line2D

    handles, labels = axis.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=theme.faint, ls=":", lw=1.3),
        Line2D([], [], color=theme.faint, ls="--", lw=1),
    ]
    labels += ["shuffled labels", "baseline"]
    style: dict[str, Any] = {"fontsize": 8.5, "frameon": False, "labelcolor": theme.ink}
    axis.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.0, 1.0), **style)


def depth_page(
    scores: pd.DataFrame, path: str | Path, title: str = "", *, theme: ThemeName = "light"
) -> None:
    """Write the same as one HTML file that needs nothing else: hover for numbers.

    Args:
        scores: what `probe` gave.
        theme: "light" or "dark".

    Raises:
        OptionError: for an unknown theme.
        MissingExtraError: without the extra [probe].
    """
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtraError("a page", "probe") from error

    shades = theme_of(theme)
    panels = list(_panels(scores, _COLOURS[theme]))
    height = 130 + 360 * len(panels)
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        subplot_titles=[f"<b>{panel.target}</b>  ({panel.about})" for panel in panels],
        vertical_spacing=110 / height,
    )
    for row, panel in enumerate(panels, start=1):
        name = f"legend{row}" if row > 1 else "legend"  # each panel has one of its own
        for line in panel.lines:
            for trace in _traces(line, banded=len(panel.lines) <= _MOST_BANDS):
                figure.add_trace(trace.update(legend=name), row=row, col=1)
        figure.add_hline(
            y=panel.lines[0].rows["baseline"].iloc[0],
            line={"color": shades.faint, "dash": "dash", "width": 1},
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=panel.metric, row=row, col=1)
        top = figure.get_subplot(row, 1).yaxis.domain[1]
        figure.update_layout({name: {"y": top, "yanchor": "top", "x": 1.01}})
    figure.update_annotations(x=0, xanchor="left", font={"size": 14})
    grid = {"gridcolor": f"{shades.faint}55", "zerolinecolor": f"{shades.faint}55"}
    figure.update_xaxes(**grid)
    figure.update_yaxes(**grid)
    figure.update_layout(
        title={
            "text": title + "<br><sub>dotted: shuffled labels; dashed: baseline; ★ layers "
            "combined; bands: 95 % (hover for numbers)</sub>"
        },
        paper_bgcolor=shades.paper,
        plot_bgcolor=shades.paper,
        font={"color": shades.ink, "family": "system-ui, sans-serif"},
        height=height,
        margin={"t": 120},
    )
    text = figure.to_html(include_plotlyjs=True, config={"displaylogo": False})
    plain = "<body>"
    coloured = f'<body style="margin: 0; background: {shades.paper}">'
    Path(path).write_text(text.replace(plain, coloured, 1), encoding="utf-8")


def _traces(line: _Line, *, banded: bool) -> Iterator[Any]:
    """A line with its interval, its layers combined, and its control."""
    import plotly.graph_objects as go

    taps = list(line.rows["tap"])
    shared = {"legendgroup": line.name, "name": line.name}
    silent = {**shared, "hoverinfo": "skip", "showlegend": False}
    if banded:
        yield go.Scatter(
            x=[*taps, *taps[::-1]],
            y=[*line.rows["high"], *line.rows["low"][::-1]],
            fill="toself",
            fillcolor=line.colour,
            opacity=0.15,
            line={"width": 0},
            mode="lines",
            **silent,
        )
    marker: dict[str, Any] = {"symbol": line.marker[1], "size": 7, "color": line.colour}
    star = {"symbol": "star", "size": 12, "color": line.colour}
    for rows, style in (
        (line.rows, {"mode": "lines+markers", "marker": marker}),
        (line.weighted, {"mode": "markers", "marker": star}),
    ):
        yield go.Scatter(
            x=rows["tap"],
            y=rows["score"],
            line={"color": line.colour, "width": 2},
            showlegend=rows is line.rows,
            customdata=rows[["low", "high", "baseline", "control"]],
            hovertemplate="%{x}: <b>%{y:.3f}</b> (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
            "<br>baseline %{customdata[2]:.3f}, shuffled %{customdata[3]:.3f}",
            **shared,
            **style,
        )
    dotted = {"color": line.colour, "dash": "dot", "width": 1.5}
    yield go.Scatter(x=taps, y=line.rows["control"], mode="lines", line=dotted, **silent)
