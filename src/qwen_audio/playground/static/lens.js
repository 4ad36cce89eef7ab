// Logit lens: cells of tokens, placed by time and layer, with the positions of the prompt beside them.
(() => {
  const { clock, dark, element, number, paintWave, palette, player, setStatus, STOPS, timeAxis, TimeStrip } = playground;
  const NAME_PIXELS = 50;
  const CELL_PIXELS = 58; // room for a word such as “guitar”
  const POSITION_PIXELS = 64;
  const percent = (probability) => {
    const share = 100 * probability;
    return `${share >= 10 ? share.toFixed(0) : share >= 0.1 ? share.toFixed(1) : share > 0 ? "< 0.1" : "0"} %`;
  };
  const visible = (token) => token.trim().replace(/^<\|(.*)\|>$/, "$1").replaceAll("\n", "⏎") || "␣";
  const rgb = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;
  // Black or white, whichever can be read on a colour: relative luminance as in WCAG 2.
  const inkOn = (colour) => {
    const [red, green, blue] = colour.map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
  };
  const shades = () => (dark() ? "similarityDark" : "similarity");
  const shade = (cell, share) => {
    const colour = palette(shades())[Math.round(255 * Math.min(1, Math.max(0, share)))];
    cell.style.background = rgb(colour);
    cell.style.color = inkOn(colour);
  };
  const key = (place, title, low, high) => playground.colourBar(place, low, shades(), high, title);

  // One tab stop for many cells: arrow keys move between them.
  const roving = (place, rows, onFocus, onEnter) => {
    let current = rows[0][0];
    const go = (cell) => {
      current.tabIndex = -1;
      current = cell;
      current.tabIndex = 0;
    };
    rows.flat().forEach((cell) => { cell.tabIndex = -1; });
    go(current);
    const cellOf = (event) => event.target.closest("[role=gridcell]");
    place.addEventListener("focusin", (event) => { if (cellOf(event)) { go(cellOf(event)); onFocus(cellOf(event)); } });
    place.addEventListener("pointermove", (event) => { // not where the page has moved below the pointer
      if (cellOf(event) && (event.movementX || event.movementY)) onFocus(cellOf(event));
    });
    place.addEventListener("click", (event) => { if (cellOf(event)) onEnter(cellOf(event)); });
    place.addEventListener("keydown", (event) => {
      const row = rows.findIndex((each) => each.includes(current));
      const column = rows[row].indexOf(current);
      const to = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
        ArrowRight: [row, column + 1], Home: [row, 0], End: [row, rows[row].length - 1] }[event.key];
      if (event.key === "Enter") onEnter(current);
      else if (!to) return;
      else rows[to[0]]?.[to[1]]?.focus();
      event.preventDefault();
    });
  };

  playground.lensCard = (root) => {
    const find = (name) => root.querySelector(`[data-${name}]`);
    const [status, scroll, detail] = [find("lens-status"), find("lens-scroll"), find("lens-detail")];
    let [clip, lens, words, isAsked, colour] = [null, null, [], false, "probability"];
    let strips = [];

    const columns = () => [...lens.segments, ...lens.positions];
    const where = (column) => (column.read === undefined ? `${clock(column.start, 2)}–${clock(column.end, 2)}`
      : column === lens.positions.at(-1) ? "the last position, before the answer"
        : `after “${visible(column.read)}” (position ${column.position})`);
    const template = () => `${NAME_PIXELS}px repeat(${lens.segments.length}, minmax(0, 1fr))`
      + (lens.positions.length ? ` 4px repeat(${lens.positions.length}, ${POSITION_PIXELS}px)` : "");
    const line = (role = null) => {
      const made = element("div", "pg-lens-line");
      made.style.gridTemplateColumns = template();
      if (role) made.setAttribute("role", role);
      return made;
    };
    const roled = (role, classes, text = "") => {
      const made = element("div", classes, text);
      made.setAttribute("role", role);
      return made;
    };

    // A grid of levels by columns; cellOf gives a cell's text, its share of the colours and its name.
    const grid = (name, cellOf) => {
      const place = roled("grid", "pg-lens-grid");
      place.setAttribute("aria-label", name);
      const head = line("row");
      head.append(roled("columnheader", "pg-lens-name", "layer"), ...columns().flatMap((column, k) => {
        const isText = column.read !== undefined;
        const label = roled("columnheader", isText ? "pg-lens-read" : "pg-lens-time", isText ? visible(column.read) : "");
        if (!isText) label.append(element("span", "pg-lens-hidden", where(column)));
        return k === lens.segments.length ? [gap(), label] : [label];
      }));
      const rows = lens.taps.map((tap, level) => {
        const row = line("row");
        const cells = columns().map((column) => {
          const { text, share, says } = cellOf(column.levels[level]);
          const cell = roled("gridcell", "pg-lens-cell", text);
          cell.setAttribute("aria-label", `${says}, ${tap}, ${where(column)}`);
          shade(cell, share);
          Object.assign(cell, { column, level });
          return cell;
        });
        row.append(roled("rowheader", "pg-lens-name", tap), ...cells.flatMap((cell, k) => (k === lens.segments.length ? [gap(), cell] : [cell])));
        return { row, cells };
      }).reverse();
      place.append(head, ...rows.map(({ row }) => row));
      roving(place, rows.map(({ cells }) => cells), showDetail, ({ column }) => {
        if (column.read === undefined) player.play("clip", column.start);
      });
      return place;
    };
    const gap = () => {
      const made = element("span");
      made.setAttribute("role", "presentation");
      return made;
    };

    const showDetail = ({ column, level }) => {
      const { tokens, entropy, followed } = column.levels[level];
      const list = element("ol", "pg-lens-tokens");
      list.append(...tokens.map(([text, probability]) => {
        const item = element("li");
        const bar = element("i");
        bar.style.width = `${100 * probability}%`;
        item.append(element("b", "", (/^ \S/.test(text) ? "␣" : "") + visible(text)), element("span", "", percent(probability)), bar);
        return item;
      }));
      const facts = element("p", "pg-small", `Entropy ${number(entropy)} bits${followed.map((p, k) => ` · ${lens.followed[k]} ${percent(p)}`).join("")}`);
      const mean = column.read === undefined && column.end - column.start > 1.5 * lens.hop_seconds ? ": means over these seconds" : "";
      detail.replaceChildren(element("h3", "", `${lens.taps[level]}, ${where(column)}${mean}`), list, facts);
    };

    // The waveform and the time axis, in the same columns as the cells.
    const waveLine = () => {
      const made = line();
      const place = element("div", "pg-lens-wave");
      const canvas = element("canvas", "pg-wave");
      place.append(canvas);
      place.style.gridColumn = `2 / span ${lens.segments.length}`;
      place.setAttribute("aria-label", "Waveform over the cells: Enter plays, arrow keys move");
      made.append(element("span", "pg-lens-name"), place);
      const strip = new TimeStrip(place, "clip", (start, end) => player.select(start, end));
      strip.set(lens.start, lens.end);
      strips.push([strip, canvas]);
      if (lens.positions.length) {
        const text = element("span", "pg-small", "positions of the prompt");
        text.style.gridColumn = `${lens.segments.length + 3} / -1`;
        text.style.alignSelf = "end";
        made.append(text);
      }
      return made;
    };
    const axisLine = () => {
      const made = line();
      const place = element("div");
      place.style.gridColumn = `2 / span ${lens.segments.length}`;
      timeAxis(place, lens.start, lens.end);
      made.append(element("span", "pg-lens-name"), place);
      return made;
    };
    const inScroll = (place, name, ...lines) => {
      const inner = element("div");
      inner.style.minWidth = `${NAME_PIXELS + 4 + CELL_PIXELS * lens.segments.length + POSITION_PIXELS * lens.positions.length}px`;
      inner.append(...lines);
      place.classList.add("pg-lens-scroll");
      place.replaceChildren(inner);
      // Cells are reached by keyboard themselves, and scroll into view.
      place.setAttribute("role", "group");
      place.setAttribute("aria-label", name);
    };
    const drawWaves = () => {
      const source = player.sources.clip;
      if (!source || !lens) return;
      const at = (seconds) => Math.round(16000 * (seconds - source.start));
      strips.forEach(([, canvas]) => { if (canvas.clientWidth) paintWave(canvas, source.samples, at(lens.start), Math.min(source.samples.length, at(lens.end))); });
    };

    const draw = () => {
      if (!lens) return;
      strips.forEach(([strip]) => playground.strips?.delete(strip));
      strips = [];
      const most = Math.max(1, ...columns().flatMap(({ levels }) => levels.map(({ entropy }) => Math.ceil(entropy))));
      inScroll(scroll, "Likeliest tokens by layer and time", waveLine(), grid("Likeliest next token by layer (rows) and time (columns)", ({ tokens: [[text, probability]], entropy }) => ({
        text: visible(text),
        share: colour === "probability" ? probability : entropy / most,
        says: `${visible(text)}, ${percent(probability)}, entropy ${number(entropy, 1)} bits`,
      })), axisLine());
      if (colour === "probability") key(find("lens-key"), "Probability of the token:", "0 %", "100 %");
      else key(find("lens-key"), "Entropy of the next token:", "0 bits (certain)", `${most} bits`);
      find("followed").replaceChildren(...lens.followed.flatMap((word, number_) => {
        const highest = Math.max(1e-6, ...columns().flatMap(({ levels }) => levels.map(({ followed }) => followed[number_])));
        const [place, foot] = [element("div"), element("p", "pg-key")];
        inScroll(place, `Probability of ${word}`, grid(`Probability of ${word} by layer (rows) and time (columns)`, ({ followed }) => ({
          text: percent(followed[number_]).replace(" %", ""),
          share: followed[number_] / highest,
          says: `${word}: ${percent(followed[number_])}`,
        })), axisLine());
        key(foot, `Probability of “${word}”, in %:`, "0", percent(highest));
        return [element("h3", "", `“${word}”`), place, foot];
      }));
      drawWaves();
    };
    const show = (answer) => {
      lens = answer;
      find("lens-views").hidden = false;
      draw();
      showDetail({ column: lens.positions.at(-1) ?? lens.segments[0], level: lens.taps.length - 1 });
      root.dataset.lens = words.join(", ");
      menu?.enable();
    };

    const compute = async () => {
      isAsked = true;
      const room = root.clientWidth - 42 - NAME_PIXELS;
      const forText = (lens?.positions.length ?? 6) * POSITION_PIXELS;
      const cells = Math.min(60, Math.max(8, Math.floor(Math.max(room / 2, room - forText) / CELL_PIXELS)));
      const [asked, wanted] = [clip, words];
      const answer = await playground.request("lens", { cells, tokens: words }, { latest: true, status, busy: "Computing the logit lens …" });
      if (answer && asked === clip && wanted === words) show(answer);
      else if (status.dataset.kind === "problem") isAsked = false; // asked for again when the tab is opened
    };
    find("follow").addEventListener("submit", (event) => {
      event.preventDefault();
      words = find("follow").querySelector("input").value.split(",").map((word) => word.trim()).filter(Boolean);
      if (clip) compute();
    });
    root.querySelectorAll("[data-colour]").forEach((button) => button.addEventListener("click", () => {
      colour = button.dataset.colour;
      root.querySelectorAll("[data-colour]").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      draw();
    }));
    const menu = playground.exportMenu?.(find("lens-export"), "lens", ["png", "svg", "npz", "csv", "python", "command"]);
    new ResizeObserver(drawWaves).observe(scroll);

    return {
      open(opened) {
        [clip, lens, isAsked] = [opened, null, false];
        find("lens").hidden = !playground.facts.taps.some((tap) => tap.startsWith("lm."));
        find("lens-views").hidden = true;
        setStatus(status);
        delete root.dataset.lens;
        menu?.disable();
      },
      refresh() { if (clip && !isAsked && !find("lens").hidden && playground.isShown("hidden_states")) compute(); },
      draw,
    };
  };
  Object.assign(playground, { inkOn, percent, roving, visibleToken: visible });
})();
