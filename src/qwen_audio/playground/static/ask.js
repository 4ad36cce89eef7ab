// Ask: suggestions fill the question in; a second click while an answer comes gets a sentence.
playground.ask = (root) => {
  const box = () => document.querySelector("#question textarea");
  root.querySelectorAll("button").forEach((chip) => {
    chip.addEventListener("click", () => {
      const { set } = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");
      set.call(box(), chip.textContent);
      box().dispatchEvent(new Event("input", { bubbles: true }));
      box().focus();
    });
  });
  let busy = false;
  const begin = (event) => {
    if (busy) {
      const status = document.querySelector("#ask-status");
      playground.say(status, "One question at a time: the last answer is still coming.", "note");
      event.stopImmediatePropagation();
      event.preventDefault();
    } else playground.say(document.querySelector("#ask-status"), "Listening …", "busy");
    busy = true;
  };
  playground.refused.push(() => { busy = false; });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#ask")) begin(event);
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && event.target.closest("#question")) begin(event);
  }, true);
  // Of another recording nothing has been said yet.
  playground.onClip((_, another) => { if (another) playground.gone("ask"); });
  playground.answered = () => {
    busy = false;
    if (document.querySelector(".pg-answer dl")) playground.changed("ask");
    playground.say(document.querySelector("#ask-status"));
  };
};
