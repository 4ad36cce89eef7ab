// The page's frame: tabs, the pipeline as navigation, the open recording, the theme.
(() => {
  const { element, player, setStatus, showFacts, span, state, term } = playground;
  const registered = {};
  const shownListeners = {};
  const clipListeners = [];

  // Registers a tab; `mount` is called once, with its panel.
  const tab = (name, mount) => { registered[name] = mount; };
  const onShow = (name, listener) => { (shownListeners[name] ??= []).push(listener); };
  const isShown = (name) => document.querySelector(`[data-panel="${name}"]`)?.hidden === false;
  const show = (name) => state.set({ tab: name });
  const select = (name) => {
    document.querySelectorAll("[data-tab]").forEach((button) => {
      const isSelected = button.dataset.tab === name;
      button.setAttribute("aria-selected", String(isSelected));
      button.tabIndex = isSelected ? 0 : -1;
    });
    document.querySelectorAll("[data-panel]").forEach((panel) => { panel.hidden = panel.dataset.panel !== name; });
    document.querySelector(".pg").dataset.shows = name;
    (shownListeners[name] ?? []).forEach((listener) => listener());
    showStage();
  };
  const mountTabs = (list) => {
    list.addEventListener("click", (event) => {
      const button = event.target.closest("[data-tab]");
      if (button) show(button.dataset.tab);
    });
    list.addEventListener("keydown", (event) => {
      const buttons = [...list.querySelectorAll("[data-tab]")];
      const at = buttons.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      const button = buttons[(to + buttons.length) % buttons.length];
      button.focus();
      show(button.dataset.tab);
      event.preventDefault();
    });
  };

  // The pipeline: what each stage holds of the open part. A stage opens the tab that shows it.
  const STAGES = {
    file: { title: "File", tab: "audio" }, mel: { title: "Log-mel", word: "mel" }, encoder: { title: "Encoder" },
    audio_tower: { title: "Audio tower" }, projector: { title: "Projector" }, lm: { title: "Language model" },
    text: { title: "Text", tab: "ask" },
  };
  const stageOf = (tap) => tap.split(".")[0];
  const tapOf = (stage) => {
    const taps = playground.facts.taps.filter((each) => stageOf(each) === stage);
    return stage === "lm" ? taps.at(-2) ?? taps[0] : taps.at(-1);
  };
  const showPipeline = (clip) => {
    const place = document.querySelector("[data-pipeline]");
    place.replaceChildren(...clip.pipeline.map(({ stage, shape, note }) => {
      const { title, tab: to } = STAGES[stage];
      const item = element("li");
      const button = element("button", "pg-stage");
      button.type = "button";
      button.dataset.stage = stage;
      button.append(element("b", "", title), element("span", "", shape), element("small", "", note));
      button.addEventListener("click", () => {
        if (to) return show(to);
        return state.set({ tab: "hidden_states", tap: tapOf(stage) });
      });
      item.append(button);
      return item;
    }));
    showStage();
  };
  const showStage = () => {
    const shown = { audio: "file", ask: "text" }[state.get("tab") ?? "audio"]
      ?? (state.get("tab") === "hidden_states" ? stageOf(state.get("tap") ?? "mel") : "");
    document.querySelectorAll("[data-pipeline] [data-stage]").forEach((button) => {
      if (button.dataset.stage === shown) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  };

  // The open recording. Parts of it are windows of the model, or seconds that were selected.
  const onClip = (listener) => {
    clipListeners.push(listener);
    if (playground.clip) listener(playground.clip, true);
  };
  // status: where a failure is shown.
  const open = async (request, status = document.querySelector("[data-open-status]")) => {
    const { audio: shown } = playground.clip ?? {};
    const isNew = !("window" in request || ("part" in request && !("example" in request || "row" in request)));
    const clip = await playground.request("open", request, { status, busy: "Reading …" });
    if (!clip) return null;
    if (isNew) {
      const audio = await fetch(`recording/${clip.audio}`);
      if (!audio.ok) return setStatus(status, "The recording was closed meanwhile: open it again.", "problem");
      const samples = await audio.arrayBuffer();
      player.select();
      player.source = null;
      player.loadBytes("clip", clip.name, samples);
    }
    playground.clip = clip;
    if (clip.part) player.select();
    player.seek("clip", clip.start);
    if (clip.note) setStatus(status, clip.note, "note");
    state.set({ clip: clip.example, row: clip.row, upload: clip.example || clip.row ? null : "private", part: clip.part ? `${clip.start.toFixed(2)}-${clip.end.toFixed(2)}` : null,
      window: !clip.part && clip.window ? clip.window : null });
    showClip(clip);
    player.showPart();
    showPipeline(clip);
    clipListeners.forEach((listener) => listener(clip, isNew));
    if (isNew && shown && isShown("audio")) document.querySelector("[data-scroll]").scrollTo(0, 0);
    return clip;
  };
  const showClip = (clip) => {
    const hasMany = clip.windows.length > 1;
    const find = (name) => document.querySelector(`[data-${name}]`);
    document.body.classList.add("pg-has-recording");
    find("open-name").textContent = clip.name;
    find("open-name").title = clip.name;
    find("open-part").textContent = clip.part ? `only ${span(clip.start, clip.end)}`
      : hasMany ? `window ${clip.window + 1} of ${clip.windows.length}, ${span(clip.start, clip.end)}` : "";
    find("whole").hidden = !clip.part;
    find("windows").hidden = !hasMany || Boolean(clip.part);
    find("previous").disabled = clip.window === 0;
    find("next").disabled = clip.window === clip.windows.length - 1;
  };
  const openLink = () => {
    const [example, row, part, window] = ["clip", "row", "part", "window"].map((name) => state.get(name));
    const seconds = part?.split("-").map(Number);
    const first = Object.keys(playground.facts.examples)[0];
    if (!row && !example && !first) return null; // an installation without examples
    const request = row ? { row } : { example: example ?? first };
    if (state.get("upload")) {
      return open({ example: first }).then((clip) => {
        setStatus(document.querySelector("[data-open-status]"), "This link is of an uploaded file, which only the page that " +
          `opened it has: open the file again. Shown is the example ${first}.`, "note");
        return clip;
      });
    }
    if (seconds?.length === 2 && seconds.every(Number.isFinite)) request.part = seconds;
    else if (window !== null) request.window = Number(window);
    return open(request);
  };

  // A file button, a drop zone and examples: `then` receives {ticket} or {example}.
  const picker = (root, then, status = root.querySelector("[data-status]")) => {
    const input = root.querySelector("input[type=file]");
    const drop = root.querySelector("[data-drop]") ?? root;
    const send = async (file) => {
      const ticket = file && await playground.upload(file, file.name, status);
      if (ticket) then({ ticket });
    };
    input.addEventListener("change", () => { send(input.files[0]); input.value = ""; });
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.dataset.dragging = "yes"; });
    drop.addEventListener("dragleave", () => delete drop.dataset.dragging);
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      delete drop.dataset.dragging;
      send(event.dataTransfer.files[0]);
    });
    root.querySelectorAll("[data-example]").forEach((button) => {
      button.addEventListener("click", () => then({ example: button.dataset.example }));
    });
  };

  const startTheme = () => {
    const stored = localStorage.getItem("pg-theme");
    const system = window.matchMedia("(prefers-color-scheme: dark)");
    playground.setDark(stored ? stored === "dark" : system.matches);
    system.addEventListener("change", () => { if (!localStorage.getItem("pg-theme")) playground.setDark(system.matches); });
  };
  const mountTheme = (button) => {
    const label = () => { button.textContent = playground.dark() ? "Light theme" : "Dark theme"; };
    button.addEventListener("click", () => {
      playground.setDark(!playground.dark());
      localStorage.setItem("pg-theme", playground.dark() ? "dark" : "light");
    });
    playground.onTheme(label);
    label();
  };

  const start = () => {
    const root = element("div", "pg");
    root.innerHTML = playground.html; // of the package: no visitor's text
    document.body.prepend(root);
    root.querySelectorAll("[data-word]").forEach((place) => place.replaceWith(term(place.dataset.word, place.textContent)));
    mountTheme(root.querySelector("[data-theme]"));
    mountTabs(root.querySelector("[role=tablist]"));
    player.mount(root.querySelector("[data-player]"));
    root.querySelector("[data-whole]").addEventListener("click", () => open({ part: null }));
    root.querySelector("[data-previous]").addEventListener("click", () => open({ window: playground.clip.window - 1 }));
    root.querySelector("[data-next]").addEventListener("click", () => open({ window: playground.clip.window + 1 }));
    // A file that is dropped beside a drop zone would be opened by the browser instead of this page.
    ["dragover", "drop"].forEach((kind) => document.addEventListener(kind, (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    }));
    for (const [name, mount] of Object.entries(registered)) {
      const panel = root.querySelector(`[data-panel="${name}"]`);
      if (panel) mount(panel);
    }
    const known = (name) => (playground.facts.tabs.includes(name) ? name : "audio");
    playground.onState(["tab"], ({ tab: name }) => select(known(name)));
    playground.onState(["tap"], showStage);
    openLink();
    window.addEventListener("popstate", () => {
      const clip = playground.clip;
      const isOpen = clip && (clip.example ?? null) === state.get("clip") && (clip.row ?? null) === state.get("row")
        && (clip.part ? `${clip.start.toFixed(2)}-${clip.end.toFixed(2)}` : null) === state.get("part");
      if (!isOpen && (state.get("clip") || state.get("row"))) openLink();
    });
  };

  startTheme();
  Object.assign(playground, { isShown, onClip, onShow, open, picker, show, showFacts, start, tab });
})();
