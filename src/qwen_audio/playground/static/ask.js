// Ask tab: suggested questions; a second request while an answer is generated is refused.
playground.askTab = (root) => {
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
      playground.setStatus(status, "One question at a time: wait for the current answer.", "note");
      event.stopImmediatePropagation();
      event.preventDefault();
    } else playground.setStatus(document.querySelector("#ask-status"), "Generating …", "busy");
    busy = true;
  };
  playground.onRejected.push(() => { busy = false; });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#ask")) begin(event);
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && event.target.closest("#question")) begin(event);
  }, true);
  // Answers belong to one recording.
  playground.onClip((_, isNew) => { if (isNew) playground.disableDownloads("ask"); });
  playground.finishAnswer = () => {
    busy = false;
    if (document.querySelector(".pg-answer dl")) playground.enableDownloads("ask");
    playground.setStatus(document.querySelector("#ask-status"));
  };
};
