// Edits: the answer with and without a change of one tap's rows, and what it does to each token.
playground.editsCard = (root) => {
  const { colourBar, dark, element, inkOn, number, palette, percent, roving, setStatus, visibleToken } = playground;
  const find = (name) => root.querySelector(`[data-edit-${name}]`);
  const { taps } = playground.facts;
  const status = find("status");
  const MAX_DROP_NATS = 3; // at the end of the colour scale: e^-3, a twentieth as likely
  const layers = taps.filter((tap) => /^lm\.[1-9]\d*$/.test(tap));
  const EDITS = {
    shuffle: { title: "shuffle: the same rows in another order", number: ["Seed", 0, 0, 1] },
    mean_over_time: { title: "mean_over_time: every row becomes their mean" },
    zero: { title: "zero: rows of zeros" },
    scale: { title: "scale: rows times a factor", number: ["Factor", 0.5, null, "any"] },
    keep_every: { title: "keep_every: every nth row only", number: ["n", 2, 1, 1], taps: ["audio_tower", "projector"] },
    scale_heads: { title: "scale_heads: attention heads set to zero", taps: layers.map((tap) => `${tap}.heads`), isOfHeads: true },
  };
  const ARGUMENTS = { shuffle: "seed", scale: "factor", keep_every: "n" };
  const SPANS = { audio: "audio", prompt: "prompt", last: "last position", all: "all positions" };
  let [clip, answer] = [null, null];

  const fill = (select, options, chosen) => {
    select.replaceChildren(...Object.entries(options).map(([value, text]) => {
      const option = element("option", "", text);
      option.value = value;
      return option;
    }));
    if (chosen in options) select.value = chosen;
  };
  const showTaps = () => {
    const edit = EDITS[find("name").value];
    const names = (edit.taps ?? taps).filter((tap) => edit.isOfHeads || taps.includes(tap));
    fill(find("tap"), Object.fromEntries(names.map((tap) => [tap, tap])), find("tap").value || "projector");
    find("number-label").hidden = !edit.number;
    find("heads-label").hidden = !edit.isOfHeads;
    if (edit.number) {
      const [name, value, least, step] = edit.number;
      find("number-name").textContent = name;
      Object.assign(find("number"), { value, min: least ?? "", step });
    }
    showSpans();
  };
  const showSpans = () => {
    const inText = find("tap").value.startsWith("lm.");
    find("span-label").hidden = !inText;
    fill(find("span"), inText ? SPANS : { audio: SPANS.audio }, find("tap").value.endsWith(".heads") ? "all" : find("span").value);
  };
  fill(find("name"), Object.fromEntries(Object.entries(EDITS)
    .filter(([, { taps: needed }]) => !needed || needed.some((tap) => tap.endsWith(".heads") || taps.includes(tap)))
    .map(([name, { title }]) => [name, title])));
  find("name").addEventListener("change", showTaps);
  find("tap").addEventListener("change", showSpans);
  showTaps();

  const request = () => {
    const edit = find("name").value;
    const data = { edit, tap: find("tap").value, span: find("span").value, question: find("question").value };
    if (edit in ARGUMENTS) data[ARGUMENTS[edit]] = Number(find("number").value);
    if (EDITS[edit].isOfHeads) data.heads = find("heads").value.split(/[\s,]+/).filter(Boolean).map(Number);
    return data;
  };
  const text = (said) => said || "(nothing)";
  const showTokens = () => {
    const place = find("tokens");
    const { tokens } = answer;
    place.hidden = find("key").hidden = !tokens.length;
    if (!tokens.length) return;
    const shades = dark() ? "signedDark" : "signed";
    const cells = tokens.map(({ token, log_probability: before, log_probability_edited: after }) => {
      const cell = element("span", "pg-edit-token", token === "" ? "end" : visibleToken(token));
      cell.setAttribute("role", "gridcell");
      const colour = palette(shades)[Math.round(255 * Math.min(1, Math.max(0, 0.5 + (before - after) / (2 * MAX_DROP_NATS))))];
      Object.assign(cell.style, { background: `rgb(${colour.map(Math.round).join(" ")})`, color: inkOn(colour) });
      const says = `${percent(Math.exp(before))} without the edit, ${percent(Math.exp(after))} with it (${number(after - before)} nats)`;
      cell.setAttribute("aria-label", `${cell.textContent}: ${says}`);
      cell.says = `“${cell.textContent}”: ${says}`;
      return cell;
    });
    const row = element("div");
    row.setAttribute("role", "row");
    row.append(...cells);
    const grid = element("div");
    grid.setAttribute("role", "grid");
    grid.setAttribute("aria-label", "Tokens of the unedited answer: how likely they are with and without the edit");
    grid.append(row);
    place.replaceChildren(grid);
    roving(grid, [cells], (cell) => { find("readout").textContent = cell.says; }, () => {});
    find("readout").textContent = "Point at a token, or move to it with the arrow keys, to see its probabilities.";
    colourBar(find("key"), `≥ ${MAX_DROP_NATS} nats more likely`, shades, `≥ ${MAX_DROP_NATS} nats less likely`, "Each token of the unedited answer, with the edit:");
  };
  const show = () => {
    const { edit, unedited, edited, same, tokens } = answer;
    root.querySelector("[data-unedited]").textContent = text(unedited);
    root.querySelector("[data-edited]").textContent = text(edited);
    find("said").textContent = edit;
    const sum = (name) => tokens.reduce((total, row) => total + row[name], 0);
    const [before, after] = [sum("log_probability"), sum("log_probability_edited")];
    const verdict = same ? "Both answers are the same." : "The answers differ.";
    const by = number(Math.abs(before - after));
    const change = by === "0.00" ? `stays ${number(before)} nats` : `${after < before ? "drops" : "rises"} by ${by} nats with the edit, from ${number(before)} to ${number(after)}`;
    find("verdict").textContent = tokens.length
      ? `${verdict} The log-probability of the unedited answer ${change} (${tokens.length} tokens).` : verdict;
    showTokens();
  };
  root.querySelector("[data-edit-form]").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!clip) return;
    const asked = clip;
    find("run").disabled = true;
    find("result").hidden = true;
    const isFirst = ({ unedited }) => setStatus(status, `As it is: “${text(unedited)}” Answering with the edit …`, "busy");
    const found = await playground.request("edit", request(), { latest: true, status, busy: "Answering …", onUpdate: isFirst });
    find("run").disabled = false;
    if (!found || asked !== clip) return;
    answer = found;
    find("result").hidden = false;
    show();
    menu?.enable();
  });
  const menu = playground.exportMenu?.(find("export"), "edit", ["csv", "python"]);

  return {
    open(opened) {
      [clip, answer] = [opened, null];
      root.querySelector("[data-edits]").hidden = !taps.some((tap) => tap.startsWith("lm."));
      find("result").hidden = true;
      setStatus(status);
      menu?.disable();
    },
    refresh() {},
    draw() { if (answer) showTokens(); },
  };
};
