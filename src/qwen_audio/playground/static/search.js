// Search tab: similar windows of a collection, or those whose captions match, to be played.
playground.searchTab = (root, props, watch, about) => {
  const { element, player, setStatus, send, span } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  find("about").textContent = about;
  let searchId = 0;
  let playId = 0;
  const play = (request) => { playId = send("play", request); };
  const map = playground.map(find("chart"), play);
  const search = (request) => {
    setStatus(status, "Searching …", "busy");
    searchId = send("search", request);
  };
  find("by-clip").addEventListener("click", () => search({}));
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search({ text: find("text").value });
  });
  watch("value", () => {
    const answer = props.value;
    if (!answer || answer.n !== searchId) return;
    if (answer.problem) return setStatus(status, answer.problem, "problem");
    setStatus(status, answer.results.length ? "" : "No results: try other words.", "note");
    if (answer.results.length) setStatus(status);
    find("results").replaceChildren(...answer.results.map((result, index) => {
      const row = element("li");
      const button = element("button", "pg-play", "▶");
      button.type = "button";
      button.setAttribute("aria-label", `Play ${result.name}`);
      button.addEventListener("click", () => play({ result: index }));
      const words = element("div");
      words.append(element("b", "", result.name),
        element("span", "pg-small", ` ${span(result.start, result.end)}`));
      if (result.caption) words.append(element("p", "pg-small", result.caption));
      row.append(button, words, element("span", "pg-score", result.score.toFixed(3)));
      return row;
    }));
    const meaning = answer.text === null ? "their cosine similarity (at most 1)" : "the relevance of their captions";
    find("score-note").textContent = answer.results.length ? `Best match first; the number is ${meaning}.` : "";
    map.highlight(answer.points);
    playground.enableDownloads("search");
  });
  playground.playResult = (answer) => {
    if (!answer || answer.n !== playId) return;
    if (answer.problem) return setStatus(status, answer.problem, "problem");
    player.load("result", answer.name, answer.wav, answer.start);
    player.play("result", answer.start);
  };
};
