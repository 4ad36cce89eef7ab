// Take away: files and lines of what a tab shows.
playground.away = (root, view, formats) => {
  const { element, send } = playground;
  const TITLES = { see: "Take this tap away", words: "Take the words away", map: "Take the map away",
    find: "Take what was found away" };
  const box = element("details", "pg-away");
  const status = element("p", "pg-status");
  const actions = element("div", "pg-actions");
  const extra = () => ({ view, tap: document.querySelector("[data-tap]")?.textContent, dark: playground.dark() });
  actions.append(...formats.map((format) => {
    const button = element("button", "pg-button", format.toUpperCase());
    button.type = "button";
    button.dataset.format = format;
    button.addEventListener("click", () => {
      playground.say(status, "Preparing the file …", "busy");
      playground.awaited.set(send("file", { ...extra(), format }), status);
    });
    return button;
  }));
  const lines = element("div", "pg-lines");
  box.append(element("summary", "", TITLES[view] || "Take it away"), actions, status, lines);
  root.replaceChildren(box);
  const ask = () => { if (box.open) playground.asked[view] = send("lines", extra()); };
  box.addEventListener("toggle", ask);
  box.hidden = !playground.away.filled.has(view);
  playground.away.boxes[view] = { ask, box, lines, status };
};
// What a tab shows has changed, or is there no more: then there is nothing to take away.
Object.assign(playground.away, { boxes: {}, filled: new Set() });
Object.assign(playground, { asked: {}, awaited: new Map() });
playground.changed = (view) => {
  playground.away.filled.add(view);
  const part = playground.away.boxes[view];
  if (!part) return;
  part.box.hidden = false;
  playground.say(part.status);
  part.ask();
};
playground.gone = (view) => {
  playground.away.filled.delete(view);
  const part = playground.away.boxes[view];
  if (part) part.box.hidden = true;
};
playground.showLines = (said) => {
  const { element } = playground;
  const view = Object.keys(playground.asked).find((one) => playground.asked[one] === said?.n);
  if (!view) return;
  const { lines, status } = playground.away.boxes[view];
  if (said.problem) {
    lines.replaceChildren();
    return playground.say(status, said.problem, "problem");
  }
  const block = (title, text) => {
    const part = element("figure");
    const copy = element("button", "pg-button", "Copy");
    copy.type = "button";
    copy.addEventListener("click", () => {
      navigator.clipboard?.writeText(text);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
    const caption = element("figcaption", "", title);
    caption.append(copy);
    const code = element("pre");
    code.append(element("code", "", text));
    code.dataset.lines = title.toLowerCase();
    part.append(caption, code);
    return part;
  };
  lines.replaceChildren(
    ...(said.command ? [block("Command", said.command)] : []), block("Python", said.python));
};
playground.showFile = (file) => {
  const status = playground.awaited.get(file?.n);
  if (!status) return;
  playground.awaited.delete(file.n);
  playground.say(status, file.problem || "", file.problem ? "problem" : "");
  if (file.bytes) playground.download(file);
};
