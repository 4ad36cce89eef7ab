"""HTML page of a projection: hover over points, colour them by a column, click to play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from qwen_audio.analysis.html_text import script_json
from qwen_audio.analysis.plots.theme import Theme
from qwen_audio.errors import check_extra
from qwen_audio.paths import printable

__all__ = ["MapPage", "map_page"]


def map_page(title: str, note: str, data: Mapping[str, Any], theme: Theme) -> str:
    """A self-contained HTML page (audio may be linked).

    Args:
        note: one line that explains the map.
        data: texts as they are, no HTML: `x`, `y`, `names`, `times`, `captions` (or null) and
            `audio_urls` (or null), one item a point; `columns`, each a dict of "name", "label",
            "values" and, for categories, "categories", into which values are indices; `colour`,
            the index of the column to colour by at first, or null.

    Raises:
        MissingExtraError: without plotly.
    """
    check_extra("a map", "map", "plotly")
    from plotly.offline import get_plotlyjs

    return Template(_PAGE).substitute(
        title=escape(printable(title)),
        note=escape(note),
        data=script_json(data),
        plotly=get_plotlyjs(),
        paper=theme.paper,
        ink=theme.ink,
        faint=theme.faint,
        accent=theme.accent,
        mark=theme.mark,
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
* { box-sizing: border-box; }
html, body { height: 100%; }
body { margin: 0; background: $paper; color: $ink; font: 14px/1.4 system-ui, sans-serif;
  display: flex; flex-direction: column; }
header { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; align-items: center;
  padding: .7rem 1rem; }
h1 { font-size: 1.15rem; margin: 0; }
p { margin: 0; }
select, button { font: inherit; color: inherit; background: $paper; border: 1px solid $faint;
  border-radius: 6px; padding: .25rem .5rem; }
#map { flex: 1; min-height: 300px; }
footer { display: flex; flex-wrap: wrap; gap: .4rem 1rem; align-items: center; min-height: 4.2rem;
  padding: .6rem 1rem; border-top: 1px solid $faint; }
#label { flex: 1 1 20rem; overflow-wrap: anywhere; }
audio { height: 36px; flex: 0 1 20rem; }
:focus-visible { outline: 2px solid $mark; outline-offset: 2px; }
</style></head><body>
<header><h1>$title</h1>
<label>Colour by <select id="colour"></select></label>
<p>$note</p></header>
<div id="map" role="img" aria-label="Map of the collection: nearby points are similar"></div>
<footer><button id="previous" aria-label="Previous point">◀</button>
<button id="next" aria-label="Next point">▶</button>
<p id="label" aria-live="polite">Click a point to play it, or step with ◀ ▶.</p>
<audio id="player" controls preload="none"></audio></footer>
<script>$plotly</script>
<script>
"use strict";
const data = $data;
const palette = ["#4c8bf5", "#f28e2b", "#3aa76d", "#e15759", "#a77bd9", "#9c755f", "#e377c2",
  "#8a929c", "#c2b229", "#17becf", "#6b6ecf", "#b5cf6b", "#d6616b", "#ce6dbd"];
const map = document.getElementById("map"), player = document.getElementById("player");
const label = document.getElementById("label"), colour = document.getElementById("colour");
let selected = -1, stopAt = null;
colour.replaceChildren(...data.columns.map((column, k) => new Option(column.name, k)));
colour.value = data.colour ?? "";

// As in Python's plotly_text: plotly would take these characters for markup.
const plain = text => text.replace(/[<>&$$]|%(?={)/g, sign => `&#$${sign.charCodeAt(0)};`);
function hover(i) {
  const caption = data.captions[i] ? "<br>" + plain(data.captions[i]) : "";
  return `<b>$${plain(data.names[i])}</b> $${data.times[i]}$${caption}`;
}

function trace(points, name, marker) {
  return { type: "scattergl", mode: "markers", name, x: points.map(i => data.x[i]),
    y: points.map(i => data.y[i]), customdata: points, text: points.map(hover),
    hovertemplate: "%{text}<extra></extra>",
    marker: Object.assign({ size: data.x.length > 3000 ? 5 : 9, opacity: 0.85 }, marker) };
}
function traces() {
  const all = data.x.map((_, i) => i), column = data.columns[colour.value];
  if (!column) return [trace(all, "", { color: "$accent" })];
  const known = all.filter(i => column.values[i] !== null);
  const rest = all.filter(i => column.values[i] === null);
  const none = rest.length ? [trace(rest, "(none)", { color: "$faint" })] : [];
  if (!column.categories) return [...none, trace(known, plain(column.name), {
    color: known.map(i => column.values[i]), colorscale: "Viridis", showscale: true,
    colorbar: { title: { text: plain(column.label) }, thickness: 14 } })];
  return [...column.categories.map((name, k) =>
    trace(known.filter(i => column.values[i] === k), plain(name),
      { color: palette[k % palette.length] })),
    ...none];
}
function draw() {
  const series = traces();
  const ring = { type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
    x: selected < 0 ? [] : [data.x[selected]], y: selected < 0 ? [] : [data.y[selected]],
    marker: { size: 18, color: "rgba(0,0,0,0)", line: { color: "$mark", width: 3 } } };
  const axis = { showgrid: false, zeroline: false, showticklabels: false, title: { text: "" } };
  Plotly.react(map, [...series, ring], { paper_bgcolor: "$paper", plot_bgcolor: "$paper",
    font: { color: "$ink" }, margin: { l: 10, r: 10, t: 44, b: 10 }, hovermode: "closest",
    showlegend: series.length > 1, xaxis: axis, yaxis: Object.assign({ scaleanchor: "x" }, axis),
    uirevision: "constant", legend: { itemsizing: "constant" } },
    { responsive: true, displaylogo: false, scrollZoom: true });
}
function select(point) {
  selected = (point + data.x.length) % data.x.length;
  const name = document.createElement("b"), caption = data.captions[selected];
  name.textContent = data.names[selected];
  label.replaceChildren(name, ` $${data.times[selected]}`,
    ...(caption ? [document.createElement("br"), caption] : []));
  draw();
  const url = data.audio_urls[selected];
  player.pause();
  if (!url) {
    label.append(" (no audio in this page)");
    player.removeAttribute("src");
    return;
  }
  const [, end] = url.startsWith("data:") ? [] : (url.split("#t=")[1] || "").split(",");
  stopAt = end ? Number(end) : null;
  player.src = url;
  player.play().catch(() => {});
}
player.addEventListener("timeupdate", () => {
  if (stopAt !== null && player.currentTime >= stopAt) player.pause();
});
player.addEventListener("error", () => {
  if (player.getAttribute("src")) label.append(" (this audio can't be played)");
});
colour.addEventListener("change", draw);
document.getElementById("previous").addEventListener("click",
  () => select(selected < 0 ? -1 : selected - 1));
document.getElementById("next").addEventListener("click", () => select(selected + 1));
draw();
map.on("plotly_click", event => {
  const point = event.points[0].customdata;
  if (point !== undefined) select(point);
});
</script></body></html>
"""


@dataclass(frozen=True)
class MapPage:
    """Result of `Projection.write_html`.

    Attributes:
        path: the file.
        audio: "embedded", "linked" or "none".
        failures: one error for each file whose audio could not be embedded.
    """

    path: Path
    audio: str
    failures: tuple[str, ...]
