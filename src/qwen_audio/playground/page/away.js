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
      playground.awaited = { n: send("file", { ...extra(), format }), status };
    });
    return button;
  }));
  const lines = element("div", "pg-lines");
  box.append(element("summary", "", TITLES[view] || "Take it away"), actions, status, lines);
  root.replaceChildren(box);
  const ask = () => { if (box.open) playground.asked[view] = send("lines", extra()); };
  box.addEventListener("toggle", ask);
  playground.away.boxes[view] = { ask, lines };
};
Object.assign(playground, { asked: {}, changed: (view) => playground.away.boxes[view]?.ask() });
playground.away.boxes = {};
playground.showLines = (said) => {
  const { element } = playground;
  const view = said?.view;
  if (!view || playground.asked[view] !== said.n) return;
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
  playground.away.boxes[view].lines.replaceChildren(
    ...(said.command ? [block("Command", said.command)] : []), block("Python", said.python));
};
playground.showFile = (file) => {
  const waiting = playground.awaited;
  if (!waiting || file?.n !== waiting.n) return;
  playground.say(waiting.status, file.problem || "", file.problem ? "problem" : "");
  if (file.bytes) playground.download(file);
};
