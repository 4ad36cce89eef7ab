"""Plot of probe scores by depth, one panel for each target, as an image or an interactive page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qwen_audio.analysis.plots.panels import Axis, FigureSpec, Line, Panel
from qwen_audio.analysis.plots.save import save_figure
from qwen_audio.analysis.plots.theme import ThemeName, theme_of
from qwen_audio.errors import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["save_depth_plot"]

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
_MARKERS: tuple[Literal["o", "s", "^"], ...] = ("o", "s", "^")
"""The next one where there are more lines than colours."""
_MAX_BANDS = 4
"""The intervals of more lines would hide each other."""
_METRICS = {"accuracy": "accuracy", "r2": "R²", "mAP": "mean average precision"}
_LINE_KEYS = ["probe", "pooling", "span"]


def save_depth_plot(
    scores: pd.DataFrame, path: str | Path, title: str = "", *, theme: ThemeName = "light"
) -> Path:
    """Write a plot of `probe`'s scores by tap, as the path's suffix says (.png, .svg, .pdf, .html).

    Args:
        scores: returned by `probe`.
        theme: "light" or "dark".

    Raises:
        OptionError: for an unknown theme or suffix, or a path that can't be written to.
        MissingExtraError: without the extra [probe].
    """
    theme_of(theme)
    is_page = Path(path).suffix.lower() == ".html"
    panels = list(_panels(scores, _COLOURS[theme]))
    columns = 1 if is_page else min(2, len(panels))
    rows = tuple(tuple(panels[k : k + columns]) for k in range(0, len(panels), columns))
    subtitle = (
        "dotted: control; dashed: baseline; ★ layers combined; bands and bars: 95 %"
        + " (hover for numbers)" * is_page
    )
    spec = FigureSpec(title, subtitle, rows, width_inches=7.8 * columns)
    return save_figure(spec, path, theme=theme, extra="probe")


def _panels(scores: pd.DataFrame, colours: Sequence[str]) -> Iterator[Panel]:
    weighted = scores["tap"].str.startswith("weighted")
    depth = {tap: k for k, tap in enumerate(dict.fromkeys(scores["tap"][~weighted]))}
    distinct = [key for key in _LINE_KEYS if scores[key].nunique() > 1] or ["probe"]
    for target, rows in scores.groupby("target", sort=False):
        first = rows.iloc[0]
        in_target = weighted.loc[rows.index]
        taps = sorted(set(rows["tap"][~in_target]), key=depth.__getitem__)
        taps += dict.fromkeys(rows["tap"][in_target])
        groups = list(rows.groupby(_LINE_KEYS, sort=False))
        lines: list[Line] = []
        for number, (values, group) in enumerate(groups):
            keys = dict(zip(_LINE_KEYS, values, strict=True))
            name = ", ".join(f"over {keys[k]}" if k == "span" else keys[k] for k in distinct)
            turn, colour = divmod(number, len(colours))
            shared = {"name": name, "colour": colours[colour]}
            lines += _lines(
                group,
                taps,
                _MARKERS[turn % len(_MARKERS)],
                banded=len(groups) <= _MAX_BANDS,
                **shared,
            )
        lowest = min(rows["control"].min(), rows["low"].min())
        y = Axis(_METRICS[first["metric"]], (min(0.0, max(-0.5, lowest - 0.03)), 1.02))
        task = first["task"]
        noun = "label" if task == "labels" else "class"
        kind = "a quantity" if task == "quantity" else counted(first["classes"], noun, task)
        title = f"{target}  ({kind}, {counted(first['recordings'], 'recording')})"
        ticks = tuple((float(k), tap) for k, tap in enumerate(taps))
        x = Axis("Tap", (-0.5, len(taps) - 0.5), tuple(taps), ticks)
        yield Panel(title, 3.8, x, y, tuple(lines), baseline=float(first["baseline"]))


def _lines(
    rows: pd.DataFrame,
    taps: list[str],
    marker: Literal["o", "s", "^"],
    *,
    banded: bool,
    **shared: Any,
) -> Iterator[Line]:
    """One probe, pooling and span: scores, weighted sums of layers, and shuffled labels."""
    rows = rows.sort_values("tap", key=lambda names: names.map(taps.index))
    weighted = rows["tap"].str.startswith("weighted")
    for part, is_weighted in ((rows[~weighted], False), (rows[weighted], True)):
        x = np.array([taps.index(tap) for tap in part["tap"]], int)
        if part.empty:
            continue
        low, high = part["low"].to_numpy(), part["high"].to_numpy()
        numbers = part[["score", "low", "high", "baseline", "control"]].to_numpy()
        yield Line(
            x,
            part["score"].to_numpy(),
            low if banded or is_weighted else None,
            high if banded or is_weighted else None,
            marker="*" if is_weighted else marker,
            marker_size=10.0 if is_weighted else 4.5,
            width=1.8,
            style="none" if is_weighted else "solid",
            in_legend=not is_weighted,
            hover=[
                f"{score:.3f} ({a:.3f} to {b:.3f}), baseline {base:.3f}, control {control:.3f}"
                for score, a, b, base, control in numbers
            ],
            **shared,
        )
    x = np.array([taps.index(tap) for tap in rows["tap"][~weighted]], int)
    yield Line(x, rows["control"][~weighted].to_numpy(), style="dotted", width=1.3, **shared)
