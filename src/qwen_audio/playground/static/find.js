// Find: the nearest windows of a collection, each to be heard.
playground.find = (root, props, watch) => {
  const { element, player, say, send, span } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  let asked = 0;
  let wanted = 0;
  const hear = (request) => { wanted = send("hear", request); };
  const map = playground.map(find("chart"), hear);
  const search = (request) => {
    say(status, "Searching …", "busy");
    asked = send("find", request);
  };
  find("by-clip").addEventListener("click", () => search({}));
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search({ text: find("text").value });
  });
  watch("value", () => {
    const found = props.value;
    if (!found || found.n !== asked) return;
    if (found.problem) return say(status, found.problem, "problem");
    say(status, found.hits.length ? "" : "Nothing was found: try other words.", "note");
    if (found.hits.length) say(status);
    find("hits").replaceChildren(...found.hits.map((hit, number) => {
      const row = element("li");
      const play = element("button", "pg-play", "▶");
      play.type = "button";
      play.setAttribute("aria-label", `Play ${hit.name}`);
      play.addEventListener("click", () => hear({ hit: number }));
      const words = element("div");
      words.append(element("b", "", hit.name),
        element("span", "pg-small", ` ${span(hit.start, hit.end)}`));
      if (hit.caption) words.append(element("p", "pg-small", hit.caption));
      row.append(play, words, element("span", "pg-score", hit.score.toFixed(3)));
      return row;
    }));
    const fit = found.words === null ? "their likeness (the cosine of the two, 1 at most)" : "how well their captions fit";
    find("found").textContent = found.hits.length ? `The nearest come first; the number is ${fit}.` : "";
    map.ring(found.points);
    playground.changed("find");
  });
  playground.found = (heard) => {
    if (!heard || heard.n !== wanted) return;
    if (heard.problem) return say(status, heard.problem, "problem");
    player.load("found", heard.name, heard.sound, heard.start);
    player.play("found", heard.start);
  };
};
