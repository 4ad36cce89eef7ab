// A picture with a time axis: a readout at the pointer, a playhead, and the part that is selected.
(() => {
  const { clock, element } = playground;
  const DRAG_PIXELS = 4; // less is a click
  const strips = new Set();

  class TimeStrip {
    // source: of the player ("clip", "other" …); select(start, end) is called for seconds dragged over.
    constructor(place, source, select = null) {
      Object.assign(this, { place, source, select, start: 0, end: 1, describe: () => "", drag: null });
      this.playhead = element("i", "pg-playhead");
      this.hint = element("output", "pg-hint");
      this.mark = element("i", "pg-selected");
      place.classList.add("pg-strip");
      place.append(this.mark, this.playhead, this.hint);
      place.tabIndex = 0;
      place.setAttribute("role", "slider");
      place.addEventListener("pointerdown", (event) => this.down(event));
      place.addEventListener("pointermove", (event) => this.move(event));
      place.addEventListener("pointerup", (event) => this.up(event));
      place.addEventListener("pointercancel", () => { this.drag = null; });
      place.addEventListener("pointerleave", () => { this.hint.hidden = true; });
      place.addEventListener("keydown", (event) => this.key(event));
      this.hint.hidden = this.mark.hidden = true;
      strips.add(this);
    }

    // The seconds that it shows; describe(seconds, event) is what the readout says after the time.
    set(start, end, describe = this.describe) {
      Object.assign(this, { start, end, describe });
      this.place.setAttribute("aria-valuemin", start);
      this.place.setAttribute("aria-valuemax", end);
      this.place.setAttribute("aria-valuenow", start);
      this.playhead.hidden = true;
      if (playground.player.source === this.source) this.follow(playground.player.seconds());
      this.showSelected(playground.player.selection);
    }

    share(seconds) {
      return Math.min(1, Math.max(0, (seconds - this.start) / (this.end - this.start)));
    }

    at(event) {
      const box = this.place.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      return this.start + share * (this.end - this.start);
    }

    down(event) {
      if (event.button !== 0 || event.target.closest("button")) return;
      this.drag = { x: event.clientX, from: this.at(event), isSelecting: false };
      if (this.select && event.pointerType !== "touch") this.place.setPointerCapture(event.pointerId);
    }

    move(event) {
      const seconds = this.at(event);
      if (this.drag && this.select && event.pointerType !== "touch") {
        this.drag.isSelecting ||= Math.abs(event.clientX - this.drag.x) > DRAG_PIXELS;
        if (this.drag.isSelecting) this.select(Math.min(this.drag.from, seconds), Math.max(this.drag.from, seconds));
      }
      this.hint.textContent = `${clock(seconds, 2)}${this.describe(seconds, event)}`;
      this.hint.hidden = false;
      const share = this.share(seconds);
      this.hint.style.left = `${100 * share}%`;
      this.hint.style.transform = `translateX(${-100 * share}%)`;
    }

    up(event) {
      if (this.drag && !this.drag.isSelecting) playground.player.play(this.source, this.at(event));
      this.drag = null;
    }

    key(event) {
      const { player } = playground;
      const now = player.source === this.source ? player.seconds() : this.start;
      const step = (this.end - this.start) / 60;
      const moves = { ArrowLeft: now - step, ArrowRight: now + step, Home: this.start, End: this.end };
      if (event.key in moves) {
        player.seek(this.source, Math.min(this.end, Math.max(this.start, moves[event.key])));
        this.announce();
      } else if (event.key === "Enter") player.toggle(this.source);
      else return;
      event.preventDefault();
    }

    // What the readout says where the playhead is, for those who move it by keyboard.
    announce() { this.place.setAttribute("aria-valuetext", this.spoken(playground.player.seconds())); }
    spoken(seconds) {
      const box = this.place.getBoundingClientRect();
      const event = { clientX: box.left + this.share(seconds) * box.width, clientY: box.top + box.height / 2 };
      return `${clock(seconds, 2)}${this.describe(seconds, event)}`;
    }

    follow(seconds) {
      this.playhead.style.left = `${100 * this.share(seconds)}%`;
      this.playhead.hidden = seconds < this.start - 1e-6 || seconds > this.end + 1e-6;
      this.place.setAttribute("aria-valuenow", seconds.toFixed(2));
      const isMoved = document.activeElement === this.place && playground.player.audio.paused;
      this.place.setAttribute("aria-valuetext", isMoved ? this.spoken(seconds) : clock(seconds, 2));
    }

    showSelected(selection) {
      const shown = this.source === "clip" && selection && selection.end > this.start && selection.start < this.end;
      this.mark.hidden = !shown;
      if (!shown) return;
      this.mark.style.left = `${100 * this.share(selection.start)}%`;
      this.mark.style.right = `${100 * (1 - this.share(selection.end))}%`;
    }
  }

  Object.assign(playground, { TimeStrip, strips });
})();
