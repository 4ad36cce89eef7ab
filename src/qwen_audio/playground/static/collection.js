// Collection tab: searches, and a map and a list of all rows that are linked with one another.
playground.tab("collection", (root) => {
  const { clock, decodeBase64, element, number, open, player, request, setStatus, showFacts, span, state } = playground;
  const { LEVELS, NONE, OTHER } = playground.MAP_CODES;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  const mapStatus = find("map-status");
  const SEQUENCE = 200; // rows that are played one after another at most
  const KEPT_ROWS = 20000; // in the memory of the page
  const METHODS = { umap: "UMAP", pca: "PCA" };

  let map = null; // the answer that is shown
  let colours = null;
  let labels = new Map();
  let order = null;
  let results = null; // of a search: { indices, scores: Map, metric, title }
  let isPlayingAll = false;
  const rows = new Map();
  const masks = { brush: null, text: null, code: null };
  const marks = { hovered: -1, selected: -1, playing: -1 };

  // Rows are read when they come into view: names and captions of all would be too many.
  let isLoading = false;
  const load = async (more = []) => {
    if (isLoading || !map) return;
    const missing = [...new Set([...more, ...list.wanted(), marks.hovered, marks.selected])].filter((k) => k >= 0 && !rows.has(k));
    if (!missing.length) return;
    isLoading = true;
    const answer = await request("rows", { version: map.version, indices: missing.slice(0, 400) }).catch((problem) => {
      setStatus(mapStatus, problem.message, "problem"); // the collection has changed, or the server is gone
    });
    isLoading = false;
    if (!answer) return;
    if (rows.size > KEPT_ROWS) rows.clear();
    answer.rows.forEach((row) => rows.set(row.index, row));
    list.draw();
    showHint();
    showChosen();
    load();
  };
  const rowOf = async (index) => {
    if (!rows.has(index)) {
      const answer = await request("rows", { version: map.version, indices: [index] });
      answer.rows.forEach((row) => rows.set(row.index, row));
    }
    return rows.get(index);
  };

  const valueOf = (row, name) => {
    if (name === "recording") return row.name;
    return row.columns.find(([column]) => column === name)?.[1] ?? "";
  };
  const shownValue = (row) => {
    const score = results?.scores.get(row.index);
    if (score !== undefined) return number(score, 3);
    const sorted = find("sort").value;
    const name = ["recording", "caption", "start_seconds", "end_seconds"].includes(sorted) ? find("colour").value : sorted;
    return name === "recording" ? "" : valueOf(row, name);
  };

  const about = (index) => {
    const row = rows.get(index);
    if (!row) return "…";
    const name = find("colour").value;
    const value = name && name !== "recording" ? valueOf(row, name) : "";
    return `${row.name} ${span(row.start, row.end)}${value ? ` · ${labels.get(name) ?? name}: ${value}` : ""}`;
  };
  const showHint = () => {
    const k = marks.hovered >= 0 && marks.isOnMap ? marks.hovered : -1;
    points.showHint(k, k >= 0 ? about(k) : "");
  };
  const hover = (index, isOnMap) => {
    if (index === marks.hovered && isOnMap === marks.isOnMap) return;
    Object.assign(marks, { hovered: index, isOnMap });
    points.setMarks({ hovered: index });
    list.mark({ hovered: index });
    showHint();
    if (index >= 0) load();
  };
  const select = (index, isPlayed, isOnMap) => {
    marks.selected = index;
    points.setMarks({ selected: index });
    list.mark({ selected: index });
    if (isOnMap) list.reveal(index);
    else points.reveal(index);
    showChosen();
    load();
    if (isPlayed) toggle(index);
  };
  const showChosen = () => {
    const row = rows.get(marks.selected);
    find("acts").hidden = find("columns").hidden = !row;
    if (!row) return;
    find("chosen-name").replaceChildren(element("b", "", row.name), ` ${span(row.start, row.end)}`);
    find("chosen-caption").textContent = row.caption ?? "";
    showFacts(find("chosen-facts"), row.columns.map(([name, value]) => [labels.get(name) ?? name, value]));
  };

  // Playing a row; in a sequence, one after another.
  const play = async (index) => {
    const row = await rowOf(index).catch(() => null);
    const answer = row && await request("play", { row: row.id }, { status, busy: "Reading …" });
    if (!answer) return false;
    player.load("row", answer.name, answer.wav, answer.start);
    mark(index);
    player.play("row", answer.start);
    return true;
  };
  const toggle = (index) => {
    stopSequence();
    if (index === marks.playing && player.source === "row") player.toggle("row");
    else play(index);
  };
  const mark = (index) => {
    marks.playing = index;
    points.setMarks({ playing: index });
    list.mark({ playing: index });
  };
  const stopSequence = () => {
    isPlayingAll = false;
    player.queue = [];
    find("sequence").textContent = "Play in sequence";
  };
  player.audio.addEventListener("ended", () => { if (!player.queue.length) { mark(-1); stopSequence(); } });
  player.audio.addEventListener("play", () => { if (player.source !== "row") { mark(-1); stopSequence(); } });
  find("sequence").addEventListener("click", () => {
    if (isPlayingAll) {
      stopSequence();
      return player.audio.pause();
    }
    isPlayingAll = true;
    find("sequence").textContent = "Stop";
    return player.sequence(Array.from(list.indices.slice(0, SEQUENCE), (index) => ({
      start: async () => {
        if (!isPlayingAll) return false;
        list.reveal(index);
        return play(index);
      },
    })));
  });

  // What is kept by the filter, the selection on the map and the legend: the list shows it, the map dims the rest.
  const keptOf = () => {
    const { brush, text, code } = masks;
    if (!brush && !text && code === null) return null;
    const kept = new Uint8Array(map.count);
    for (let k = 0; k < map.count; k += 1) {
      kept[k] = (!brush || brush[k]) && (!text || text[k]) && (code === null || colours.codes[k] === code) ? 1 : 0;
    }
    return kept;
  };
  const update = () => {
    const kept = keptOf();
    points.setKept(kept);
    const all = results ? results.indices : order;
    const shown = kept ? all.filter((k) => kept[k]) : all;
    const count = shown.length.toLocaleString("en");
    find("list-title").textContent = results ? results.title : "Rows";
    const limits = [masks.brush && "selected on the map", masks.text && "matching the filter",
      masks.code !== null && `with ${colours.label} ${codeName(masks.code)}`].filter(Boolean).join(", ");
    find("kept").hidden = !kept && !results;
    find("sorting").hidden = results !== null; // they are in order of their scores
    find("kept-text").textContent = results
      ? kept ? `${count} of ${all.length} results: ${limits}` : `${count} result${all.length === 1 ? "" : "s"}`
      : `${count} of ${map.count.toLocaleString("en")} rows: ${limits}`;
    find("sequence").disabled = !shown.length;
    find("sequence").title = shown.length > SEQUENCE ? `The first ${SEQUENCE} of them` : "";
    list.show(shown, results ? "No result is among them." : "No row fits.");
    root.dataset.shown = shown.length;
  };
  const showAll = () => {
    Object.assign(masks, { brush: null, text: null, code: null });
    results = null;
    find("filter").value = "";
    find("score-note").textContent = "";
    points.setMarks({ found: [] });
    exportSearch?.disable?.();
    showLegend();
    update();
  };
  find("show-all").addEventListener("click", () => { showAll(); find("rows").focus(); });

  // The legend: what a colour stands for; a press shows the rows of one alone.
  const codeName = (code) => (code === OTHER ? "other" : code === NONE ? "none" : colours.categories[code][0]);
  const limit = (value) => (Number.isInteger(value) ? String(value).replace("-", "−") : String(Number(value.toPrecision(3))).replace("-", "−"));
  const showLegend = () => {
    const place = find("legend");
    place.replaceChildren();
    if (!colours) return;
    const counts = new Uint32Array(256);
    colours.codes.forEach((code) => { counts[code] += 1; });
    const entry = (code, text, count) => {
      const button = element("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(masks.code === code));
      const dot = element("i", "pg-dot");
      dot.style.background = `rgb(${points.colourOf(code).map(Math.round)})`;
      button.append(dot, element("span", "", text), element("small", "", count.toLocaleString("en")));
      button.title = `${text}: show these rows alone`;
      button.addEventListener("click", () => {
        masks.code = masks.code === code ? null : code;
        showLegend();
        update();
        place.querySelectorAll("button").forEach((each) => { if (each.title === button.title) each.focus(); });
      });
      place.append(button);
    };
    if (colours.number) {
      const unit = colours.label.match(/\(([^)]*)\)$/)?.[1] ?? "";
      const ends = [colours.low, colours.high].map((value, k) => {
        const sign = colours.cut ? (k ? "≥ " : "≤ ") : "";
        return `${sign}${limit(value)}${unit ? ` ${unit}` : ""}`;
      });
      const key = element("span", "pg-key");
      playground.colourBar(key, ends[0], playground.dark() ? "pointsDark" : "points", ends[1], `${colours.label}:`);
      place.append(key);
    } else {
      colours.categories.forEach(([text, count], code) => entry(code, text, count));
      if (counts[OTHER]) entry(OTHER, `other (${colours.kinds - OTHER} more)`, counts[OTHER]);
    }
    if (counts[NONE]) entry(NONE, "none", counts[NONE]);
  };
  const colourBy = async (name) => {
    if (!name) return;
    const answer = await request("colours", { version: map.version, column: name }, { latest: true, status: mapStatus, busy: "Colouring …" });
    if (!answer) return;
    colours = { ...answer, codes: decodeBase64(answer.codes) };
    masks.code = null;
    points.setColours(colours.codes, colours.number);
    root.dataset.colour = name;
    showLegend();
    showNote();
    update();
  };
  find("colour").addEventListener("change", (event) => {
    state.set({ colour: event.target.value });
    colourBy(event.target.value);
  });

  const showNote = () => {
    const note = find("map-note");
    const count = map.windows;
    const sample = map.method === "umap" && map.fitted < map.count
      ? `, fitted on ${map.fitted.toLocaleString("en")} drawn at random; the others are at the mean of their nearest` : "";
    const best = map.best && map.best[0] === find("colour").value
      ? ` Coloured by the column that separates the vectors best: ε² = ${number(map.best[1])} of their variance is between its groups (Kelley, 1935).` : "";
    note.textContent = `${count} by ${METHODS[map.method]}${sample}; axes have no unit.${best} Drag to move, Shift-drag to select, ` +
      "Ctrl-wheel or + and − to zoom; arrow keys go from point to point. Circled: results of the search.";
  };

  // The list's order and filter.
  const sort = async () => {
    const answer = await request("order", { version: map.version, column: find("sort").value,
      descending: find("direction").getAttribute("aria-pressed") === "true" }, { latest: true, status, busy: "Sorting …" });
    if (!answer) return;
    order = new Int32Array(decodeBase64(answer.order).buffer);
    update();
  };
  find("sort").addEventListener("change", sort);
  find("direction").addEventListener("click", (event) => {
    event.target.setAttribute("aria-pressed", String(event.target.getAttribute("aria-pressed") !== "true"));
    sort();
  });
  let typing = null;
  find("filter").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filter, 200);
  });
  const filter = async () => {
    const text = find("filter").value.trim();
    if (!text) {
      masks.text = null;
      return update();
    }
    const answer = await request("filter", { version: map.version, text }, { latest: true, status, busy: "Filtering …" });
    if (!answer || !find("filter").value.trim()) return null;
    masks.text = decodeBase64(answer.matches);
    return update();
  };

  // Searches: their results are listed, best first, and circled on the map.
  const search = async (what, title) => {
    const answer = await request("search", what, { latest: true, status, busy: "Searching …" });
    if (!answer) return;
    if (!map || answer.version !== map.version) {
      await read();
      if (!map) return;
    }
    if (!answer.results.length) {
      showAll();
      setStatus(status, "text" in what ? "No caption contains these words: try others." : "Nothing else is in the collection.", "note");
      return;
    }
    answer.results.forEach((row) => rows.set(row.index, row));
    Object.assign(masks, { brush: null, text: null, code: null });
    find("filter").value = "";
    results = {
      title, metric: answer.metric, indices: Int32Array.from(answer.results, (row) => row.index),
      scores: new Map(answer.results.map((row) => [row.index, row.score])),
    };
    points.setMarks({ found: results.indices });
    const typical = answer.typical === null ? "" : `; the median over this collection is ${number(answer.typical, 3)}`;
    const left = answer.left_out ? ` Left out: ${answer.left_out}.` : "";
    find("score-note").textContent = (answer.metric === "cosine"
      ? `Best first. The number is the cosine similarity of the vectors, at most 1${typical}.`
      : "Best first. The number is the relevance of the caption (BM25); only its order means something.") + left;
    exportSearch?.enable();
    showLegend();
    update();
    root.dataset.found = answer.results.length;
  };
  const clipName = () => {
    const { clip } = playground;
    if (!clip) return "the open recording";
    return clip.part || clip.windows.length > 1 ? `${clip.name} ${span(clip.start, clip.end)}` : clip.name;
  };
  find("by-clip").addEventListener("click", () => search({ include_self: find("include-self").checked }, `Similar to ${clipName()}`));
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = find("text").value.trim();
    if (text) search({ text }, `Captions with “${text}”`);
    else setStatus(status, "Type words that captions contain.", "note");
  });

  const openRow = async (row, tab) => {
    if (tab === "compare") {
      if (playground.compareWith) return playground.compareWith({ row: row.id });
      return state.set({ tab: "compare", other: `row:${row.id}` });
    }
    const clip = await open({ row: row.id });
    return clip && state.set({ tab });
  };
  root.querySelectorAll("[data-act]").forEach((button) => button.addEventListener("click", () => {
    const row = rows.get(marks.selected);
    const { act } = button.dataset;
    if (act === "play") return toggle(row.index);
    if (act === "nearest") return search({ row: row.id }, `Nearest to ${row.name} ${span(row.start, row.end)}`);
    return openRow(row, act);
  }));

  // The map is read when the tab is first shown: PCA at once, and UMAP, which takes a while, when it is there.
  const setMap = (answer) => {
    map = { ...map, ...answer };
    points.setPoints(map);
    root.querySelectorAll("[data-method]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.method === map.method));
    });
    root.dataset.method = map.method;
    showNote();
    exportMap?.enable();
  };
  const layout = async (method) => {
    const busy = method === "umap" ? "UMAP is being computed: half a minute the first time. PCA is shown meanwhile." : "Computing …";
    const answer = await request("layout", { version: map.version, method }, { latest: true, status: find("layout-status"), busy });
    if (answer) setMap(answer);
  };
  root.querySelectorAll("[data-method]").forEach((button) => button.addEventListener("click", () => layout(button.dataset.method)));
  const read = async () => {
    const answer = await request("map", {}, { status: mapStatus.offsetParent ? mapStatus : status, busy: "Reading the collection …" });
    if (!answer) return;
    find("linked").hidden = false;
    rows.clear();
    results = null;
    Object.assign(masks, { brush: null, text: null, code: null });
    labels = new Map(answer.columns);
    find("about").textContent = `${answer.collection}: ${answer.windows}; embeddings of ${answer.vectors}. ` +
      (answer.captions ? "Captions are searched by their words: the model has no common embedding space of text and audio." : "It has no captions (index with --describe).");
    find("form").hidden = !answer.captions;
    find("methods").hidden = !answer.umap;
    const chosen = find("sort").value;
    find("sort").replaceChildren(...answer.columns.map(([name, label]) => new Option(label, name)));
    if (labels.has(chosen)) find("sort").value = chosen;
    const colour = [state.get("colour"), answer.best?.[0], answer.colours[0]?.[0]]
      .find((name) => answer.colours.some(([each]) => each === name));
    find("colour").replaceChildren(...answer.colours.map(([name, label]) => new Option(label, name)));
    find("colour").closest("label").hidden = !colour;
    if (colour) find("colour").value = colour;
    order = Int32Array.from({ length: answer.count }, (_, k) => k);
    setMap(answer);
    update();
    root.dataset.points = answer.count;
    if (find("sort").value !== "recording" || find("direction").getAttribute("aria-pressed") === "true") await sort();
    if (colour) await colourBy(colour);
    if (answer.umap && answer.method !== "umap") layout("umap");
  };
  let isRead = false;
  playground.onShow("collection", () => {
    points.draw();
    list.draw();
    if (isRead) return;
    isRead = true;
    read().finally(() => { isRead = map !== null; });
  });

  const points = new playground.PointMap(find("map"), {
    hover: (index) => hover(index, true),
    select: (index, isPlayed) => select(index, isPlayed, true),
    brush: (mask) => { masks.brush = mask.includes(1) ? mask : null; results = null; points.setMarks({ found: [] }); update(); },
  });
  points.canvas.setAttribute("aria-label", "Map of the collection: arrow keys go to the nearest point, Enter plays it, plus and minus zoom");
  const list = new playground.RowList(find("rows"), {
    get: (index) => rows.get(index), want: () => load(), value: shownValue,
    select: (index, isPlayed) => select(index, isPlayed, false), hover: (index) => hover(index, false),
  });
  root.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => points.zoom(Number(button.dataset.zoom))));
  find("fit").addEventListener("click", () => points.fit());
  find("in-view").addEventListener("click", () => points.selectInView());
  find("brush").addEventListener("click", (event) => {
    points.setBrushing(!points.isBrushing);
    event.target.setAttribute("aria-pressed", String(points.isBrushing));
  });
  playground.onTheme(showLegend);
  const exportSearch = playground.exportMenu?.(find("export-search"), "search", ["csv", "python", "command"]);
  const exportMap = playground.exportMenu?.(find("export-map"), "map", ["csv", "python", "command"]);
  exportSearch?.disable?.();
  playground.collectionMap = points; // for those who measure it
});
