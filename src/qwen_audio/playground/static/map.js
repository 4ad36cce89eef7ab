// The map of the Collection tab: a point a row, drawn into an image, so that a million can be moved.
(() => {
  const { decodeBase64 } = playground;
  // IBM Carbon's categorical colours for data, which are 3:1 on the ground of their theme.
  const KINDS = {
    light: ["#6929c4", "#1192e8", "#005d5d", "#9f1853", "#fa4d56", "#570408", "#198038", "#002d9c", "#ee538b", "#b28600"],
    dark: ["#8a3ffc", "#33b1ff", "#007d79", "#ff7eb6", "#fa4d56", "#fff1f1", "#6fdc8c", "#4589ff", "#d12771", "#d2a106"],
  };
  // The parts of matplotlib's plasma that are 3:1 on the ground of a theme.
  Object.assign(playground.STOPS, {
    points: ["#0d0887", "#46039f", "#7201a8", "#9c179e", "#bd3786", "#d8576b"],
    pointsDark: ["#bd3786", "#d8576b", "#ed7953", "#fb9f3a", "#fdca26", "#f0f921"],
  });
  const OTHER = 10;
  const NONE = 255;
  const LEVELS = 254; // of numbers
  const FEW = 5000; // up to so many have an outline
  const REACH = 14; // pixels from the pointer to a point
  const CELLS = 256; // of the grid on each axis, by which points are found
  const EDGE = 18;
  const MAX_ZOOM = 200;

  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

  class PointMap {
    // hover(k, event), select(k), brush(Uint8Array of what is inside, or null).
    constructor(place, { hover, select, brush }) {
      Object.assign(this, { place, hover, select, brush, count: 0, codes: null, isNumber: false, kept: null });
      this.canvas = place.querySelector("canvas");
      this.hint = place.querySelector(".pg-hint");
      this.frame = place.querySelector(".pg-brush");
      this.marks = { hovered: -1, selected: -1, playing: -1, found: [] };
      this.view = { zoom: 1, x: 0, y: 0 };
      this.isBrushing = false;
      this.drag = null;
      this.frames = 0;
      this.listen();
    }

    setPoints({ x, y, width, height }) {
      this.x = new Uint16Array(decodeBase64(x).buffer);
      this.y = new Uint16Array(decodeBase64(y).buffer);
      this.size = { width, height };
      this.count = this.x.length;
      this.makeGrid();
      this.fit();
    }
    setColours(codes, isNumber) {
      Object.assign(this, { codes, isNumber });
      this.draw();
    }
    setKept(kept) { this.kept = kept; this.draw(); }
    setMarks(marks) { Object.assign(this.marks, marks); this.draw(); }

    // The points of each cell of a grid, one cell after another.
    makeGrid() {
      const { x, y, count } = this;
      this.starts = new Uint32Array(CELLS * CELLS + 1);
      for (let k = 0; k < count; k += 1) this.starts[(y[k] >> 8) * CELLS + (x[k] >> 8) + 1] += 1;
      for (let cell = 0; cell < CELLS * CELLS; cell += 1) this.starts[cell + 1] += this.starts[cell];
      const next = this.starts.slice();
      this.items = new Uint32Array(count);
      for (let k = 0; k < count; k += 1) this.items[next[(y[k] >> 8) * CELLS + (x[k] >> 8)]++] = k;
    }

    // Pixels a step of the coordinates, and where their origin is; y points up.
    transform() {
      const { canvas: { clientWidth: width, clientHeight: height }, size, view } = this;
      const fit = Math.min((width - 2 * EDGE) / (size.width || 1), (height - 2 * EDGE) / (size.height || 1), 1);
      const scale = fit * view.zoom;
      return { scale, left: width / 2 - (size.width / 2 + view.x) * scale, bottom: height / 2 + (size.height / 2 + view.y) * scale };
    }
    place_of(k) {
      const { scale, left, bottom } = this.transform();
      return [left + this.x[k] * scale, bottom - this.y[k] * scale];
    }
    fit() { this.view = { zoom: 1, x: 0, y: 0 }; this.draw(); }
    // About a place; by default the middle, or the point nearest to it.
    zoom(factor, px = null, py = null) {
      if (px === null) [px, py] = factor > 1 ? this.middlePoint() : [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
      const before = this.transform();
      const [x, y] = [(px - before.left) / before.scale, (before.bottom - py) / before.scale];
      this.view.zoom = Math.min(MAX_ZOOM, Math.max(0.5, this.view.zoom * factor));
      const after = this.transform();
      this.pan(px - (after.left + x * after.scale), py - (after.bottom - y * after.scale));
    }
    middlePoint() {
      const [x, y] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
      let [best, least] = [[x, y], Infinity];
      for (let k = 0; k < this.x.length; k += 1) {
        const [px, py] = this.place_of(k);
        const distance = (px - x) ** 2 + (py - y) ** 2;
        if (distance < least) [best, least] = [[px, py], distance];
      }
      return best;
    }
    pan(dx, dy) {
      const { scale } = this.transform();
      const limit = (value, size) => Math.max(-size, Math.min(size, value));
      this.view.x = limit(this.view.x - dx / scale, this.size.width / 2);
      this.view.y = limit(this.view.y + dy / scale, this.size.height / 2);
      this.draw();
    }

    colourOf(code) {
      const dark = playground.dark();
      if (!this.codes) return rgb(dark ? "#98a5ff" : "#3d4fc4");
      if (code === NONE || (!this.isNumber && code === OTHER)) return rgb(dark ? "#7b8394" : "#868d9b");
      if (this.isNumber) return playground.palette(dark ? "pointsDark" : "points")[Math.round((255 * code) / LEVELS)];
      return rgb(KINDS[dark ? "dark" : "light"][code]);
    }

    draw() {
      if (this.isWaiting) return;
      this.isWaiting = true;
      requestAnimationFrame(() => { this.isWaiting = false; this.paint(); });
    }
    paint() {
      const { canvas } = this;
      if (!this.count || !canvas.clientWidth) return;
      const ratio = Math.min(2, window.devicePixelRatio || 1);
      const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.round(length * ratio));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const pen = canvas.getContext("2d");
      pen.setTransform(1, 0, 0, 1, 0, 0);
      if (this.count <= FEW) this.paintDiscs(pen, ratio);
      else this.paintPixels(pen, ratio, width, height);
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.paintMarks(pen);
      this.frames += 1;
    }
    paintDiscs(pen, ratio) {
      const { x, y, codes, kept, count } = this;
      pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      const { scale, left, bottom } = this.transform();
      const radius = this.radius();
      const outline = playground.dark() ? "#181b23" : "#ffffff";
      const styles = Array.from({ length: 256 }, (_, code) => (this.isNumber || code <= OTHER || code === NONE ? `rgb(${this.colourOf(code).map(Math.round)})` : ""));
      for (const isKept of kept ? [0, 1] : [1]) {
        pen.globalAlpha = isKept ? 1 : 0.18;
        pen.lineWidth = 1;
        pen.strokeStyle = outline;
        for (let k = 0; k < count; k += 1) {
          if (kept && kept[k] !== isKept) continue;
          pen.beginPath();
          pen.arc(left + x[k] * scale, bottom - y[k] * scale, isKept ? radius : radius * 0.8, 0, 2 * Math.PI);
          pen.fillStyle = styles[codes ? codes[k] : 0];
          pen.fill();
          if (isKept) pen.stroke();
        }
      }
      pen.globalAlpha = 1;
    }
    radius() {
      const base = this.count > 200000 ? 1 : this.count > FEW ? 1.6 : this.count > 300 ? 4 : 6;
      return base * Math.min(3, Math.max(1, Math.sqrt(this.view.zoom) * 0.8));
    }
    // Many points: blended into an image, so that where there are many more of a colour it is stronger.
    paintPixels(pen, ratio, width, height) {
      const { x, y, codes, kept, count } = this;
      if (this.image?.width !== width || this.image?.height !== height) this.image = new ImageData(width, height);
      const bytes = this.image.data;
      const ground = rgb(playground.dark() ? "#181b23" : "#ffffff");
      new Uint32Array(bytes.buffer).fill(0xff000000 | (ground[2] << 16) | (ground[1] << 8) | ground[0]);
      const { scale, left, bottom } = this.transform();
      const radius = Math.max(1, Math.round(this.radius() * ratio));
      const stamp = [];
      for (let dy = -radius; dy <= radius; dy += 1) {
        for (let dx = -radius; dx <= radius; dx += 1) if (dx * dx + dy * dy <= (radius + 0.3) ** 2) stamp.push(4 * (dy * width + dx));
      }
      const table = new Uint8Array(768);
      for (let code = 0; code < 256; code += 1) if (this.isNumber || code <= OTHER || code === NONE) table.set(this.colourOf(code).map(Math.round), 3 * code);
      const full = count > 200000 ? 110 : count > 20000 ? 170 : 215; // of 256
      for (const isKept of kept ? [0, 1] : [1]) {
        const alpha = isKept ? full : 24;
        for (let k = 0; k < count; k += 1) {
          if (kept && kept[k] !== isKept) continue;
          const px = Math.round((left + x[k] * scale) * ratio);
          const py = Math.round((bottom - y[k] * scale) * ratio);
          if (px < radius || py < radius || px >= width - radius || py >= height - radius) continue;
          const centre = 4 * (py * width + px);
          const at = 3 * (codes ? codes[k] : 0);
          const [red, green, blue] = [table[at], table[at + 1], table[at + 2]];
          for (let s = 0; s < stamp.length; s += 1) {
            const pixel = centre + stamp[s];
            bytes[pixel] += ((red - bytes[pixel]) * alpha) >> 8;
            bytes[pixel + 1] += ((green - bytes[pixel + 1]) * alpha) >> 8;
            bytes[pixel + 2] += ((blue - bytes[pixel + 2]) * alpha) >> 8;
          }
        }
      }
      pen.putImageData(this.image, 0, 0);
    }
    paintMarks(pen) {
      const style = (name) => getComputedStyle(this.place).getPropertyValue(name).trim();
      const ring = (k, add, width, colour) => {
        if (k < 0 || k >= this.count) return;
        const [px, py] = this.place_of(k);
        pen.beginPath();
        pen.arc(px, py, Math.max(4, this.radius()) + add, 0, 2 * Math.PI);
        Object.assign(pen, { lineWidth: width, strokeStyle: colour });
        pen.stroke();
      };
      const { found, hovered, selected, playing } = this.marks;
      found.forEach((k) => ring(k, 3, 1.5, style("--pg-ink")));
      ring(hovered, 2, 2, style("--pg-accent"));
      ring(playing, 7, 2, style("--pg-head"));
      ring(selected, 5, 3, style("--pg-head"));
    }

    // The point under a pixel; -1: none. Of several the nearest.
    at(px, py) {
      if (!this.count) return -1;
      const { scale, left, bottom } = this.transform();
      const [sx, sy, reach] = [(px - left) / scale, (bottom - py) / scale, REACH / scale];
      const cell = (value) => Math.min(CELLS - 1, Math.max(0, Math.floor(value / 256)));
      let [best, least] = [-1, reach * reach];
      for (let row = cell(sy - reach); row <= cell(sy + reach); row += 1) {
        const first = this.starts[row * CELLS + cell(sx - reach)];
        const end = this.starts[row * CELLS + cell(sx + reach) + 1];
        for (let item = first; item < end; item += 1) {
          const k = this.items[item];
          if (this.kept && !this.kept[k]) continue;
          const distance = (this.x[k] - sx) ** 2 + (this.y[k] - sy) ** 2;
          if (distance < least) [best, least] = [k, distance];
        }
      }
      return best;
    }
    // The nearest point in a direction, within 45° of it.
    towards(k, dx, dy) {
      let [best, least] = [k, Infinity];
      for (let other = 0; other < this.count; other += 1) {
        if (this.kept && !this.kept[other]) continue;
        const [rx, ry] = [this.x[other] - this.x[k], this.y[other] - this.y[k]];
        const along = rx * dx + ry * dy;
        if (along <= 0 || Math.abs(rx * dy - ry * dx) > along) continue;
        const distance = rx * rx + ry * ry;
        if (distance < least) [best, least] = [other, distance];
      }
      return best;
    }
    inside(x0, y0, x1, y1) {
      const { scale, left, bottom } = this.transform();
      const [low, high] = [(Math.min(x0, x1) - left) / scale, (Math.max(x0, x1) - left) / scale];
      const [under, over] = [(bottom - Math.max(y0, y1)) / scale, (bottom - Math.min(y0, y1)) / scale];
      const mask = new Uint8Array(this.count);
      for (let k = 0; k < this.count; k += 1) {
        if (this.x[k] >= low && this.x[k] <= high && this.y[k] >= under && this.y[k] <= over) mask[k] = 1;
      }
      return mask;
    }
    selectInView() { this.brush(this.inside(0, 0, this.canvas.clientWidth, this.canvas.clientHeight)); }
    setBrushing(isBrushing) {
      this.isBrushing = isBrushing;
      if (isBrushing) this.place.dataset.brushing = "yes";
      else delete this.place.dataset.brushing;
    }
    // Moves the view if a point is outside of it.
    reveal(k) {
      const [px, py] = this.place_of(k);
      const { clientWidth: width, clientHeight: height } = this.canvas;
      if (px < 8 || py < 8 || px > width - 8 || py > height - 8) this.pan(width / 2 - px, height / 2 - py);
    }
    showHint(k, text) {
      this.hint.hidden = k < 0;
      if (k < 0) return;
      this.hint.textContent = text;
      const [px, py] = this.place_of(k);
      const share = Math.min(1, Math.max(0, px / this.canvas.clientWidth));
      Object.assign(this.hint.style, { left: `${px}px`, top: `${py < 46 ? py + 16 : py - 40}px`, transform: `translateX(${-100 * share}%)` });
    }

    listen() {
      const { canvas } = this;
      const where = (event) => {
        const box = canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        canvas.setPointerCapture(event.pointerId);
        const [x, y] = where(event);
        this.drag = { x, y, lastX: x, lastY: y, isMoved: false, isBrush: event.shiftKey || this.isBrushing };
      });
      canvas.addEventListener("pointermove", (event) => {
        const [x, y] = where(event);
        const { drag } = this;
        if (!drag) return this.hover(this.at(x, y));
        drag.isMoved ||= Math.hypot(x - drag.x, y - drag.y) > 4;
        if (!drag.isMoved) return null;
        if (drag.isBrush) {
          this.frame.hidden = false;
          return Object.assign(this.frame.style, { left: `${Math.min(x, drag.x)}px`, top: `${Math.min(y, drag.y)}px`,
            width: `${Math.abs(x - drag.x)}px`, height: `${Math.abs(y - drag.y)}px` });
        }
        this.place.dataset.panning = "yes";
        this.pan(x - drag.lastX, y - drag.lastY);
        return Object.assign(drag, { lastX: x, lastY: y });
      });
      const end = (event) => {
        const { drag } = this;
        this.drag = null;
        this.frame.hidden = true;
        delete this.place.dataset.panning;
        if (!drag || event.type === "pointercancel") return;
        const [x, y] = where(event);
        if (drag.isMoved && drag.isBrush) this.brush(this.inside(drag.x, drag.y, x, y));
        else if (!drag.isMoved) {
          const k = this.at(x, y);
          if (k >= 0) this.select(k, true);
        }
      };
      canvas.addEventListener("pointerup", end);
      canvas.addEventListener("pointercancel", end);
      canvas.addEventListener("pointerleave", () => this.hover(-1));
      canvas.addEventListener("dblclick", (event) => this.zoom(2, ...where(event)));
      canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return; // the page scrolls
        event.preventDefault();
        this.zoom(event.deltaY > 0 ? 0.8 : 1.25, ...where(event));
      }, { passive: false });
      canvas.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(canvas);
      playground.onTheme(() => this.draw());
    }
    key(event) {
      if (!this.count || event.ctrlKey || event.metaKey || event.altKey) return;
      const { selected } = this.marks;
      const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (event.key in directions) {
        const [dx, dy] = directions[event.key];
        if (event.shiftKey) this.pan(-60 * dx, 60 * dy);
        else this.select(selected < 0 ? this.first() : this.towards(selected, dx, dy), false);
      } else if (event.key === "+" || event.key === "=") this.zoom(1.5, ...(selected < 0 ? [] : this.place_of(selected)));
      else if (event.key === "-") this.zoom(1 / 1.5);
      else if (event.key === "0") this.fit();
      else if ((event.key === "Enter" || event.key === " ") && selected >= 0) this.select(selected, true);
      else return;
      event.preventDefault();
    }
    first() {
      const first = this.kept ? this.kept.indexOf(1) : 0;
      return first < 0 ? 0 : first;
    }
  }

  Object.assign(playground, { PointMap, MAP_CODES: { OTHER, NONE, LEVELS } });
})();
