// Compare tab: the open part and another recording, at every tap, over time or aligned.
playground.tab("compare", (root) => {
  const { STOPS, clock, colourBar, dark, decode, element, number, paint, paintWave, peakOf, picker, player, request, setStatus,
    span, state, timeAxis, TimeStrip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  STOPS.distance = [...STOPS.similarity].reverse();
  STOPS.distanceDark = [...STOPS.similarityDark].reverse();
  const METRICS = {
    cosine: ["Cosine", "Cosine of the angle between two rows; 1 is the same direction. All rows of a tap share a large common component, so that a high value alone means little: compare taps, or moments, with each other."],
    centred_cosine: ["Centred cosine", "Cosine after subtracting from the rows of each recording their mean: above 0 both differ from their own mean in the same way, around 0 in unrelated ways. What stays the same in a recording does not count."],
    correlation: ["Correlation", "Pearson’s correlation of two rows over their dimensions; 1 is perfectly correlated."],
    relative_distance: ["Relative distance", "Euclidean distance of two rows, divided by the mean of their norms: 0 is equal, 2 is opposite."],
  };
  find("metric").append(...Object.entries(METRICS).map(([name, [title]]) => {
    const option = element("option", "", title);
    option.value = name;
    return option;
  }));

  // What the link asks for, and what is shown.
  const CHOICES = { metric: "cosine", align: "time", scale: "tap" };
  const choice = (name) => state.get(name) ?? CHOICES[name];
  let [pair, values, overall, path] = [null, [], [], null];
  let [isBusy, isStale, hasOther, needsAudio] = [false, true, false, true];
  let next = null; // the recording that was chosen last, until it is compared
  const keyOf = ({ example, row }) => (row ? `row:${row}` : example ?? null);
  const sourceOf = (key) => (key.startsWith("row:") ? { row: key.slice(4) } : { example: key });

  const run = async (source = {}) => {
    isBusy = true;
    const asked = { metric: choice("metric"), alignment: choice("align"), wav: needsAudio };
    const opened = playground.clip;
    const answer = await request("compare", { ...source, ...asked }, { status, busy: "Comparing both recordings at every tap …" });
    isBusy = false;
    if (!answer) { // the problem is shown
      state.set({ other: pair ? keyOf(pair.other) : null });
      return next ? sync() : null;
    }
    hasOther = true;
    if (playground.clip !== opened) return sync();
    pair = answer;
    isStale = false;
    if (pair.wav) {
      player.load("other", pair.other.name, pair.wav, pair.other.start);
      needsAudio = false;
    }
    [values, overall, path] = [decode(pair.by_time), decode(pair.overall), pair.path && decode(pair.path)];
    state.set({ other: keyOf(pair.other) });
    show();
    return sync();
  };
  // Compares again where the link, or the open part, isn't what is shown.
  const sync = () => {
    if (!playground.isShown("compare") || !playground.clip || isBusy) return null;
    if (next) {
      const source = next;
      next = null;
      return run(source);
    }
    const other = state.get("other");
    if (other && (!hasOther || (pair && other !== keyOf(pair.other)))) return run(sourceOf(other));
    if (hasOther) {
      if (isStale || pair.metric !== choice("metric") || pair.alignment !== choice("align")) return run();
    } else if (playground.facts.model === "embedded" && status.dataset.kind !== "problem") { // which takes no time
      const example = Object.keys(playground.facts.examples).find((name) => name !== playground.clip.example);
      if (example) return run({ example });
    }
    return null;
  };
  const choose = (source) => {
    next = source;
    if (!playground.clip) setStatus(status, "No recording is open: choose one in the Audio tab first.", "problem");
    return sync();
  };
  // Other tabs: {row}, {example} or {ticket} is compared with the open part.
  const compareWith = (source) => {
    next = source;
    state.set({ tab: "compare" });
    return sync();
  };

  find("swap").addEventListener("click", async () => {
    const answer = await request("swap", {}, { status, busy: "Swapping …" });
    if (!answer) return;
    needsAudio = true;
    state.set({ other: null });
    await playground.open({});
  });

  // Moments that belong together: of the first recording (0) and of the second (1).
  const aligned = (seconds, from) => {
    const start = [pair.clip.start, pair.other.start];
    const after = seconds - start[from];
    if (!path) return after + start[1 - from];
    let [low, high] = [0, path.length / 2 - 1]; // the last step that doesn't begin later
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (path[2 * middle + from] <= after + 1e-6) low = middle;
      else high = middle - 1;
    }
    while (low > 0 && path[2 * low - 2 + from] === path[2 * low + from]) low -= 1;
    return path[2 * low + 1 - from] + (after - path[2 * low + from]) + start[1 - from];
  };
  const places = [find("first"), find("second")];
  const strips = places.map((place, k) => new TimeStrip(place, k ? "other" : "clip", k ? null : (start, end) => player.select(start, end)));
  const ghosts = places.map((place) => {
    const ghost = place.appendChild(element("i", "pg-ghost"));
    ghost.hidden = true;
    return ghost;
  });
  const map = new TimeStrip(find("map"), "clip");
  map.follow = (seconds) => { // the value is read out, too, where the keyboard is
    TimeStrip.prototype.follow.call(map, seconds);
    if (pair && document.activeElement === map.place && player.audio.paused) map.announce();
  };
  let now = null; // [recording that plays, its seconds]
  strips.forEach((strip, k) => {
    strip.follow = (seconds) => { // where the one plays, the other shows what belongs to it
      TimeStrip.prototype.follow.call(strip, seconds);
      if (!pair || isStale) return;
      const there = aligned(seconds, k);
      const other = strips[1 - k];
      const isInside = seconds >= strip.start && seconds <= strip.end && there <= other.end + 0.05;
      ghosts[k].hidden = true;
      ghosts[1 - k].hidden = !isInside;
      ghosts[1 - k].style.left = `${100 * other.share(there)}%`;
      other.playhead.hidden = true;
      now = isInside ? [k, seconds] : null;
      drawLinks();
    };
  });

  const recordings = () => [pair.clip, pair.other];
  const longest = () => Math.max(...recordings().map(({ start, end }) => end - start));
  const drawWaves = () => recordings().forEach(({ start, end }, k) => {
    const source = player.sources[k ? "other" : "clip"];
    if (!source) return;
    const [from, to] = [start, end].map((seconds) => Math.round(16000 * (seconds - source.start)));
    const part = source.samples.subarray(from, to);
    paintWave(places[k].querySelector("canvas"), part, 0, part.length, peakOf(part));
  });
  const LINKS = 36;
  const drawLinks = () => {
    const canvas = find("links");
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((pixels) => Math.max(1, Math.round(pixels * ratio)));
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const line = (first, second, colour, thick) => {
      if (second > pair.other.end + 0.05) return;
      pen.strokeStyle = style.getPropertyValue(colour);
      pen.lineWidth = thick * ratio;
      pen.beginPath();
      pen.moveTo(((first - pair.clip.start) / longest()) * width, 0);
      pen.lineTo(((second - pair.other.start) / longest()) * width, height);
      pen.stroke();
    };
    const { start, end } = pair.clip;
    for (let k = 0; k <= LINKS; k += 1) {
      const step = 2 * Math.round(((path?.length / 2 - 1) * k) / LINKS);
      if (path) line(path[step] + start, path[step + 1] + pair.other.start, "--pg-edge", 1);
      else line(start + ((end - start) * k) / LINKS, pair.other.start + ((end - start) * k) / LINKS, "--pg-edge", 1);
    }
    if (now) line(now[0] ? aligned(now[1], 1) : now[1], now[0] ? now[1] : aligned(now[1], 0), "--pg-head", 2);
  };

  // The picture: a line per tap. Rows are counted from the first tap, at the bottom.
  const rowCount = () => pair.taps.length;
  const columnCount = () => pair.by_time.shape[1];
  const valueAt = (tap, column) => values[tap * columnCount() + column];
  const rangeOf = (numbers) => [numbers.reduce((a, b) => Math.min(a, b)), numbers.reduce((a, b) => Math.max(a, b))];
  const drawMap = () => {
    if (!pair || root.hidden) return;
    const isDistance = pair.metric === "relative_distance";
    const isPerTap = choice("scale") === "tap";
    let [low, high] = rangeOf(values);
    const isSigned = !isPerTap && low < 0;
    if (isSigned) [low, high] = [-Math.max(-low, high), Math.max(-low, high)];
    const name = `${isDistance ? "distance" : isSigned ? "signed" : "similarity"}${dark() ? "Dark" : ""}`;
    const [rows, columns] = pair.by_time.shape;
    const bytes = new Uint8Array(rows * columns);
    for (let tap = 0; tap < rows; tap += 1) {
      const [from, to] = isPerTap ? rangeOf(values.subarray(tap * columns, (tap + 1) * columns)) : [low, high];
      for (let column = 0; column < columns; column += 1) {
        bytes[column * rows + tap] = Math.round((255 * (valueAt(tap, column) - from)) / Math.max(to - from, 1e-9));
      }
    }
    paint(find("map").querySelector("canvas"), { rows, columns, bytes: btoa(String.fromCharCode(...bytes)) }, name);
    const title = METRICS[pair.metric][0].toLowerCase();
    if (isPerTap) colourBar(find("key"), "lowest", name, "highest", `${METRICS[pair.metric][0]}, for each tap from its lowest to its highest moment:`);
    else colourBar(find("key"), number(low), name, number(high), `${METRICS[pair.metric][0]}, one scale for all taps:`);
    find("map").setAttribute("aria-label", `${title} of ${pair.clip.name} and ${pair.other.name} by tap and time: arrow keys move through time and taps, Enter plays`);
  };
  let current = 0; // the tap that the keyboard is at
  const tapAt = (event) => {
    const box = find("map").querySelector("canvas").getBoundingClientRect();
    const row = Math.floor((rowCount() * (box.bottom - event.clientY)) / box.height);
    return Math.min(rowCount() - 1, Math.max(0, row));
  };
  const mark = (tap) => {
    const line = find("row");
    line.hidden = tap === null;
    root.querySelectorAll("[data-names] span, [data-values] span").forEach((label) => {
      if (Number(label.dataset.tap) === tap) label.dataset.current = "yes";
      else delete label.dataset.current;
    });
    if (tap === null) return;
    line.style.top = `${(100 * (rowCount() - 1 - tap)) / rowCount()}%`;
    line.style.height = `${100 / rowCount()}%`;
  };
  const describeMap = (seconds, event) => {
    const isPointer = event instanceof Event;
    const tap = isPointer ? tapAt(event) : current;
    if (isPointer) current = tap;
    mark(tap);
    const column = Math.min(columnCount() - 1, Math.max(0, Math.floor((seconds - pair.clip.start) / pair.column_seconds)));
    const where = path ? ` · aligned with ${clock(aligned(seconds, 0), 2)}` : "";
    return ` · ${pair.taps[tap]} · ${METRICS[pair.metric][0].toLowerCase()} ${number(valueAt(tap, column), 3)}${where}`;
  };
  const showHint = () => { // the readout where the keyboard is
    const seconds = Math.min(map.end, Math.max(map.start, player.source === "clip" ? player.seconds() : map.start));
    map.announce();
    map.hint.textContent = `${clock(seconds, 2)}${describeMap(seconds, {})}`;
    map.hint.hidden = false;
    map.hint.style.left = `${100 * map.share(seconds)}%`;
    map.hint.style.transform = `translateX(${-100 * map.share(seconds)}%)`;
  };
  find("map").addEventListener("keydown", (event) => {
    const move = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (move) {
      current = Math.min(rowCount() - 1, Math.max(0, current + move));
      event.preventDefault();
    }
    if (move || ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) showHint();
  });
  ["pointerleave", "blur"].forEach((kind) => find("map").addEventListener(kind, () => { mark(null); map.hint.hidden = true; }));

  const describeWave = (k) => (seconds) => ` · compared with ${clock(aligned(seconds, k), 2)} of the ${k ? "first" : "second"}`;
  const show = () => {
    find("pair").hidden = false;
    now = null;
    const names = ["first", "second"];
    recordings().forEach(({ name, start, end, is_whole: isWhole, seconds }, k) => {
      find(`${names[k]}-name`).textContent = name;
      find(`${names[k]}-span`).textContent = isWhole ? `${seconds.toFixed(2)} s` : span(start, end);
      const width = `${(100 * (end - start)) / longest()}%`; // both on one scale
      places[k].style.width = find(`${names[k]}-axis`).style.width = width;
      timeAxis(find(`${names[k]}-axis`), start, end);
      strips[k].set(start, end, describeWave(k));
    });
    find("measure").textContent = METRICS[pair.metric][1];
    const words = `${pair.clip.name} and ${pair.other.name}`;
    find("links").setAttribute("aria-label", path
      ? `Lines between moments of ${words} that dynamic time warping aligns`
      : `Vertical lines between moments of ${words} at the same time`);
    find("path").textContent = path
      ? `Lines join moments that belong together: the path of least distance through both, at audio_tower. Its mean distance is ${number(pair.distance, 3)} (0: equal but for their timing; about 1: unrelated).`
      : "Lines join moments at the same time; the comparison ends with the shorter recording.";
    const end = pair.clip.start + pair.column_seconds * columnCount();
    map.set(pair.clip.start, end, describeMap);
    timeAxis(find("map-axis"), pair.clip.start, end);
    const height = Math.max(220, Math.min(22 * rowCount(), 620));
    root.style.setProperty("--pg-map-height", `${height}px`);
    find("names").style.height = find("values").style.height = `${height}px`;
    const every = Math.ceil(14 / (height / rowCount()));
    const labels = (place, text) => place.replaceChildren(...pair.taps.flatMap((_, tap) => {
      if ((rowCount() - 1 - tap) % every) return [];
      const label = element("span", "", text(tap));
      label.dataset.tap = tap;
      label.style.bottom = `${(100 * (tap + 0.5)) / rowCount()}%`;
      return [label];
    }));
    labels(find("names"), (tap) => pair.taps[tap]);
    labels(find("values"), (tap) => number(overall[tap], 3));
    find("overall").textContent = pair.metric === "centred_cosine" ? "the mean over all moments" : "that of both recordings’ mean rows";
    current = Math.min(current, rowCount() - 1);
    draw();
    exportMenu?.enable();
    root.dispatchEvent(new CustomEvent("pair", { detail: pair }));
  };
  const draw = () => {
    if (!pair || root.hidden || find("pair").hidden) return;
    drawWaves();
    drawLinks();
    drawMap();
  };
  const exportMenu = playground.exportMenu?.(find("export"), "compare", ["png", "svg", "npz", "csv", "python", "command"]);

  for (const name of Object.keys(CHOICES)) {
    const select = find(name);
    select.addEventListener("change", () => state.set({ [name]: select.value === CHOICES[name] ? null : select.value }));
    const known = [...select.options].map((option) => option.value);
    playground.onState([name], () => {
      if (!known.includes(choice(name))) return state.set({ [name]: null });
      select.value = choice(name);
      return name === "scale" ? drawMap() : sync();
    });
  }
  playground.onState(["other"], sync);
  find("from-collection").hidden = !playground.facts.tabs.includes("collection");
  picker(root, choose, status);
  // A comparison belongs to one part of one recording.
  playground.onClip(() => {
    isStale = true;
    find("pair").hidden = true;
    exportMenu?.disable();
    root.dispatchEvent(new CustomEvent("pair", { detail: null }));
    sync();
  });
  playground.onShow("compare", () => { sync(); draw(); });
  playground.onTheme(draw);
  new ResizeObserver(draw).observe(find("links"));
  playground.mountTrace(root);
  Object.assign(playground, { compareWith });
});
