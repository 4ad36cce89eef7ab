// A tour of five steps, offered once and always there behind the button in the header.
(() => {
  const { element, state } = playground;
  const STEPS = [
    { tab: "audio", at: "[data-pipeline]", title: "The pipeline", text: "A file becomes a log-mel spectrogram, the encoder and the language model turn that into rows of numbers, and the last stage is text. Each stage shows its shape for the open recording. Press one to look into it." },
    { tab: "audio", at: "[data-player]", title: "The recording", text: "The player stays at the bottom. Drag over the waveform to select seconds: loop them, or let the model work on these seconds alone." },
    { tab: "ask", at: "[data-panel=ask] .pg-card", title: "Ask", text: "Ask in your own words, or let the model choose between answers that you name. Then find the seconds that the answer depends on." },
    { tab: "hidden_states", at: "[data-panel=hidden_states] .pg-card", title: "Hidden states", text: "A tap is a point of the pipeline where the model’s vectors can be read. Move through the taps, and see in the logit lens which words each layer predicts." },
    { tab: "compare", at: "[data-panel=compare] .pg-card", title: "Compare and export", text: "Compare two recordings at every tap. What a card shows can be exported: pictures, numbers, and the code that makes them. The address of this page holds the tab, the example, the seconds and the tap, to be shared." },
  ];
  let [step, box] = [-1, null];

  const end = () => {
    document.querySelector(".pg-toured")?.classList.remove("pg-toured");
    box?.remove();
    [step, box] = [-1, null];
    localStorage.setItem("pg-tour", "seen");
    document.querySelector("[data-start-tour]").focus();
  };
  const go = (to) => {
    step = to;
    if (step < 0 || step >= STEPS.length) return end();
    const { tab, at, title, text } = STEPS[step];
    state.set({ tab });
    document.querySelector(".pg-toured")?.classList.remove("pg-toured");
    const target = document.querySelector(at);
    target?.classList.add("pg-toured");
    target?.scrollIntoView({ block: "nearest" });
    box ??= document.querySelector(".pg").appendChild(element("section", "pg-tour"));
    box.setAttribute("role", "dialog");
    box.setAttribute("aria-label", "Tour");
    const button = (label, classes, action) => {
      const made = element("button", `pg-button ${classes}`, label);
      made.type = "button";
      made.addEventListener("click", action);
      return made;
    };
    const actions = element("div", "pg-actions");
    const next = button(step + 1 < STEPS.length ? "Next" : "Done", "pg-primary", () => go(step + 1));
    actions.append(...(step ? [button("Back", "", () => go(step - 1))] : []), next, button("End the tour", "pg-quiet", end));
    box.replaceChildren(element("p", "pg-small", `Step ${step + 1} of ${STEPS.length}`), element("h2", "", title), element("p", "", text), actions);
    next.focus();
    return null;
  };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && step >= 0) end(); });
  document.addEventListener("click", (event) => { if (event.target.closest("[data-start-tour]")) go(0); });

  // At the first visit.
  playground.onClip(() => {
    const place = document.querySelector("[data-tour-offer]");
    if (localStorage.getItem("pg-tour") || step >= 0) { place.hidden = true; return; }
    if (!place.hidden) return;
    place.hidden = false;
    const offer = element("p", "pg-offer", "New here? Five steps show what this page can do. ");
    const start = element("button", "pg-button pg-primary", "Start the tour");
    const dismiss = element("button", "pg-button pg-quiet", "No, thanks");
    [start, dismiss].forEach((button) => { button.type = "button"; });
    const close = () => { place.hidden = true; localStorage.setItem("pg-tour", "seen"); };
    start.addEventListener("click", () => { close(); go(0); });
    dismiss.addEventListener("click", close);
    offer.append(start, dismiss);
    place.replaceChildren(offer);
  });
})();
