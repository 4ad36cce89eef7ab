// Ask tab: how likely each of several given answers is.
playground.mountChoices = (root) => {
  const { element, number, request } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("choices-status");

  const percent = (share) => (share < 0.0005 ? "< 0.1 %" : share > 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`);
  const rowOf = ({ choice, probability, log_probability: logProbability, tokens }) => {
    const row = element("tr");
    const name = element("th", "", choice);
    name.scope = "row";
    const cell = element("td");
    const bar = element("span", "pg-bar");
    const fill = element("i");
    fill.style.width = `${100 * probability}%`;
    bar.append(fill);
    cell.append(bar, element("b", "", percent(probability)));
    const score = element("td", "pg-number", number(logProbability));
    score.title = `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
    row.append(name, cell, score);
    return row;
  };
  const score = async () => {
    const data = { question: find("choices-question").value, choices: find("choices").value.split("\n") };
    const scored = await request("score", data, { latest: true, status, busy: "Scoring the choices …" });
    if (!scored) {
      if (status.dataset.kind === "problem") hide(); // not that of other choices
      return;
    }
    find("choices-rows").replaceChildren(...scored.rows.map(rowOf));
    find("mass").textContent = scored.mass_text;
    find("mass").dataset.kind = scored.is_low ? "note" : "";
    find("choices-given").textContent = `Asked as “${scored.question}”, computed in ${scored.dtype}. A longer choice has more tokens, and so a lower log P.`;
    find("choices-result").hidden = false;
    playground.reveal(find("choices-result"));
    exportMenu?.enable();
  };
  find("choices-form").addEventListener("submit", (event) => { event.preventDefault(); score(); });
  const exportMenu = playground.exportMenu?.(find("export-choices"), "choices", ["png", "svg", "csv", "npz", "python", "command"]);
  const hide = () => {
    find("choices-result").hidden = true;
    exportMenu?.disable();
  };
  playground.onClip(hide);

  // Sets of choices, each with its question: one click scores them.
  const fill = ({ question, choices }) => {
    find("choices-question").value = question;
    find("choices").value = choices.join("\n");
    find("choices").rows = Math.min(6, Math.max(2, choices.length));
  };
  playground.askChoices = {
    suggest(sets) {
      find("choice-sets").replaceChildren(...sets.map((set) => {
        const chip = element("button", "pg-chip", set.question);
        chip.type = "button";
        chip.title = set.choices.join(" / ");
        chip.addEventListener("click", () => { fill(set); score(); });
        return chip;
      }));
      if (sets.length && !find("choices").value) fill(sets[0]);
    },
  };
};
