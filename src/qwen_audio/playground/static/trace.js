// Compare tab, patching: by level and span, how far the answer moves from one recording's to the other's.
playground.mountTrace = (root) => {
  const { colourBar, dark, decode, element, number, palette, request } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const card = find("trace");
  const status = find("trace-status");
  const result = find("trace-result");
  const SPANS = {
    audio: "the audio tokens", prompt: "all text before the answer", last: "the last position before the answer",
    answer: "the answer’s own tokens, as they are read",
  };
  if (!playground.facts.taps.some((tap) => tap.startsWith("lm."))) { // without a language model
    card.remove();
    return;
  }
  const inputs = [...root.querySelectorAll("[data-answer]")];
  let [trace, pair] = [null, null];
  const exportMenu = playground.exportMenu?.(find("trace-export"), "trace", ["png", "svg", "npz", "csv", "python", "command"]);

  root.addEventListener("pair", ({ detail }) => {
    pair = detail;
    card.hidden = !pair;
    result.hidden = true;
    trace = null;
    exportMenu?.disable();
    if (!pair) return;
    find("trace-first").textContent = pair.clip.name;
    find("trace-second").textContent = pair.other.name;
  });
  find("trace-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const of = pair;
    const answer = await request("trace", { answers: inputs.map((input) => input.value) }, {
      status, latest: true, busy: "Patching every level and span …",
    });
    if (!answer || pair !== of) return;
    trace = answer;
    show();
    exportMenu?.enable();
  });

  const row = (cells, tag = "td") => {
    const made = element("tr");
    made.append(...cells.map((text, k) => {
      const cell = element(k ? tag : "th", "", text);
      if (!k && tag === "td") cell.scope = "row";
      return cell;
    }));
    return made;
  };
  const shown = (share) => number(Math.abs(share) < 0.005 ? 0 : share); // without a sign before 0.00
  const quoted = (text) => `“${text}”`;
  const scores = () => {
    const table = element("table", "pg-trace-scores");
    const head = element("thead");
    const titles = row(["log p, in nats", ...trace.answers.map(quoted), "difference"], "th");
    [...titles.children].forEach((cell) => { cell.scope = "col"; });
    head.append(titles);
    const body = element("tbody");
    body.append(...trace.log_probabilities.map(([one, two], k) => row([trace.names[k], number(one), number(two), number(one - two)])));
    table.append(head, body);
    return table;
  };
  const colourOf = (share) => {
    const level = Math.round(255 * Math.min(1, Math.max(0, (share + 1) / 2)));
    return palette(dark() ? "signedDark" : "signed")[level].map(Math.round);
  };
  // Black or white, whichever is easier to read on a colour.
  const inkOn = (rgb) => {
    const [red, green, blue] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
  };
  const heatMap = (readout) => {
    const shares = decode(trace.share);
    const differences = decode(trace.difference);
    const table = element("table", "pg-trace-map");
    table.setAttribute("role", "grid");
    table.append(element("caption", "", "Share of the way from the first recording’s answer (0) to the second’s (1), by tap and patched rows"));
    const head = element("thead");
    const titles = row(["tap", ...trace.spans.map((name, k) => `${name} (${trace.positions[k]})`)], "th");
    [...titles.children].forEach((cell) => { cell.scope = "col"; });
    head.append(titles);
    const body = element("tbody");
    const cells = [];
    const say = (tap, column) => {
      const at = tap * trace.spans.length + column;
      const name = trace.spans[column];
      readout.textContent = `${trace.taps[tap]}, ${name} (${SPANS[name]}; ${trace.positions[column]}): share ${shown(shares[at])}, difference ${number(differences[at])} nats`;
    };
    for (let tap = trace.taps.length - 1; tap >= 0; tap -= 1) {
      const line = row([trace.taps[tap], ...trace.spans.map((_, column) => shown(shares[tap * trace.spans.length + column]))]);
      const found = [...line.querySelectorAll("td")];
      found.forEach((cell, column) => {
        const rgb = colourOf(shares[tap * trace.spans.length + column]);
        cell.style.background = `rgb(${rgb})`;
        cell.style.color = inkOn(rgb);
        cell.tabIndex = -1;
        cell.addEventListener("pointerenter", () => say(tap, column));
        cell.addEventListener("focus", () => say(tap, column));
      });
      cells.push(found);
      body.append(line);
    }
    cells[0][0].tabIndex = 0;
    body.addEventListener("keydown", (event) => { // one stop of the Tab key; arrow keys move within
      const line = cells.findIndex((each) => each.includes(document.activeElement));
      const column = line < 0 ? -1 : cells[line].indexOf(document.activeElement);
      const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
      const to = cells[line + down]?.[column + right];
      if (line < 0 || (!down && !right)) return;
      event.preventDefault();
      if (!to) return;
      cells[line][column].tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    });
    table.append(head, body);
    return table;
  };
  const show = () => {
    result.hidden = false;
    const readout = element("p", "pg-trace-readout", "Point at a cell, or move by arrow keys, to read it.");
    readout.setAttribute("role", "status");
    const key = element("p", "pg-key");
    colourBar(key, "−1", dark() ? "signedDark" : "signed", "1", "Share (values beyond ±1 are clipped):");
    const cut = trace.cut ? ` ${trace.cut} was cut to the length of the other, ${number(trace.seconds)} s.` : ` Both last ${number(trace.seconds)} s.`;
    const note = element("p", "pg-small", `A share of 1: with these rows the model answers as about ${trace.names[1]}; 0: as before; below 0: even more as about ${trace.names[0]}. If the first recording is the clean one, this is noising: which states are necessary; swap the recordings for denoising: which are sufficient.${cut}`);
    result.replaceChildren(scores(), heatMap(readout), readout, key, note);
  };
  playground.onTheme(() => { if (trace) show(); });
};
