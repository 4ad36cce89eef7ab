// The export menu of a card: files of what it shows, and code that writes the same files.
(() => {
  const { copy, element, setStatus } = playground;
  const LABELS = {
    png: "Picture (PNG)", svg: "Vector graphic (SVG)", csv: "Table (CSV)", npz: "Arrays (npz)",
    python: "Python code …", command: "Command …",
  };
  let count = 0;

  const button = (classes, text) => {
    const made = element("button", classes, text);
    made.type = "button";
    return made;
  };

  // Code in a dialog of its own: the text can be scrolled, selected and copied.
  const showCode = (heading, text, note, wraps = false) => {
    const dialog = element("dialog", "pg-dialog");
    const id = `pg-dialog-${++count}`;
    const title = element("h2", "", heading);
    title.id = id;
    dialog.setAttribute("aria-labelledby", id);
    const actions = element("div", "pg-actions");
    const close = button("pg-button", "Close");
    close.addEventListener("click", () => dialog.close());
    dialog.append(title, element("p", "pg-small", note));
    if (text) {
      const block = element("pre", wraps ? "pg-code pg-wraps" : "pg-code");
      block.tabIndex = 0;
      block.setAttribute("role", "group");
      block.setAttribute("aria-label", heading);
      block.append(element("code", "", text));
      const copyButton = button("pg-button pg-primary", "Copy");
      copyButton.addEventListener("click", () => copy(text, copyButton));
      dialog.append(block);
      actions.append(copyButton);
    }
    actions.append(close);
    dialog.append(actions);
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => dialog.remove());
    document.querySelector(".pg").append(dialog);
    dialog.showModal(); // gives the focus back to the menu's button when it is closed
  };
  const showPython = ({ python, runs_in: place }) => showCode("Python code", python, `Run it in ${place}.`);
  const showCommand = ({ command, note, runs_in: place }) => showCode("Command", command, note || `Run it in ${place}.`, true);

  // Arrow keys, Home, End and first letters move in an open menu; Escape and Tab close it.
  const moved = (items, key) => {
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[key];
    if (to !== undefined) return items.at(to % items.length);
    if (key.length > 1) return null;
    const rest = [...items.slice(at + 1), ...items.slice(0, at + 1)];
    return rest.find((item) => item.textContent.toLowerCase().startsWith(key.toLowerCase())) ?? null;
  };

  // A menu in a card's title; it is there while the card shows something: `enable` and `disable`.
  //   formats: names of LABELS. request: further data of a request, such as {tap}. labels: other ones.
  playground.exportMenu = (place, view, formats, request = () => ({}), labels = {}) => {
    const opener = button("pg-button pg-quiet", "Export");
    const menu = element("div", "pg-menu");
    const status = element("p", "pg-status");
    menu.id = `pg-menu-${++count}`;
    menu.setAttribute("role", "menu");
    const nameAfterCard = () => { // whose title may have changed
      const title = place.closest(".pg-title")?.querySelector("h2, h3")?.textContent.trim();
      [menu, opener].forEach((each) => each.setAttribute("aria-label", `Export: ${title || view}`));
    };
    opener.setAttribute("aria-haspopup", "menu");
    opener.setAttribute("aria-controls", menu.id);
    status.setAttribute("role", "status");

    const run = async (format) => {
      const isCode = format === "python" || format === "command";
      const data = { view, dark: playground.dark(), ...request(), ...(isCode ? {} : { format }) };
      const busy = isCode ? "Writing the code …" : "Preparing the file …";
      const answer = await playground.request(isCode ? "snippets" : "file", data, { status, busy });
      if (!answer) return;
      if (format === "python") showPython(answer);
      else if (format === "command") showCommand(answer);
      else {
        playground.download(answer);
        if (answer.note) setStatus(status, answer.note, "note");
      }
    };
    const items = formats.map((format) => {
      const item = button("", labels[format] ?? LABELS[format]);
      item.tabIndex = -1;
      item.dataset.format = format;
      item.setAttribute("role", "menuitem");
      item.addEventListener("click", () => {
        close();
        run(format);
      });
      return item;
    });
    menu.append(...items);

    const isOpen = () => !menu.hidden;
    const outside = (event) => { if (!place.contains(event.target)) close(false); };
    const open = (item = items[0]) => {
      nameAfterCard();
      menu.hidden = false;
      menu.scrollIntoView({ block: "nearest" });
      opener.setAttribute("aria-expanded", "true");
      document.addEventListener("pointerdown", outside);
      item.focus();
    };
    const close = (focuses = true) => {
      menu.hidden = true;
      opener.setAttribute("aria-expanded", "false");
      document.removeEventListener("pointerdown", outside);
      if (focuses) opener.focus();
    };
    opener.addEventListener("click", () => (isOpen() ? close() : open()));
    opener.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
      event.preventDefault();
      open(items.at(event.key === "ArrowDown" ? 0 : -1));
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key === "Tab") return close(); // the button's place in the order, from which Tab goes on
      if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Enter" || event.key === " ") return;
      if (event.key === "Escape") close();
      else moved(items, event.key)?.focus();
      event.preventDefault();
      event.stopPropagation();
    });

    place.classList.add("pg-export");
    place.replaceChildren(status, opener, menu);
    nameAfterCard();
    close(false);
    place.hidden = true;
    return {
      enable() {
        nameAfterCard();
        place.hidden = false;
        setStatus(status);
      },
      disable() {
        if (isOpen()) close(false);
        place.hidden = true;
      },
    };
  };
})();
