// Downloads: files, and the command and Python code, of what a view shows.
playground.downloads = (root, view, formats) => {
  const { element, send } = playground;
  const TITLES = { hidden_states: "Download this tap", lens: "Download the logit lens", map: "Download the map",
    search: "Download the results" };
  const box = element("details", "pg-downloads");
  const status = element("p", "pg-status");
  const actions = element("div", "pg-actions");
  const request = () => ({ view, tap: document.querySelector("[data-tap]")?.textContent, dark: playground.dark() });
  actions.append(...formats.map((format) => {
    const button = element("button", "pg-button", format.toUpperCase());
    button.type = "button";
    button.dataset.format = format;
    button.addEventListener("click", () => {
      playground.setStatus(status, "Preparing the file …", "busy");
      playground.pendingFiles.set(send("file", { ...request(), format }), status);
    });
    return button;
  }));
  const snippets = element("div", "pg-snippets");
  box.append(element("summary", "", TITLES[view] || "Download"), actions, status, snippets);
  root.replaceChildren(box);
  const update = () => { if (box.open) playground.snippetRequests[view] = send("snippets", request()); };
  box.addEventListener("toggle", update);
  box.hidden = !playground.downloads.enabled.has(view);
  playground.downloads.boxes[view] = { update, box, snippets, status };
};
// A view can be downloaded from when it shows something until it is cleared.
Object.assign(playground.downloads, { boxes: {}, enabled: new Set() });
Object.assign(playground, { snippetRequests: {}, pendingFiles: new Map() });
playground.enableDownloads = (view) => {
  playground.downloads.enabled.add(view);
  const entry = playground.downloads.boxes[view];
  if (!entry) return;
  entry.box.hidden = false;
  playground.setStatus(entry.status);
  entry.update();
};
playground.disableDownloads = (view) => {
  playground.downloads.enabled.delete(view);
  const entry = playground.downloads.boxes[view];
  if (entry) entry.box.hidden = true;
};
playground.showSnippets = (answer) => {
  const { element } = playground;
  const view = Object.keys(playground.snippetRequests).find((name) => playground.snippetRequests[name] === answer?.n);
  if (!view) return;
  const { snippets, status } = playground.downloads.boxes[view];
  if (answer.problem) {
    snippets.replaceChildren();
    return playground.setStatus(status, answer.problem, "problem");
  }
  const block = (title, text) => {
    const figure = element("figure");
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
    code.dataset.snippet = title.toLowerCase();
    figure.append(caption, code);
    return figure;
  };
  snippets.replaceChildren(
    ...(answer.command ? [block("Command", answer.command)] : []), block("Python", answer.python));
};
playground.saveFile = (file) => {
  const status = playground.pendingFiles.get(file?.n);
  if (!status) return;
  playground.pendingFiles.delete(file.n);
  playground.setStatus(status, file.problem || "", file.problem ? "problem" : "");
  if (file.bytes) playground.download(file);
};
