// Hidden states tab: one tap's rows over time, and how similar they are; then the lens and edits.
playground.tab("hidden_states", (root) => {
  const { clock, colourBar, dark, decode, element, number, paint, setStatus, showFacts, state, timeAxis, TimeStrip, yAxis } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const { taps } = playground.facts;
  const [slider, select, status] = [find("depth"), find("tap-select"), find("status")];
  const KEPT_VIEWS = 8; // of the open part: a tap that was looked at is drawn again at once
  const REST_MS = 500; // without another step before the time of a tap is measured
  let [clip, view, restTimer] = [null, null, null];
  let views = new Map();

  const ABOUT = {
    mel: "log-mel spectrogram, the input of the audio encoder",
    encoder: (k) => (k === "0" ? "after the convolutions, before the first encoder layer" : `after encoder layer ${k}`),
    audio_tower: "encoder output, pooled and normalised",
    projector: "in the embedding space of the language model: the audio tokens",
    lm: (k) => (k === "norm" ? "after the final norm: the input of the LM head"
      : k === "0" ? "audio tokens and prompt embeddings, before the first decoder layer" : `after decoder layer ${k}`),
  };
  const about = (tap) => {
    const [stage, level] = tap.split(".");
    return level === undefined ? ABOUT[stage] : ABOUT[stage](level);
  };

  // Choosing a tap: the link holds it, so that the pipeline and the browser's history choose it, too.
  const chosen = () => (taps.includes(state.get("tap")) ? state.get("tap") : taps[0]);
  const choose = (index) => state.set({ tap: taps[Math.min(taps.length - 1, Math.max(0, index))] });
  slider.max = taps.length - 1;
  slider.addEventListener("input", () => choose(Number(slider.value)));
  select.append(...taps.map((tap) => {
    const option = element("option", "", tap);
    option.value = tap;
    return option;
  }));
  select.addEventListener("change", () => choose(taps.indexOf(select.value)));
  find("tap-before").addEventListener("click", () => choose(taps.indexOf(chosen()) - 1));
  find("tap-after").addEventListener("click", () => choose(taps.indexOf(chosen()) + 1));
  const STAGES = { mel: "mel", encoder: "encoder", audio_tower: "tower", projector: "proj.", lm: "language model" };
  const stageOf = (tap) => tap.split(".")[0];
  find("stages").replaceChildren(...Object.entries(STAGES).map(([stage, name]) => {
    const part = element("span", "", name);
    part.dataset.stage = stage;
    part.style.flexGrow = taps.filter((tap) => stageOf(tap) === stage).length;
    return part;
  }).filter((part) => Number(part.style.flexGrow)));
  const showChosen = () => {
    const tap = chosen();
    const at = taps.indexOf(tap);
    slider.value = at;
    slider.setAttribute("aria-valuetext", tap);
    select.value = tap;
    find("tap").textContent = tap;
    find("about").textContent = about(tap);
    find("tap-before").disabled = at === 0;
    find("tap-after").disabled = at === taps.length - 1;
    find("stages").querySelectorAll("span").forEach((part) => {
      part.toggleAttribute("data-current", part.dataset.stage === stageOf(tap));
    });
  };

  const bytes = (count) => (count >= 1e9 ? `${(count / 1e9).toFixed(2)} GB`
    : count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : `${Math.round(count / 1e3)} kB`);
  const listFacts = () => showFacts(find("facts"), [
    ["shape", `${view.shape[0]} × ${view.shape[1]}`],
    ["rate", view.positions ? "one row per position" : `${view.rate_hz} rows per second`],
    ["width", String(view.width)],
    ["size", bytes(view.row_bytes)],
    ["weights needed", view.weight_bytes ? bytes(view.weight_bytes) : "none"],
    ["time to compute", view.seconds === null ? "measuring …" : view.seconds === undefined ? "not measured" : `${(1000 * view.seconds).toFixed(0)} ms`],
  ]);

  // What is under the pointer, or where the keyboard has moved to.
  const strip = new TimeStrip(find("strip"), "clip", (start, end) => playground.player.select(start, end));
  const square = new TimeStrip(find("square"), "clip");
  // One row of an image up or down, from a share of its height: to the middle of the row.
  const moved = (height, step, rows) => (Math.min(rows - 1, Math.max(0, Math.floor(height * rows) + step)) + 0.5) / rows;
  const withUpAndDown = (made, canvas, steps) => {
    made.height = 0.5;
    const read = () => {
      const box = canvas.getBoundingClientRect();
      const seconds = playground.player.source === "clip" ? playground.player.seconds() : made.start;
      const event = { clientX: box.left + made.share(seconds) * box.width, clientY: box.bottom - made.height * box.height };
      made.move(event);
      made.said = made.hint.textContent;
      made.place.setAttribute("aria-valuetext", made.said);
    };
    // The player tells the time again once it has moved: what was read stays.
    made.follow = (seconds) => {
      TimeStrip.prototype.follow.call(made, seconds);
      if (made.said && playground.player.audio.paused) made.place.setAttribute("aria-valuetext", made.said);
    };
    made.place.addEventListener("keydown", (event) => {
      const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (step) made.height = moved(made.height, step, steps());
      if (!step && !["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) return;
      event.preventDefault();
      read();
    });
    made.place.addEventListener("blur", () => { made.said = ""; made.hint.hidden = true; });
  };
  withUpAndDown(strip, find("heat"), () => view?.rows ?? 1);
  withUpAndDown(square, find("similarity"), () => view?.cells ?? 1);
  const heightAt = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    return (box.bottom - event.clientY) / box.height;
  };
  const rowName = (column) => {
    const first = Math.floor(column * view.rows_per_column + 1e-6);
    const last = Math.max(first, Math.ceil((column + 1) * view.rows_per_column - 1e-6) - 1);
    return first === last ? `row ${first}` : `mean of rows ${first}–${last}`;
  };
  const significant = (value) => Number(value.toPrecision(3)).toString().replace("-", "−");
  const signed = (value) => (value < 0 ? number(value) : `+${number(value)}`);
  const inDimension = (k, deviations, value) => ` · dimension ${k * view.stride} · ${significant(value)} (${signed(deviations)} SD)`;
  const describe = (seconds, event) => {
    const share = heightAt(find("heat"), event);
    const column = Math.min(view.columns - 1, Math.floor((view.columns * (seconds - view.start)) / (view.end - view.start)));
    const where = ` · ${rowName(column)}`;
    if (share > 1) return where; // the band of colours
    const k = Math.min(view.rows - 1, Math.max(0, Math.floor(share * view.rows)));
    const value = view.numbers[column * view.rows + k];
    if (view.hz) return `${where} · ${Math.round(view.hz[k])} Hz · ${number(value, 1)} dB`;
    return where + inDimension(k, value, view.means[k] + value * view.deviations[k]);
  };
  const describePair = (seconds, event) => {
    const share = Math.min(1, Math.max(0, heightAt(find("similarity"), event)));
    const cell = (part) => Math.min(view.cells - 1, Math.floor(part * view.cells));
    const column = cell((seconds - view.start) / (view.end - view.start));
    const cosine = view.cosines[column * view.cells + cell(share)];
    return ` with ${clock(view.start + share * (view.end - view.start), 2)} · cosine ${number(cosine)}`;
  };

  // Positions of the prompt have no time: columns of their own, right of the audio.
  const [prompt, promptHint] = [find("prompt"), find("prompt-hint")];
  let promptAt = [0, 0.5];
  const readPrompt = ([column, share]) => {
    const { tokens, positions, rows } = view.prompt;
    promptAt = [Math.min(tokens.length - 1, Math.max(0, column)), Math.min(1 - 1e-6, Math.max(0, share))];
    const k = Math.floor(promptAt[1] * view.rows);
    const value = rows[promptAt[0] * view.rows + k];
    const deviation = (value - view.means[k]) / Math.max(view.deviations[k], 1e-12);
    promptHint.textContent = `“${tokens[promptAt[0]]}” · row ${positions[promptAt[0]]}${inDimension(k, deviation, value)}`;
    promptHint.hidden = false;
    prompt.setAttribute("aria-label", `Positions of the prompt: ${promptHint.textContent}`);
  };
  prompt.addEventListener("pointermove", (event) => {
    const box = prompt.getBoundingClientRect();
    readPrompt([Math.floor((view.prompt.tokens.length * (event.clientX - box.left)) / box.width), heightAt(find("prompt-heat"), event)]);
  });
  ["pointerleave", "blur"].forEach((kind) => prompt.addEventListener(kind, () => { promptHint.hidden = true; }));
  prompt.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!move) return;
    event.preventDefault();
    readPrompt([promptAt[0] + move[0], moved(promptAt[1], move[1], view.rows)]);
  });

  // Images.
  const asBytes = (numbers, columns, low, high) => {
    const levels = new Uint8ClampedArray(numbers.length);
    for (let k = 0; k < levels.length; k += 1) levels[k] = (255 * (numbers[k] - low)) / (high - low || 1);
    return { columns, rows: levels.length / columns, levels };
  };
  const draw = () => {
    if (!view) return;
    const shades = view.hz ? "magma" : dark() ? "signedDark" : "signed";
    const similarity = dark() ? "similarityDark" : "similarity";
    paint(find("heat"), asBytes(view.numbers, view.columns, view.low, view.high), shades);
    paint(find("colours"), view.colours);
    const lowest = view.cosines.reduce((least, value) => Math.min(least, value), 1);
    paint(find("similarity"), asBytes(view.cosines, view.cells, lowest, 1), similarity);
    const unit = view.hz ? "Power in dB:" : "Standard deviations (SD) from the dimension’s mean over time:";
    const digits = view.hz ? 0 : 1;
    const [least, most] = view.hz ? ["", ""] : ["≤ ", "≥ "]; // where colours end
    colourBar(find("key"), least + number(view.low, digits), shades, most + number(view.high, digits), unit);
    colourBar(find("square-key"), number(lowest), similarity, number(1), "Cosine:");
    if (!view.prompt) return;
    const deviations = Float32Array.from(view.prompt.rows, (value, at) => {
      const k = at % view.rows;
      return (value - view.means[k]) / Math.max(view.deviations[k], 1e-12);
    });
    paint(find("prompt-heat"), asBytes(deviations, view.prompt.tokens.length, view.low, view.high), shades);
  };
  const everyNth = (last, most = 5) => {
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].find((each) => last / each <= most) ?? Math.ceil(last / most);
    return Array.from({ length: Math.floor(last / step) + 1 }, (_, k) => k * step);
  };
  const showAxes = () => {
    const { start, end, hz, rows, stride } = view;
    const marks = hz
      ? [250, 500, 1000, 2000, 4000].map((each) => [hz.findIndex((centre) => centre >= each) / rows, each < 1000 ? `${each}` : `${each / 1000}k`])
      : everyNth(rows * stride - 1).map((k) => [(k / stride + 0.5) / rows, String(k)]);
    yAxis(find("heat-y"), marks, hz ? "Hz" : "dim.");
    timeAxis(find("axis"), start, end);
    timeAxis(find("square-axis"), start, end);
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((each) => (end - start) / each <= 5) ?? 10;
    const seconds = [];
    for (let k = Math.ceil(start / step - 1e-9); k * step <= end - 0.1 * (end - start); k += 1) seconds.push(k * step);
    yAxis(find("square-y"), seconds.map((each) => [(each - start) / (end - start), end > 60 ? clock(each, step < 1 ? 1 : 0) : each.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)]),
      end > 60 ? "min:s" : "s");
  };
  const showNotes = () => {
    const { hz, prompt: text, stride, width } = view;
    find("heat-title").textContent = hz ? "Log-mel spectrogram" : "Rows over time";
    const dimensions = stride > 1 ? `one of every ${stride} of the ${width} dimensions` : "every dimension";
    find("heat-note").textContent = hz
      ? "Above: similar moments have similar colours (first three principal components). Below: the power of each mel band. Click to play from a moment, drag to select seconds."
      : `Above: similar rows have similar colours (first three principal components). Below: ${dimensions}, `
        + `each in its own standard deviations, as a few large ones would hide the rest.${text ? " Right: the rows of the prompt’s positions, against the means of the audio." : ""} Click to play from a moment, drag to select seconds.`;
    find("strip").setAttribute("aria-label", `${view.tap}: ${hz ? "power of mel bands" : "dimensions of its rows"} over time. Arrow keys read values, Enter plays`);
    find("square").setAttribute("aria-label", `${view.tap}: cosine similarity of every pair of moments. Arrow keys read values, Enter plays`);
    for (const name of ["prompt", "prompt-name"]) find(name).hidden = !text;
    if (!text) return;
    prompt.style.width = `${Math.min(180, Math.max(48, 11 * text.tokens.length))}px`;
    prompt.tabIndex = 0;
    prompt.setAttribute("role", "application");
    prompt.setAttribute("aria-label", "Positions of the prompt: arrow keys read values");
  };
  const decoded = (answer) => {
    const [columns, rows] = answer.values.shape;
    const result = { ...answer, columns, rows, numbers: decode(answer.values), cosines: decode(answer.similarity), cells: answer.similarity.shape[0] };
    if (answer.means) Object.assign(result, { means: decode(answer.means), deviations: decode(answer.standard_deviations) });
    if (answer.prompt) result.prompt = { ...answer.prompt, rows: decode(answer.prompt.rows) };
    return result;
  };
  const show = (shown) => {
    view = shown;
    find("views").hidden = false;
    listFacts();
    showAxes();
    showNotes();
    strip.set(view.start, view.end, describe);
    square.set(view.start, view.end, describePair);
    draw();
    root.dataset.shown = view.tap;
    menu?.enable();
  };

  const clear = () => {
    view = null;
    find("views").hidden = true;
    find("facts").replaceChildren();
    delete root.dataset.shown;
    menu?.disable();
  };

  const measure = async () => {
    const measured = view;
    const answer = await playground.request("time_tap", { tap: view.tap }, { latest: true }).catch(() => ({ seconds: null }));
    if (answer) measured.seconds = answer.seconds ?? undefined;
    if (answer && view === measured) listFacts();
  };
  const refresh = async () => {
    showChosen();
    if (!clip || !playground.isShown("hidden_states")) return;
    const [tap, wanted] = [chosen(), views];
    clearTimeout(restTimer);
    if (view?.tap === tap && views.get(tap) === view) return;
    if (!views.has(tap)) {
      const busy = views.size ? `Computing ${tap} …` : "Computing all taps …";
      const answer = await playground.request("hidden_states", { tap }, { latest: true, status, busy });
      if (!answer && status.dataset.kind === "problem") clear();
      if (!answer || wanted !== views) return;
      views.set(tap, decoded(answer));
      if (views.size > KEPT_VIEWS) views.delete(views.keys().next().value);
      if (chosen() !== tap) return;
    } else setStatus(status);
    show(views.get(tap));
    if (view.seconds === null) restTimer = setTimeout(measure, REST_MS);
  };
  const menu = playground.exportMenu?.(find("export"), "hidden_states", ["png", "svg", "npz", "csv", "python", "command"], () => ({ tap: chosen() }),
    { npz: "Rows, similarity, colours (npz)", csv: "Norms, novelty, colours (CSV)" });

  const others = [playground.lensCard?.(root), playground.editsCard?.(root)].filter(Boolean);
  const refreshAll = () => { refresh(); others.forEach((other) => other.refresh()); };
  playground.onClip((opened) => {
    [clip, views] = [opened, new Map()];
    clear();
    others.forEach((other) => other.open(opened));
    refreshAll();
  });
  playground.onShow("hidden_states", refreshAll);
  playground.onState(["tap"], refresh);
  playground.onTheme(() => { draw(); others.forEach((other) => other.draw()); });
});
