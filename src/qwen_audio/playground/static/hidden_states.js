// Hidden states tab: a slider over the taps, images of one tap, and the logit lens.
playground.hiddenStatesTab = (root, props, watch, taps) => {
  const { axis, clock, cosine, dark, element, paint, player, colourBar, setStatus, send, TimeStrip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const [slider, status] = [find("depth"), find("status")];
  const strip = new TimeStrip(find("strip"), "clip");
  const square = new TimeStrip(find("square"), "clip");
  const facts = { time: null };
  let [hasClip, viewId, stale, restTimer, timingId] = [false, 0, true, null, 0];

  const DESCRIPTIONS = {
    mel: "log-mel spectrogram, the input of the audio encoder",
    encoder: (k) => (k === "0" ? "after the two convolutions, before the first encoder layer" : `after encoder layer ${k}`),
    audio_tower: "encoder output, pooled to 25 rows per second and normalised",
    projector: "projected into the language model's embedding space",
    lm: (k) => (k === "norm" ? "after the final norm: the input of the LM head"
      : k === "0" ? "audio tokens and prompt embeddings, before the first decoder layer" : `after decoder layer ${k}`),
  };
  const showName = () => {
    const tap = taps[slider.value];
    const [stage, level] = tap.split(".");
    const description = DESCRIPTIONS[stage];
    find("tap").textContent = tap;
    find("about").textContent = level === undefined ? description : description(level);
    slider.setAttribute("aria-valuetext", tap);
  };
  const stages = { mel: "log-mel", encoder: "audio encoder", audio_tower: "", projector: "", lm: "language model" };
  const counts = Object.keys(stages).map((stage) => taps.filter((tap) => tap.split(".")[0] === stage).length);
  find("stages").replaceChildren(...Object.entries(stages).map(([stage, text], k) => {
    const part = element("span", "", text || "");
    part.style.flex = counts[k];
    part.dataset.stage = stage;
    return part;
  }));

  const requestView = () => {
    if (!hasClip) return;
    stale = false;
    setStatus(status, find("views").hidden ? "Computing all taps …" : "", "busy");
    viewId = send("hidden_states", { tap: taps[slider.value] });
    clearTimeout(restTimer);
    restTimer = setTimeout(() => { timingId = send("time_tap", { tap: taps[slider.value] }); }, 500);
  };
  slider.addEventListener("input", () => { showName(); requestView(); });
  showName();

  const formatBytes = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB`
    : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e3)} kB`);
  const list = (view) => {
    const rows = [
      ["shape", `${view.shape[0]} × ${view.shape[1]}`],
      ["rate", view.positions ? "one per position" : `${view.rate_hz} per second`],
      ["width", String(view.width)],
      ["size", formatBytes(view.row_bytes)],
      ["weights up to here", view.weight_bytes ? formatBytes(view.weight_bytes) : "none"],
      ["time up to here", facts.time === null ? "measuring …" : facts.time ? `${(1000 * facts.time).toFixed(0)} ms` : "not measured"],
    ];
    find("facts").replaceChildren(...rows.map(([label, value]) => {
      const fact = element("div");
      fact.append(element("dt", "", label), element("dd", "", value));
      return fact;
    }));
  };
  const draw = () => {
    const view = props.value;
    if (!view?.heat_map) return;
    const [shades, similarity] = [view.signed ? (dark() ? "signedDark" : "signed") : "magma", dark() ? "similarityDark" : "similarity"];
    paint(find("heat"), view.heat_map, shades);
    colourBar(find("key"), view.signed ? "below mean" : "quiet", shades, view.signed ? "above mean" : "loud");
    paint(find("colours"), view.colours);
    paint(find("similarity"), view.similarity, similarity);
    colourBar(find("square-key"), cosine(view.similarity.low), similarity, cosine(view.similarity.high));
  };
  const show = (view) => {
    find("views").hidden = false;
    root.dataset.shown = view.tap;
    root.dataset.shape = view.shape.join("×");
    facts.time = view.seconds;
    list(view);
    strip.set(view.start, view.end, (seconds) => ` · frame ${Math.floor((seconds - view.start) / view.hop_seconds)}`);
    square.set(view.start, view.end, (_, event) => {
      const box = find("similarity").getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (box.bottom - event.clientY) / box.height));
      return ` with ${clock(view.start + share * (view.end - view.start), 2)}`;
    });
    axis(find("axis"), view.start, view.end);
    axis(find("square-axis"), view.start, view.end);
    draw();
  };
  watch("value", () => {
    const view = props.value;
    if (!view || view.n !== viewId) return;
    if (view.problem) return setStatus(status, view.problem, "problem");
    setStatus(status);
    show(view);
    playground.enableDownloads("hidden_states");
  });
  playground.showTapTime = (answer) => {
    if (!answer || answer.n !== timingId || !props.value?.heat_map) return;
    facts.time = answer.seconds ?? 0;
    list(props.value);
  };

  let lensId = 0;
  const [lensStatus, table] = [find("lens-status"), find("lens-table")];
  playground.showLens = (lens) => {
    if (!lens || lens.n !== lensId) return;
    if (lens.problem) return setStatus(lensStatus, lens.problem, "problem");
    setStatus(lensStatus);
    const head = element("tr");
    head.append(element("th"), ...lens.segments.map((segment) => {
      const cell = element("th", "", clock(segment.start, 1));
      cell.scope = "col";
      return cell;
    }));
    const body = lens.taps.map((tap, level) => {
      const row = element("tr");
      const name = element("th", "", tap);
      name.scope = "row";
      row.append(name, ...lens.segments.map((segment) => {
        const cell = element("td");
        const token = element("button", "", segment.tokens[level].trim() || "␣");
        const probability = segment.probabilities[level];
        token.style.setProperty("--probability", Math.round(100 * Math.sqrt(probability)) + "%");
        token.title = `${clock(segment.start, 2)}–${clock(segment.end, 2)} at ${tap}: ${(100 * probability).toFixed(1)} %`;
        token.addEventListener("click", () => player.play("clip", segment.start));
        cell.append(token);
        return cell;
      }));
      return row;
    });
    table.replaceChildren(head, ...body.reverse());
    playground.enableDownloads("lens");
  };

  // Nothing is computed until the tab is visible.
  const refresh = () => {
    if (!hasClip || !stale || !root.offsetParent) return;
    find("views").hidden = true;
    requestView();
    find("lens").hidden = false;
    table.replaceChildren();
    playground.disableDownloads("lens");
    setStatus(lensStatus, "Computing the logit lens …", "busy");
    lensId = send("lens", {});
  };
  playground.onClip(() => { hasClip = true; stale = true; refresh(); });
  playground.onRejected.push(() => { stale = true; }); // asked for again when the tab is selected
  new IntersectionObserver(refresh).observe(root);
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
};
