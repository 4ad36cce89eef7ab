// The link: its hash holds the tab, recording, seconds, tap and prompt, so that it can be shared.
(() => {
  const read = () => Object.fromEntries(new URLSearchParams(window.location.hash.slice(1)));
  const listeners = [];
  let current = read();

  const state = {
    get(name) { return current[name] ?? null; },
    // null removes. Other tabs and recordings are steps that the browser goes back by.
    set(changes) {
      const before = new URLSearchParams(current).toString();
      const isStep = ["tab", "clip", "row"].some((name) => name in changes && (current[name] ?? null) !== changes[name] && name in current);
      for (const [name, value] of Object.entries(changes)) {
        if (value === null || value === undefined || value === "") delete current[name];
        else current[name] = String(value);
      }
      const after = new URLSearchParams(current).toString();
      if (after === before) return;
      window.history[isStep ? "pushState" : "replaceState"](null, "", `#${after}`);
      tell(Object.keys(changes));
    },
  };
  const tell = (names) => listeners.forEach(([wanted, listener]) => {
    if (wanted.some((name) => names.includes(name))) listener(Object.fromEntries(wanted.map((name) => [name, state.get(name)])));
  });
  // Called at once, and whenever one of the values changes.
  const onState = (names, listener) => {
    listeners.push([names, listener]);
    listener(Object.fromEntries(names.map((name) => [name, state.get(name)])));
  };
  window.addEventListener("popstate", () => {
    const before = current;
    current = read();
    tell([...new Set([...Object.keys(before), ...Object.keys(current)])].filter((name) => before[name] !== current[name]));
  });
  Object.assign(playground, { state, onState });
})();
