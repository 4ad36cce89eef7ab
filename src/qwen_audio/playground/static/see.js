// See: a depth slider along the line; pictures of one tap; words by level and time.
playground.see = (root, props, watch, taps) => {
  const { axis, clock, cosine, dark, element, paint, player, ramp, say, send, Strip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const [slider, status] = [find("depth"), find("status")];
  const strip = new Strip(find("strip"), "clip");
  const square = new Strip(find("square"), "clip");
  const facts = { time: null };
  let [opened, asked, stale, resting, measuring] = [false, 0, true, null, 0];

  const STORIES = {
    mel: "the log-mel spectrogram: all that the model is given",
    encoder: (k) => (k === "0" ? "after two convolutions, before the first layer" : `after ${k} layers of the ear`),
    audio_tower: "the ear's last word: pooled to 25 a second",
    projector: "put into the language model's space",
    lm: (k) => (k === "norm" ? "after the last norm: what the head reads"
      : k === "0" ? "sound and prompt side by side" : `after ${k} layers of the language model`),
  };
  const named = () => {
    const tap = taps[slider.value];
    const [stage, level] = tap.split(".");
    const story = STORIES[stage];
    find("tap").textContent = tap;
    find("story").textContent = level === undefined ? story : story(level);
    slider.setAttribute("aria-valuetext", tap);
  };
  const stages = { mel: "sound", encoder: "ear", audio_tower: "", projector: "", lm: "language model" };
  const counts = Object.keys(stages).map((stage) => taps.filter((tap) => tap.split(".")[0] === stage).length);
  find("stages").replaceChildren(...Object.entries(stages).map(([stage, text], k) => {
    const part = element("span", "", text || "");
    part.style.flex = counts[k];
    part.dataset.stage = stage;
    return part;
  }));

  const ask = () => {
    if (!opened) return;
    stale = false;
    say(status, find("views").hidden ? "Reading all taps …" : "", "busy");
    asked = send("see", { tap: taps[slider.value] });
    clearTimeout(resting);
    resting = setTimeout(() => { measuring = send("measure", { tap: taps[slider.value] }); }, 500);
  };
  slider.addEventListener("input", () => { named(); ask(); });
  named();

  const amount = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB`
    : bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.round(bytes / 1e3)} kB`);
  const list = (view) => {
    const rows = [
      ["shape", `${view.shape[0]} × ${view.shape[1]}`],
      ["rate", view.positions ? "one per position" : `${view.rate_hz} a second`],
      ["width", String(view.width)],
      ["these rows", amount(view.row_bytes)],
      ["weights read so far", view.weight_bytes ? amount(view.weight_bytes) : "none"],
      ["time so far", facts.time === null ? "measuring …" : facts.time ? `${(1000 * facts.time).toFixed(0)} ms` : "not measured"],
    ];
    find("facts").replaceChildren(...rows.map(([label, value]) => {
      const fact = element("div");
      fact.append(element("dt", "", label), element("dd", "", value));
      return fact;
    }));
  };
  const draw = () => {
    const view = props.value;
    if (!view?.heat) return;
    const [shades, alike] = [view.signed ? (dark() ? "signedDark" : "signed") : "magma", dark() ? "alikeDark" : "alike"];
    paint(find("heat"), view.heat, shades);
    ramp(find("key"), view.signed ? "below its mean" : "quiet", shades, view.signed ? "above it" : "loud");
    paint(find("colours"), view.colours);
    paint(find("alike"), view.alike, alike);
    ramp(find("square-key"), cosine(view.alike.low), alike, cosine(view.alike.high));
  };
  const show = (view) => {
    find("views").hidden = false;
    root.dataset.shown = view.tap;
    root.dataset.shape = view.shape.join("×");
    facts.time = view.seconds;
    list(view);
    strip.set(view.start, view.end, (seconds) => ` · frame ${Math.floor((seconds - view.start) / view.hop_seconds)}`);
    square.set(view.start, view.end, (_, event) => {
      const box = find("alike").getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (box.bottom - event.clientY) / box.height));
      return ` with ${clock(view.start + share * (view.end - view.start), 2)}`;
    });
    axis(find("axis"), view.start, view.end);
    axis(find("square-axis"), view.start, view.end);
    draw();
  };
  watch("value", () => {
    const view = props.value;
    if (!view || view.n !== asked) return;
    if (view.problem) return say(status, view.problem, "problem");
    say(status);
    show(view);
    playground.changed("see");
  });
  playground.measured = (measure) => {
    if (!measure || measure.n !== measuring || !props.value?.heat) return;
    facts.time = measure.seconds ?? 0;
    list(props.value);
  };

  let lensAsked = 0;
  const [lensStatus, table] = [find("lens-status"), find("words")];
  playground.lens = (lens) => {
    if (!lens || lens.n !== lensAsked) return;
    if (lens.problem) return say(lensStatus, lens.problem, "problem");
    say(lensStatus);
    const head = element("tr");
    head.append(element("th"), ...lens.steps.map((step) => {
      const cell = element("th", "", clock(step.start, 1));
      cell.scope = "col";
      return cell;
    }));
    const body = lens.taps.map((tap, level) => {
      const row = element("tr");
      const name = element("th", "", tap);
      name.scope = "row";
      row.append(name, ...lens.steps.map((step) => {
        const cell = element("td");
        const word = element("button", "", step.words[level].trim() || "␣");
        const sure = step.probabilities[level];
        word.style.setProperty("--sure", Math.round(100 * Math.sqrt(sure)) + "%");
        word.title = `${clock(step.start, 2)}–${clock(step.end, 2)} at ${tap}: ${(100 * sure).toFixed(1)} %`;
        word.addEventListener("click", () => player.play("clip", step.start));
        cell.append(word);
        return cell;
      }));
      return row;
    });
    table.replaceChildren(head, ...body.reverse());
    playground.changed("words");
  };

  // Nothing is read before somebody looks.
  const look = () => {
    if (!opened || !stale || !root.offsetParent) return;
    find("views").hidden = true;
    ask();
    find("lens").hidden = false;
    table.replaceChildren();
    playground.gone("words");
    say(lensStatus, "Reading the words …", "busy");
    lensAsked = send("words", {});
  };
  playground.onClip(() => { opened = true; stale = true; look(); });
  new IntersectionObserver(look).observe(root);
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
};
