// A list of rows of which only those in view are elements: it may have a million.
(() => {
  const { element, span } = playground;
  const ROW_PIXELS = 54;
  const MAX_PIXELS = 12e6; // browsers limit an element's height; beyond, the scroll bar's steps are longer
  const SPARE = 4; // rows above and below those in view

  class RowList {
    // get(index): the row or undefined; want(): rows are missing; value(row): text at its right;
    // select(index, isPlayed), hover(index), play(index).
    constructor(place, options) {
      Object.assign(this, { place, ...options, indices: [], selected: -1, hovered: -1, playing: -1, emptyText: "" });
      this.filler = element("div");
      this.filler.setAttribute("role", "presentation");
      place.append(this.filler);
      this.body = element("div");
      this.body.setAttribute("role", "rowgroup");
      place.append(this.body);
      place.addEventListener("scroll", () => this.draw());
      place.addEventListener("keydown", (event) => this.key(event));
      place.addEventListener("click", (event) => {
        const row = event.target.closest("[data-index]");
        if (row) this.select(Number(row.dataset.index), Boolean(event.target.closest("button")));
      });
      place.addEventListener("pointermove", (event) => {
        const row = event.target.closest("[data-index]");
        this.hover(row ? Number(row.dataset.index) : -1);
      });
      place.addEventListener("pointerleave", () => this.hover(-1));
      new ResizeObserver(() => this.draw()).observe(place);
    }

    // The indices of the rows to be listed, in their order.
    show(indices, emptyText = "") {
      Object.assign(this, { indices, emptyText });
      this.filler.style.height = `${Math.min(MAX_PIXELS, indices.length * ROW_PIXELS)}px`;
      this.place.setAttribute("aria-rowcount", indices.length);
      this.place.scrollTop = 0;
      this.draw();
    }
    // Which rows are in view, and where the first one is.
    inView() {
      const { scrollTop, clientHeight } = this.place;
      const all = this.indices.length * ROW_PIXELS;
      const share = all <= MAX_PIXELS ? 1 : (all - clientHeight) / (MAX_PIXELS - clientHeight);
      const first = Math.max(0, Math.floor((scrollTop * share) / ROW_PIXELS) - SPARE);
      const count = Math.ceil(clientHeight / ROW_PIXELS) + 2 * SPARE + 1;
      return { first, end: Math.min(this.indices.length, first + count), shift: scrollTop - scrollTop * share };
    }
    wanted() {
      if (!this.place.clientHeight) return [];
      const { first, end } = this.inView();
      return Array.from(this.indices.slice(first, end));
    }
    draw() {
      if (this.isWaiting) return;
      this.isWaiting = true;
      requestAnimationFrame(() => { this.isWaiting = false; this.render(); });
    }
    render() {
      const { first, end, shift } = this.inView();
      const rows = [];
      for (let at = first; at < end; at += 1) rows.push(this.element(this.indices[at], at, shift));
      if (!this.indices.length) rows.push(this.nothing());
      this.body.replaceChildren(...rows);
      const active = rows.find((row) => row.dataset.index === String(this.selected));
      if (active) this.place.setAttribute("aria-activedescendant", active.id);
      else this.place.removeAttribute("aria-activedescendant");
      this.want();
    }
    nothing() {
      const row = element("div");
      row.setAttribute("role", "row");
      const cell = element("div", "pg-nothing", this.emptyText);
      cell.setAttribute("role", "gridcell");
      row.style.display = "block";
      row.append(cell);
      return row;
    }
    element(index, at, shift) {
      const data = this.get(index);
      const row = element("div");
      row.id = `pg-row-${index}`;
      row.dataset.index = index;
      row.setAttribute("role", "row");
      row.setAttribute("aria-rowindex", at + 1);
      row.setAttribute("aria-selected", String(index === this.selected));
      row.style.top = `${at * ROW_PIXELS + shift}px`;
      if (index === this.hovered) row.dataset.hovered = "yes";
      if (index === this.playing) row.dataset.playing = "yes";
      const cell = (made) => { made.setAttribute("role", "gridcell"); row.append(made); return made; };
      const name = data ? `${data.name} ${span(data.start, data.end)}` : `row ${index + 1}`;
      const play = element("button", "pg-row-play", index === this.playing ? "❚❚" : "▶");
      play.type = "button";
      play.tabIndex = -1; // Enter plays
      play.setAttribute("aria-label", `Play ${name}`);
      cell(element("div")).append(play);
      const text = cell(element("div", "pg-row-text"));
      const line = element("div");
      line.append(element("b", "", data ? data.name : "…"), data ? element("small", "", ` ${span(data.start, data.end)}`) : "");
      text.append(line);
      if (data?.caption) text.append(element("div", "", data.caption));
      cell(element("div", "pg-row-value", data ? this.value(data) : ""));
      return row;
    }
    mark(marks) {
      Object.assign(this, marks);
      this.draw();
    }
    // Scrolls to a row, if it is listed.
    reveal(index) {
      const at = this.indices.indexOf(index);
      if (at < 0) return;
      const { first, end } = this.inView();
      if (at > first + SPARE && at < end - SPARE - 1) return;
      const { clientHeight } = this.place;
      const all = this.indices.length * ROW_PIXELS;
      const share = all <= MAX_PIXELS ? 1 : (all - clientHeight) / (MAX_PIXELS - clientHeight);
      this.place.scrollTop = Math.max(0, at * ROW_PIXELS - clientHeight / 3) / share;
    }
    key(event) {
      const { indices } = this;
      if (!indices.length || event.ctrlKey || event.metaKey || event.altKey) return;
      const at = indices.indexOf(this.selected);
      const page = Math.max(1, Math.floor(this.place.clientHeight / ROW_PIXELS) - 1);
      const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: indices.length - 1 };
      if (event.key in moves) {
        const index = indices[Math.min(indices.length - 1, Math.max(0, moves[event.key]))];
        this.select(index, false);
        this.reveal(index);
      } else if ((event.key === "Enter" || event.key === " ") && at >= 0) this.select(this.selected, true);
      else return;
      event.preventDefault();
    }
  }

  Object.assign(playground, { RowList });
})();
