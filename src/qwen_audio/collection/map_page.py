"""The page of a map: points to hover over, to colour by a column, and to click and hear."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from qwen_audio.analysis.plots.theme import Theme
from qwen_audio.errors import MissingExtraError

__all__ = ["MapPage", "map_page"]


def map_page(title: str, note: str, data: Mapping[str, Any], theme: Theme) -> str:
    """One file that needs nothing beside it, but for sounds that are linked.

    Args:
        note: what is to be known of the map, in a line.
        data: `x`, `y`, `labels`, `sounds` (an address a point, or null), `columns` (name →
            {"values"}, for categories also "categories", of which values are indices), `colour`.

    Raises:
        MissingExtraError: without plotly.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("a map", "map") from error
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return Template(_PAGE).substitute(
        title=escape(title),
        note=escape(note),
        data=text,
        plotly=get_plotlyjs(),
        options=_options(list(data["columns"]), data["colour"]),
        paper=theme.paper,
        ink=theme.ink,
        faint=theme.faint,
        accent=theme.accent,
        mark=theme.mark,
    )


def _options(columns: Sequence[str], chosen: str | None) -> str:
    return "".join(
        f'<option value="{escape(name)}"{" selected" * (name == chosen)}>{escape(name)}</option>'
        for name in columns
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
#said { flex: 1 1 20rem; overflow-wrap: anywhere; }
audio { height: 36px; flex: 0 1 20rem; }
:focus-visible { outline: 2px solid $mark; outline-offset: 2px; }
</style></head><body>
<header><h1>$title</h1>
<label>Colour by <select id="colour">$options</select></label>
<p>$note</p></header>
<div id="map" role="img" aria-label="Map of the collection: near is alike"></div>
<footer><button id="before" aria-label="Point before">◀</button>
<button id="after" aria-label="Point after">▶</button>
<p id="said" aria-live="polite">Click a point to hear it, or step with ◀ ▶.</p>
<audio id="player" controls preload="none"></audio></footer>
<script>$plotly</script>
<script>
"use strict";
const data = $data;
const shades = ["#4c8bf5", "#f28e2b", "#3aa76d", "#e15759", "#a77bd9", "#9c755f", "#e377c2",
  "#8a929c", "#c2b229", "#17becf", "#6b6ecf", "#b5cf6b", "#d6616b", "#ce6dbd"];
const map = document.getElementById("map"), player = document.getElementById("player");
const said = document.getElementById("said"), colour = document.getElementById("colour");
let chosen = -1, stopAt = null;

function trace(points, name, marker) {
  return { type: "scattergl", mode: "markers", name, x: points.map(i => data.x[i]),
    y: points.map(i => data.y[i]), customdata: points, text: points.map(i => data.labels[i]),
    hovertemplate: "%{text}<extra></extra>",
    marker: Object.assign({ size: data.x.length > 3000 ? 5 : 9, opacity: 0.85 }, marker) };
}
function traces() {
  const all = data.x.map((_, i) => i), column = data.columns[colour.value];
  if (!column) return [trace(all, "", { color: "$accent" })];
  const known = all.filter(i => column.values[i] !== null);
  const rest = all.filter(i => column.values[i] === null);
  const none = rest.length ? [trace(rest, "(none)", { color: "$faint" })] : [];
  if (!column.categories) return [...none, trace(known, colour.value, {
    color: known.map(i => column.values[i]), colorscale: "Viridis", showscale: true,
    colorbar: { title: { text: column.label }, thickness: 14 } })];
  return [...column.categories.map((name, k) =>
    trace(known.filter(i => column.values[i] === k), name, { color: shades[k % shades.length] })),
    ...none];
}
function draw() {
  const shown = traces();
  const ring = { type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false,
    x: chosen < 0 ? [] : [data.x[chosen]], y: chosen < 0 ? [] : [data.y[chosen]],
    marker: { size: 18, color: "rgba(0,0,0,0)", line: { color: "$mark", width: 3 } } };
  const axis = { showgrid: false, zeroline: false, showticklabels: false, title: { text: "" } };
  Plotly.react(map, [...shown, ring], { paper_bgcolor: "$paper", plot_bgcolor: "$paper",
    font: { color: "$ink" }, margin: { l: 10, r: 10, t: 44, b: 10 }, hovermode: "closest",
    showlegend: shown.length > 1, xaxis: axis, yaxis: Object.assign({ scaleanchor: "x" }, axis),
    uirevision: "kept", legend: { itemsizing: "constant" } },
    { responsive: true, displaylogo: false, scrollZoom: true });
}
function choose(point) {
  chosen = (point + data.x.length) % data.x.length;
  said.innerHTML = data.labels[chosen];
  draw();
  const sound = data.sounds[chosen];
  player.pause();
  if (!sound) {
    said.innerHTML += " (no sound in this page)";
    player.removeAttribute("src");
    return;
  }
  const [, end] = sound.startsWith("data:") ? [] : (sound.split("#t=")[1] || "").split(",");
  stopAt = end ? Number(end) : null;
  player.src = sound;
  player.play().catch(() => {});
}
player.addEventListener("timeupdate", () => {
  if (stopAt !== null && player.currentTime >= stopAt) player.pause();
});
player.addEventListener("error", () => {
  if (player.getAttribute("src")) said.innerHTML += " (this sound can't be played)";
});
colour.addEventListener("change", draw);
document.getElementById("before").addEventListener("click",
  () => choose(chosen < 0 ? -1 : chosen - 1));
document.getElementById("after").addEventListener("click", () => choose(chosen + 1));
draw();
map.on("plotly_click", event => {
  const point = event.points[0].customdata;
  if (point !== undefined) choose(point);
});
</script></body></html>
"""


@dataclass(frozen=True)
class MapPage:
    """A page that was written.

    Attributes:
        audio: "embedded", "linked" or "none".
        failures: why some windows have no sound in it.
    """

    path: Path
    audio: str
    failures: tuple[str, ...]
