// Map of the Search tab: one point per window, coloured by a column; hover names it, click plays it.
playground.map = (root, play) => {
  const { element, palette, setStatus, span } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const [canvas, status, choice, hint, caption] =
    ["map", "map-status", "colour", "map-hint", "map-caption"].map(find);
  const SHADES = ["#4c8bf5", "#f28e2b", "#3aa76d", "#e15759", "#a77bd9", "#9c755f", "#e377c2",
    "#8a929c", "#c2b229", "#17becf", "#6b6ecf", "#b5cf6b", "#d6616b", "#ce6dbd"];
  const UNITS = { seconds: "s", rate: "Hz" };
  const REACH = 18;
  let [map, requestId, hovered, selected, places] = [null, 0, -1, -1, []];
  let highlighted = new Set();
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const about = (k) => `${map.names[k]} ${span(map.starts[k], map.ends[k])}`;

  // The colour of each point for a column, and the legend.
  const coloured = (column) => {
    const none = style("--pg-none");
    if (!column) return { of: () => style("--pg-accent"), legend: [] };
    const { name, values } = column;
    const known = values.filter((value) => value !== null);
    if (known.every((value) => typeof value === "number")) {
      const low = known.reduce((least, value) => Math.min(least, value));
      const high = known.reduce((most, value) => Math.max(most, value));
      const shades = palette("viridis");
      const shade = (value) => `rgb(${shades[Math.round((255 * (value - low)) / (high - low || 1))].map(Math.round)})`;
      const unit = Object.entries(UNITS).find(([part]) => name.includes(part))?.[1];
      return { of: (k) => (values[k] === null ? none : shade(values[k])), scale: { low, high, unit, shade } };
    }
    const kinds = [...new Set(known.map(String))].sort();
    const shade = (value) => SHADES[kinds.indexOf(String(value)) % SHADES.length];
    return {
      of: (k) => (values[k] === null ? none : shade(values[k])),
      legend: [...kinds.map((kind) => [kind, shade(kind)]), ...(known.length < values.length ? [["none", none]] : [])],
    };
  };
  const round = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
  const legend = ({ legend: kinds = [], scale }) => {
    const parts = kinds.map(([kind, colour]) => {
      const part = element("span", "", kind);
      part.style.setProperty("--colour", colour);
      return part;
    });
    if (scale) {
      const bar = element("i", "pg-ramp");
      bar.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map((at) => scale.shade(scale.low + at * (scale.high - scale.low)))})`;
      const unit = scale.unit ? ` ${scale.unit}` : "";
      parts.push(element("b", "", round(scale.low) + unit), bar, element("b", "", round(scale.high) + unit));
    }
    find("legend").replaceChildren(...parts);
  };

  const dot = (pen, [x, y], radius) => { pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); };
  const draw = () => {
    if (!map || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height, edge] = [canvas.clientWidth, canvas.clientHeight, 16];
    Object.assign(canvas, { width: width * ratio, height: height * ratio });
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    // The same scale on both axes, since only distances have a meaning.
    const range = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    const [[left, right], [bottom, top]] = [range(map.x), range(map.y)];
    const scale = Math.min((width - 2 * edge) / (right - left || 1), (height - 2 * edge) / (top - bottom || 1));
    places = map.x.map((x, k) => [
      width / 2 + (x - (left + right) / 2) * scale, height / 2 - (map.y[k] - (bottom + top) / 2) * scale]);
    const colours = coloured(map.columns[choice.value]);
    const radius = map.x.length > 3000 ? 2.5 : map.x.length > 300 ? 3.5 : 5;
    pen.globalAlpha = 0.85;
    places.forEach((place, k) => { pen.fillStyle = colours.of(k); dot(pen, place, radius); pen.fill(); });
    pen.globalAlpha = 1;
    pen.strokeStyle = style("--pg-ink");
    pen.lineWidth = 1;
    highlighted.forEach((k) => { dot(pen, places[k], radius + 2); pen.stroke(); });
    if (selected >= 0) { pen.strokeStyle = "#ff5b3e"; pen.lineWidth = 3; dot(pen, places[selected], radius + 5); pen.stroke(); }
    legend(colours);
  };

  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, REACH];
    places.forEach(([px, py], k) => {
      const distance = Math.hypot(px - x, py - y);
      if (distance < least) [best, least] = [k, distance];
    });
    return best;
  };
  const name = (k) => {
    hovered = k;
    hint.hidden = k < 0;
    canvas.style.cursor = k < 0 ? "" : "pointer";
    if (k < 0) return;
    const column = map.columns[choice.value];
    const value = column?.values[k];
    const shown = column?.name === "recording" || value == null ? "" : ` · ${typeof value === "number" ? round(value) : value}`;
    hint.textContent = about(k) + shown;
    const [x, y] = places[k];
    const share = x / canvas.clientWidth;
    Object.assign(hint.style, { left: `${x}px`, top: `${y < 44 ? y + 16 : y - 40}px`, transform: `translateX(${-100 * share}%)` });
  };
  const choose = (k, isPlayed = true) => {
    selected = k;
    caption.replaceChildren(element("b", "", about(k)), ...(map.captions[k] ? [` ${map.captions[k]}`] : []));
    root.dataset.point = k;
    draw();
    name(k);
    if (isPlayed) play({ point: k, version: map.version });
  };
  canvas.addEventListener("pointermove", (event) => name(nearest(event)));
  canvas.addEventListener("pointerleave", () => name(-1));
  canvas.addEventListener("click", (event) => { const k = nearest(event); if (k >= 0) choose(k); });
  canvas.addEventListener("keydown", (event) => {
    const count = map.x.length;
    const steps = { ArrowRight: selected + 1, ArrowDown: selected + 1, ArrowLeft: selected - 1, ArrowUp: selected - 1, Home: 0, End: count - 1 };
    if (event.key in steps) choose((steps[event.key] + count) % count, false);
    else if ((event.key === "Enter" || event.key === " ") && selected >= 0) choose(selected);
    else return;
    event.preventDefault();
  });
  choice.addEventListener("change", draw);

  playground.showMap = (answer) => {
    if (!answer || answer.n !== requestId) return;
    if (answer.problem) return setStatus(status, answer.problem, "problem");
    setStatus(status);
    map = answer;
    [hovered, selected, highlighted] = [-1, -1, new Set(map.results)];
    choice.replaceChildren(...map.columns.map((column, k) => new Option(column.name, k)));
    find("colours").hidden = !map.columns.length;
    find("map-area").hidden = false;
    const windows = `${map.x.length} window${map.x.length === 1 ? "" : "s"}`;
    find("map-note").textContent = `${windows} by ${map.method}; axes have no unit. Circled: results of the last search.`;
    root.dataset.points = map.x.length;
    draw();
    playground.enableDownloads("map");
  };
  playground.onRejected.push(() => { if (!map) requestId = 0; });
  // The map is computed when it first becomes visible.
  new IntersectionObserver((entries) => {
    if (requestId || !entries.some((entry) => entry.isIntersecting)) return;
    setStatus(status, "Computing the map …", "busy");
    requestId = playground.send("map", {});
  }).observe(root);
  new ResizeObserver(draw).observe(canvas);
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
  return { highlight: (points) => { highlighted = new Set(points); draw(); } };
};
