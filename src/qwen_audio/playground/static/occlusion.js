// Ask tab: which seconds an answer depends on, shaded on the waveform.
playground.mountOcclusion = (root) => {
  const { clock, colourBar, element, number, paintWave, palette, peakOf, player, request, STOPS, timeAxis, TimeStrip, yAxis } = playground;
  const find = (name) => root.querySelector(`[data-occlusion-${name}]`);
  const status = find("status");
  const strip = new TimeStrip(find("strip"), "clip");
  let found = null;
  let isEdited = false; // by the visitor: answers don't replace it
  let asked = null; // the answer that the form was filled from, as long as its question is unchanged

  // Paler than a map of its own, so that the waveform stays visible in front of it.
  STOPS.effect = ["#2a88a8", "#86c0d0", "#e8edee", "#f5efe6", "#efbf93", "#d97b42"];
  STOPS.effectDark = ["#3f94b8", "#1f4a5e", "#1b2029", "#1b2029", "#5c3a1f", "#c17436"];
  const colours = () => (playground.dark() ? "effectDark" : "effect");
  const limit = () => Math.max(found.notable, ...found.means.map(Math.abs));
  const signed = (value) => (value > 0 ? `+${number(value)}` : number(value));
  const short = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);

  const partAt = (seconds) => {
    const { edges, means } = found;
    const part = edges.findIndex((edge) => edge > seconds) - 1;
    return means[part < 0 ? means.length - 1 : part];
  };
  const drawWave = () => {
    const canvas = find("wave");
    const { samples } = player.sources.clip;
    const { start, end } = playground.clip;
    const [from, to] = [start, end].map((seconds) => Math.min(samples.length, Math.round(16000 * seconds)));
    paintWave(canvas, samples, from, to, peakOf(samples.subarray(from, to)));
    const pen = canvas.getContext("2d");
    pen.globalCompositeOperation = "destination-over";
    const table = palette(colours());
    found.means.forEach((mean, k) => {
      const [left, right] = [found.edges[k], found.edges[k + 1]].map((edge) => (canvas.width * (edge - start)) / (end - start));
      const colour = table[Math.round(127.5 * (1 + mean / limit()))];
      pen.fillStyle = `rgb(${colour.map(Math.round)})`;
      pen.fillRect(left, 0, right - left + 0.5, canvas.height);
    });
  };
  // The effect of each window, as a bar at its middle; zero and the notable effects are lines.
  const hopSeconds = () => (found.start_seconds.length > 1 ? found.start_seconds[1] - found.start_seconds[0] : found.window_seconds);
  const drawEffects = () => {
    const canvas = find("effects");
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(canvas.clientWidth * ratio), height: Math.round(canvas.clientHeight * ratio) });
    const pen = canvas.getContext("2d");
    const { start, end } = playground.clip;
    const style = getComputedStyle(canvas);
    const { effect, start_seconds: starts, window_seconds: length, notable } = found;
    const [low, high] = range();
    const y = (value) => (canvas.height * (high - value)) / (high - low);
    const hop = hopSeconds();
    const [against, forIt] = [0, -1].map((k) => STOPS[colours()].at(k));
    effect.forEach((value, k) => {
      const middle = starts[k] + length / 2;
      const [left, right] = [middle - hop / 2, middle + hop / 2].map((seconds) => (canvas.width * (seconds - start)) / (end - start));
      pen.fillStyle = value > 0 ? forIt : against;
      pen.fillRect(left + ratio, Math.min(y(0), y(value)), Math.max(ratio, right - left - 2 * ratio), Math.max(ratio, Math.abs(y(value) - y(0))));
    });
    pen.fillStyle = style.getPropertyValue("--pg-edge");
    pen.fillRect(0, y(0), canvas.width, ratio);
    pen.strokeStyle = style.getPropertyValue("--pg-soft");
    pen.setLineDash([4 * ratio, 4 * ratio]);
    for (const level of [notable, -notable]) {
      if (level >= high || level <= low) continue;
      pen.beginPath();
      pen.moveTo(0, y(level));
      pen.lineTo(canvas.width, y(level));
      pen.stroke();
    }
  };
  const range = () => {
    const [low, high] = [Math.min(0, ...found.effect), Math.max(0, ...found.effect)];
    const margin = 0.08 * Math.max(high - low, found.notable);
    return [low - margin, Math.max(high, found.notable) + margin];
  };
  const draw = () => {
    if (!found || !player.sources.clip || !root.offsetWidth) return;
    drawWave();
    drawEffects();
    const [low, high] = range();
    const labels = [0, Math.max(...found.effect), Math.min(...found.effect)].filter((value, k, all) => k === 0 || Math.abs(value - all[0]) > 0.15 * (high - low));
    yAxis(find("y"), labels.map((value) => [(value - low) / (high - low), signed(value)]), "nats");
    const { start, end } = playground.clip;
    strip.set(start, end, (seconds) => ` · effect ${signed(partAt(seconds))} nats`);
    timeAxis(find("axis"), start, end);
    const [first, second] = found.answers.map((text) => `“${short(text)}”`);
    colourBar(find("key"), number(-limit()), colours(), number(limit()), "Effect in nats:");
    find("key").append(element("span", "", `above 0 the seconds speak for ${first}, below 0 ${second ? `for ${second}` : "against it"}; dashed at ±${number(found.notable)}, where the odds change by a factor of 2`));
    find("strip").setAttribute("aria-label", `Effect of each part of the sound on ${first}, over time: Enter plays, arrow keys move`);
  };
  const sentence = ({ start, end, effect, is_notable: isNotable, factor }, [first, second]) => {
    const answer = `“${short(first)}”`;
    const than = `the odds of ${answer}${second ? ` against “${short(second)}”` : ""} fall by a factor of ${factor}`;
    const when = `${clock(start, 2)}–${clock(end, 2)}`;
    if (isNotable) return `Most at ${when}: without these seconds ${than} (${signed(effect)} nats).`;
    return `No part alone matters much: the largest effect is ${signed(effect)} nats, at ${when}. What is heard twice can hide this: removing it once does little.`;
  };

  const compute = async () => {
    const other = find("other").value.trim();
    const data = { answers: [find("answer").value, ...(other ? [other] : [])] };
    if (asked) data.number = asked.number;
    else data.question = find("question").value;
    if (find("window").value) data.window_seconds = Number(find("window").value);
    const answer = await request("occlusion", data, { latest: true, status, busy: "Making parts silent, and scoring the answer again …" });
    if (!answer) {
      if (status.dataset.kind === "problem") clear(); // not that of another answer
      return;
    }
    found = answer;
    find("result").hidden = false;
    find("peak").textContent = sentence(found.peak, found.answers);
    find("note").textContent = `${found.effect.length} parts of ${number(found.window_seconds)} s, one every ${number(hopSeconds())} s (bars stand at their middles), computed in ${found.dtype}${found.dtype === "bfloat16" ? ", which rounds effects to a few hundredths" : ""}. Click to play from a moment.`;
    draw();
    playground.reveal(find("result"));
    exportMenu?.enable();
  };
  find("form").addEventListener("submit", (event) => { event.preventDefault(); compute(); });
  const forget = () => {
    asked = null;
    find("turn").hidden = true;
  };
  find("question").addEventListener("input", forget);
  find("form").addEventListener("input", () => { isEdited = true; });
  const exportMenu = playground.exportMenu?.(root.querySelector("[data-export-occlusion]"), "occlusion", ["png", "svg", "csv", "npz", "python", "command"]);
  const clear = () => {
    found = null;
    find("result").hidden = true;
    exportMenu?.disable();
  };
  playground.onClip((clip, isNew) => {
    clear();
    forget();
    if (!isNew) return;
    find("answer").value = find("other").value = "";
    isEdited = false;
  });
  playground.onTheme(draw);
  playground.onShow("ask", draw);
  new ResizeObserver(draw).observe(find("strip"));

  // Fills the form from an answer; computes at once if the visitor asked for it.
  playground.askOcclusion = {
    explain(answer, computes = false) {
      if (!computes && (isEdited || found)) return;
      asked = answer;
      find("question").value = answer.question;
      find("answer").value = answer.text;
      find("other").value = "";
      isEdited = false;
      find("turn").hidden = !answer.is_conversation;
      find("turn").textContent = `Asked as turn ${answer.turn} of the conversation; change the question to ask it alone.`;
      if (!computes) return;
      const card = root.querySelector("[data-occlusion-card]");
      card.scrollIntoView({ block: "nearest" });
      card.querySelector("h2").focus({ preventScroll: true });
      compute();
    },
  };
};
