// Shared by all parts of the page: elements, times, status lines, words of the glossary.
"use strict";
(() => {
  const element = (tag, classes = "", text = "") => {
    const made = document.createElement(tag);
    if (classes) made.className = classes;
    made.textContent = text;
    return made;
  };
  // A time such as 1:02.5, rounded first, so that 59.97 s is 1:00.0 and not 0:60.0.
  const clock = (seconds, digits = 1) => {
    const unit = 10 ** digits;
    const units = Math.round(Math.max(0, seconds) * unit);
    const rest = ((units % (60 * unit)) / unit).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
    return `${Math.floor(units / (60 * unit))}:${rest}`;
  };
  const span = (start, end) => {
    const digits = [start, end].every(Number.isInteger) ? 0 : 1;
    return `${clock(start, digits)}–${clock(end, digits)}`;
  };
  // A number with a true minus sign.
  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

  // A status line. Problems are announced to screen readers at once.
  const setStatus = (place, text = "", kind = "") => {
    place.textContent = text;
    place.dataset.kind = kind;
    place.setAttribute("role", kind === "problem" ? "alert" : "status");
  };

  const showFacts = (place, pairs) => place.replaceChildren(...pairs.map(([label, value]) => {
    const fact = element("div");
    fact.append(element("dt", "", label), element("dd", "", value));
    return fact;
  }));

  // A loop: `from` with a function takes twenty times as long, which is felt with megabytes.
  const decodeBase64 = (text) => {
    const letters = atob(text);
    const bytes = new Uint8Array(letters.length);
    for (let k = 0; k < bytes.length; k += 1) bytes[k] = letters.charCodeAt(k);
    return bytes;
  };

  const copy = async (text, button) => {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch { // clipboards are for https and localhost only
      button.textContent = "Select the text and copy it";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  };

  // Scrolls to a result that appears outside what is in view.
  const reveal = (place) => requestAnimationFrame(() => {
    const box = place.getBoundingClientRect();
    const view = document.querySelector("[data-scroll]").getBoundingClientRect();
    if (box.bottom > view.bottom || box.top < view.top) place.scrollIntoView({ block: box.height > view.height - 80 ? "start" : "nearest" });
  });

  // Saves bytes (base64) as a file of the visitor: the server writes nothing to its disk.
  const download = ({ name, type, bytes }) => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([decodeBase64(bytes)], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // A word of the glossary: a button whose explanation shows when it is pointed at, focused or pressed.
  let tip = null;
  const showTerm = (button) => {
    const meaning = playground.facts.glossary[button.dataset.term];
    tip ??= document.body.appendChild(element("div", "pg-tip"));
    tip.id = "pg-tip";
    tip.setAttribute("role", "tooltip");
    tip.textContent = meaning;
    tip.hidden = false;
    button.setAttribute("aria-describedby", "pg-tip");
    const box = button.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, window.innerWidth - tip.offsetWidth - 8));
    const below = box.bottom + 6;
    const top = below + tip.offsetHeight > window.innerHeight ? box.top - tip.offsetHeight - 6 : below;
    Object.assign(tip.style, { left: `${left}px`, top: `${Math.max(8, top)}px` });
  };
  const hideTerm = () => { if (tip) tip.hidden = true; };
  const term = (name, text = name) => {
    const button = element("button", "pg-term", text);
    button.type = "button";
    button.dataset.term = name;
    return button;
  };
  const termOf = (event) => event.target.closest?.("[data-term]");
  ["pointerover", "focusin", "click"].forEach((kind) => document.addEventListener(kind, (event) => {
    if (termOf(event)) showTerm(termOf(event));
  }));
  ["pointerout", "focusout"].forEach((kind) => document.addEventListener(kind, (event) => {
    if (termOf(event)) hideTerm();
  }));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTerm(); });

  Object.assign(playground, { clock, copy, decodeBase64, download, element, number, reveal, setStatus, showFacts, span, term });
})();
