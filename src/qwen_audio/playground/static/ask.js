// Ask tab: questions, and answers that grow while they are generated.
playground.tab("ask", (root) => {
  const { copy, element, player, request, setStatus, showFacts, span, state } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const question = root.querySelector("#question");
  const status = root.querySelector("#ask-status");
  const answers = find("answers");
  const MODES = {
    question: "Asked alone, with the prompt that the checkpoint was trained with.",
    conversation: "Earlier questions and answers about the same seconds stay in the prompt, until a question is asked alone.",
  };
  let count = 0;
  let running = null; // number of the question that is being answered
  let startsAnew = false;
  let [offered, isLoading, waiting] = [null, false, []];
  let latest = null; // answer that was given last

  const button = (classes, text, action) => {
    const made = element("button", classes, text);
    made.type = "button";
    made.addEventListener("click", action);
    return made;
  };
  const chosen = (name) => root.querySelector(`[name=pg-${name}]:checked`).value;
  const openPart = () => {
    const { clip } = playground;
    return clip && (clip.part || clip.windows.length > 1) ? [clip.start, clip.end] : null;
  };
  const isOpen = (part) => String(part) === String(openPart());

  // What the checkpoint suggests, once the tab is visible.
  const loadQuestions = async () => {
    if (offered || isLoading) return;
    isLoading = true;
    const loaded = await request("questions", {}, { status, busy: "Reading the suggested questions …" });
    isLoading = false;
    if (!loaded) return;
    offered = loaded;
    find("about").hidden = !offered.about && !offered.note;
    find("about").textContent = [offered.about, offered.note].filter(Boolean).join(" ");
    find("style").textContent = offered.style;
    question.placeholder = offered.default_question || "the recording alone, without a question";
    find("questions").replaceChildren(...offered.questions.map((text) => button("pg-chip", text, () => {
      question.value = text;
      ask();
    })));
    if (!question.value) question.value = state.get("prompt") ?? offered.questions[0] ?? "";
    const conversation = root.querySelector("[value=conversation]");
    conversation.disabled = Boolean(offered.no_conversation);
    showMode();
    playground.askChoices.suggest(offered.choices);
    waiting.splice(0).forEach((then) => then());
  };
  const showMode = () => {
    const mode = chosen("mode");
    find("mode-note").textContent = [MODES[mode], offered?.no_conversation].filter(Boolean).join(" ");
    find("new").hidden = mode !== "conversation" || !latest?.is_conversation || startsAnew || running !== null;
  };
  const showScope = (clip) => {
    const part = openPart();
    find("scope").hidden = !part;
    find("scope-part").textContent = part ? `Only ${span(...part)}` : "";
    find("scope-whole").textContent = clip.windows.length > 1 ? `${clip.windows.length} windows, each asked alone` : "";
  };

  const showRunning = (number) => {
    running = number;
    root.querySelector("#ask").disabled = number !== null;
    find("stop").hidden = number === null;
    showMode();
  };
  const showLines = (place, lines) => place.replaceChildren(...lines.map(({ time, seconds, text }) => {
    const line = element("p");
    if (time) line.append(button("pg-button pg-quiet", time, () => player.play("clip", seconds)), " ");
    line.append(text);
    return line;
  }));
  const badgesOf = (answer) => {
    const how = answer.is_conversation ? `conversation, turn ${answer.turn}` : "one question";
    const about = answer.part ? `only ${span(...answer.part)}` : "whole recording";
    return [`${how} · ${answer.style}`, about, ...(answer.is_stopped ? ["stopped"] : []), ...(answer.cut_off ? ["cut off"] : [])];
  };
  const cardOf = (text) => {
    const card = element("article", "pg-card pg-answer");
    const title = element("h3", "", text);
    const lines = element("div", "pg-text");
    card.setAttribute("aria-busy", "true");
    lines.append(element("p", "pg-small pg-waiting", "Waiting for the first word …"));
    card.append(title, lines);
    return card;
  };
  const complete = (card, answer) => {
    const badges = element("p", "pg-badges");
    badges.append(...badgesOf(answer).map((text) => element("span", "pg-badge", text)));
    const actions = element("div", "pg-actions");
    const copyButton = button("pg-button pg-quiet", "Copy", () => copy(answer.text, copyButton));
    actions.append(copyButton, button("pg-button pg-quiet", "Ask again", () => {
      question.value = answer.question;
      ask();
    }));
    if (answer.windows === 1 && answer.text && !answer.is_stopped) {
      const seconds = button("pg-button pg-quiet", "Which seconds?", () => playground.askOcclusion.explain(answer, true));
      seconds.dataset.part = String(answer.part);
      seconds.hidden = !isOpen(answer.part);
      actions.append(seconds);
    }
    const facts = element("dl", "pg-facts");
    showFacts(facts, answer.facts);
    const details = element("details", "pg-prompt");
    const several = answer.windows > 1 ? ", of the first window" : "";
    const text = element("pre", "", answer.prompt);
    text.tabIndex = 0;
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Prompt");
    details.append(element("summary", "", "Prompt and facts"), facts, element("p", "pg-small", `The prompt${several}, as the model is given it:`), text);
    card.querySelector("h3").after(badges);
    showLines(card.querySelector(".pg-text"), answer.lines);
    const notes = [answer.cut_off, answer.note].filter(Boolean).map((note) => element("p", "pg-small", note));
    if (!answer.text) notes.push(element("p", "pg-small", answer.is_stopped ? "Stopped before the first word." : "The answer is empty."));
    card.append(...notes, actions, details);
    card.removeAttribute("aria-busy");
  };

  const ask = async () => {
    if (running !== null || !playground.clip) return;
    const number = ++count;
    const text = question.value.trim();
    const card = cardOf(text || offered?.default_question || "The recording alone");
    const data = { question: text, number, conversation: chosen("mode") === "conversation", new: startsAnew, whole: chosen("scope") === "whole" };
    state.set({ prompt: text });
    answers.prepend(card);
    find("no-answers").hidden = true;
    card.scrollIntoView({ block: "nearest" });
    showRunning(number);
    const onUpdate = ({ answer }) => {
      if (answer.lines.length) showLines(card.querySelector(".pg-text"), answer.lines);
    };
    const given = await request("ask", data, { status, busy: "Generating …", onUpdate });
    if (!given) card.remove();
    if (given) {
      startsAnew = false;
      latest = given.answer;
      complete(card, given.answer);
      if (playground.isShown("ask")) card.scrollIntoView({ block: "nearest" });
      if (card.isConnected) exportMenu?.enable();
      if (card.isConnected && given.answer.text && given.answer.windows === 1 && isOpen(given.answer.part)) playground.askOcclusion.explain(given.answer);
    }
    find("no-answers").hidden = answers.children.length > 0;
    showRunning(null);
  };

  find("ask-form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  find("stop").addEventListener("click", () => {
    setStatus(status, "Stopping …", "busy");
    request("stop", { number: running });
  });
  find("new").addEventListener("click", () => {
    startsAnew = true;
    showMode();
    question.focus();
  });
  root.querySelectorAll("[name=pg-mode]").forEach((input) => input.addEventListener("change", showMode));
  const exportMenu = playground.exportMenu?.(find("export-ask"), "ask", ["csv", "python", "command"]);

  playground.onClip((clip, isNew) => {
    showScope(clip);
    if (isNew) {
      if (running !== null) request("stop", { number: running });
      answers.replaceChildren();
      find("no-answers").hidden = false;
      latest = null;
      exportMenu?.disable();
      showMode();
    }
    answers.querySelectorAll("[data-part]").forEach((each) => { each.hidden = each.dataset.part !== String(openPart()); });
  });
  playground.onState(["prompt"], ({ prompt }) => { if (prompt !== null) question.value = prompt; });
  playground.onShow("ask", loadQuestions);
  showMode();

  // For the Audio tab's button: the default question, alone.
  playground.describeNow = () => {
    const describe = () => {
      question.value = offered.default_question;
      root.querySelector("[name=pg-mode][value=question]").checked = true;
      showMode();
      ask();
    };
    if (offered) describe();
    else waiting = [describe];
    loadQuestions();
  };
  playground.mountChoices(root);
  playground.mountOcclusion(root);
});
