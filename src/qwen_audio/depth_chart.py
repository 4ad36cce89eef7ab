"""Scores by depth: one panel a target, as a picture (PNG, SVG, PDF) and as an interactive page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["depth_page", "depth_picture"]

_COLOURS = ("#0b6e99", "#d1495b", "#5b8c5a", "#8d6cab", "#c77f1b", "#4a4e69")
_GREY, _DARK = "#8a8a8a", "#2b2b2b"
_STAR = {"symbol": "star", "size": 12}
_METRICS = {"accuracy": "accuracy", "r2": "R²"}


@dataclass(frozen=True, eq=False)
class _Line:
    """One line of a panel: the same probe, pooling and span at every tap, shallowest first."""

    name: str
    colour: str
    rows: pd.DataFrame
    weighted: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Panel:
    target: str
    metric: str
    about: str
    taps: list[str]
    lines: list[_Line]


def _panels(scores: pd.DataFrame) -> Iterator[_Panel]:
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
            colour = _COLOURS[number % len(_COLOURS)]
            lines.append(_Line(name, colour, by_depth, rows[weighted]))
        kind = f"{first['classes']} classes" if first["classes"] else "a quantity"
        taps = sorted(set(of_target["tap"][plain.loc[of_target.index]]), key=depth.__getitem__)
        about = f"{kind}, {first['recordings']} recordings"
        yield _Panel(str(target), _METRICS[first["metric"]], about, taps, lines)


def depth_picture(scores: pd.DataFrame, path: str | Path, title: str = "") -> None:
    """Write a chart of `probe`'s scores: bands are 95 % intervals, stars are layers combined.

    Raises:
        MissingExtraError: without the extra [probe].
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a chart", "probe") from error

    panels = list(_panels(scores))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7.2 * columns, 4.1 * rows + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
        _explain(axis)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=12, color=_DARK)
    figure.savefig(path)


def _draw(axis: Any, panel: _Panel) -> None:
    place = {tap: x for x, tap in enumerate(panel.taps)}
    end = len(panel.taps)
    for line in panel.lines:
        x = [place[tap] for tap in line.rows["tap"]]
        axis.fill_between(
            x, line.rows["low"], line.rows["high"], color=line.colour, alpha=0.15, lw=0
        )
        axis.plot(x, line.rows["score"], "o-", color=line.colour, ms=4.5, lw=1.8, label=line.name)
        axis.plot(x, line.rows["control"], ":", color=line.colour, lw=1.3)
        for number, (_, row) in enumerate(line.weighted.iterrows()):
            error = [[row["score"] - row["low"]], [row["high"] - row["score"]]]
            axis.errorbar(
                end + number, row["score"], error, fmt="*", color=line.colour, ms=10, lw=1
            )
    weighted = list(dict.fromkeys(tap for line in panel.lines for tap in line.weighted["tap"]))
    baseline = panel.lines[0].rows["baseline"].iloc[0]
    axis.axhline(baseline, color=_GREY, lw=1, ls="--", zorder=0)
    names = [*panel.taps, *weighted]
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.tick_params(labelsize=9, colors=_DARK)
    axis.set_ylabel(panel.metric, color=_DARK)
    axis.set_title(f"{panel.target}  ({panel.about})", loc="left", fontsize=11, color=_DARK)
    lowest = min(min(line.rows["control"].min(), line.rows["low"].min()) for line in panel.lines)
    axis.set_ylim(min(0.0, max(-0.5, lowest - 0.03)), 1.02)
    axis.grid(axis="y", color="#e3e3e3", lw=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _explain(axis: Any) -> None:
    """A legend of the lines, and of what is grey."""
    from matplotlib.lines import Line2D

    handles, labels = axis.get_legend_handles_labels()
    handles += [
        Line2D([], [], color=_GREY, ls=":", lw=1.3),
        Line2D([], [], color=_GREY, ls="--", lw=1),
    ]
    labels += ["shuffled labels", "baseline"]
    axis.legend(handles, labels, fontsize=8.5, framealpha=0.85, edgecolor="none", ncols=2)


def depth_page(scores: pd.DataFrame, path: str | Path, title: str = "") -> None:
    """Write the same as one HTML file that needs nothing else: hover for numbers.

    Raises:
        MissingExtraError: without the extra [probe].
    """
    try:
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise MissingExtraError("a page", "probe") from error

    panels = list(_panels(scores))
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        subplot_titles=[f"<b>{panel.target}</b>  ({panel.about})" for panel in panels],
        vertical_spacing=0.35 / max(len(panels), 1.5),
    )
    shown: set[str] = set()
    for row, panel in enumerate(panels, start=1):
        for line in panel.lines:
            for trace in _traces(line, shown=line.name not in shown):
                figure.add_trace(trace, row=row, col=1)
            shown.add(line.name)
        figure.add_hline(
            y=panel.lines[0].rows["baseline"].iloc[0],
            line={"color": _GREY, "dash": "dash", "width": 1},
            row=row,
            col=1,
        )
        figure.update_yaxes(title_text=panel.metric, row=row, col=1)
    figure.update_layout(
        title={
            "text": title + "<br><sub>dotted: shuffled labels; dashed: baseline; ★ layers "
            "combined; bands: 95 %</sub>"
        },
        template="plotly_white",
        height=130 + 360 * len(panels),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        margin={"t": 130},
    )
    figure.write_html(path, include_plotlyjs=True)


def _traces(line: _Line, *, shown: bool) -> Iterator[Any]:
    """A line with its interval, its layers combined, and its control; `shown` in the legend."""
    import plotly.graph_objects as go

    taps = list(line.rows["tap"])
    shared = {"legendgroup": line.name, "name": line.name}
    silent = {**shared, "hoverinfo": "skip", "showlegend": False}
    band = [*line.rows["high"], *line.rows["low"][::-1]]
    yield go.Scatter(
        x=[*taps, *taps[::-1]],
        y=band,
        fill="toself",
        fillcolor=line.colour,
        opacity=0.15,
        line={"width": 0},
        mode="lines",
        **silent,
    )
    for rows, style in (
        (line.rows, {"mode": "lines+markers", "marker": {"size": 7, "color": line.colour}}),
        (line.weighted, {"mode": "markers", "marker": {**_STAR, "color": line.colour}}),
    ):
        yield go.Scatter(
            x=rows["tap"],
            y=rows["score"],
            line={"color": line.colour, "width": 2},
            showlegend=shown and rows is line.rows,
            customdata=rows[["low", "high", "baseline", "control"]],
            hovertemplate="%{x}: <b>%{y:.3f}</b> (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
            "<br>baseline %{customdata[2]:.3f}, shuffled %{customdata[3]:.3f}",
            **shared,
            **style,
        )
    dotted = {"color": line.colour, "dash": "dot", "width": 1.5}
    yield go.Scatter(x=taps, y=line.rows["control"], mode="lines", line=dotted, **silent)
