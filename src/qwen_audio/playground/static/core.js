// Shared by all tabs: requests through Gradio, drawing, time axes and the audio player.
"use strict";
window.playground = (() => {
  const channels = {};
  const decodeBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const clock = (seconds, digits = 1) => {
    const unit = 10 ** digits;
    const units = Math.round(Math.max(0, seconds) * unit); // rounded first, so that 59.97 s is 1:00.0 and not 0:60.0
    const rest = ((units % (60 * unit)) / unit).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
    return `${Math.floor(units / (60 * unit))}:${rest}`;
  };
  const span = (start, end) => {
    const digits = [start, end].every(Number.isInteger) ? 0 : 1;
    return `${clock(start, digits)}–${clock(end, digits)}`;
  };
  const element = (tag, classes = "", text = "") => {
    const made = document.createElement(tag);
    made.className = classes;
    made.textContent = text;
    return made;
  };

  // A channel to Python: the request becomes the value of a hidden component, whose event sends it.
  let count = 0;
  const connect = (name, trigger, props) => { channels[name] = { trigger, props }; };
  const send = (name, value, event = "submit") => {
    const { trigger, props } = channels[name];
    props.value = { ...value, n: ++count };
    trigger(event);
    return count;
  };

  // A status line; problems are announced to screen readers at once.
  const setStatus = (place, text = "", kind = "") => {
    place.textContent = text;
    place.dataset.kind = kind;
    place.setAttribute("role", kind === "problem" ? "alert" : "status");
  };

  // A request that the server refuses is reported wherever its answer is awaited.
  const onRejected = [];
  const rejectPending = (message) => {
    document.querySelectorAll(".pg-status[data-kind=busy]").forEach((place) => setStatus(place, message, "problem"));
    onRejected.forEach((reset) => reset());
  };
  const originalFetch = window.fetch;
  window.fetch = async (...args) => {
    if (!String(args[0]?.url ?? args[0]).includes("/queue/join")) return originalFetch(...args);
    try {
      const answer = await originalFetch(...args);
      if (answer.status === 503) rejectPending("Too many requests are waiting: try again in a few seconds.");
      else if (!answer.ok) rejectPending("The request was refused: reload the page and try again.");
      return answer;
    } catch (error) {
      rejectPending("The playground can't be reached: check that it is still running, and try again.");
      throw error;
    }
  };

  // Colour maps, as stops: matplotlib's magma and viridis, a diverging one and a sequential one.
  const STOPS = {
    magma: ["#000004", "#180f3d", "#440f76", "#721f81", "#9e2f7f", "#cd4071", "#f1605d", "#fd9668",
      "#feca8d", "#fcfdbf"],
    signed: ["#0b4f6c", "#2a88a8", "#86c0d0", "#e8edee", "#f5efe6", "#efbf93", "#d97b42", "#8c3b12"],
    signedDark: ["#8fd3ee", "#3f94b8", "#1f4a5e", "#1b2029", "#1b2029", "#5c3a1f", "#c17436", "#ffc48a"],
    viridis: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30",
      "#fde725"],
    similarity: ["#f4f5f7", "#d5dcef", "#a3b4e0", "#6d86cf", "#4459b0", "#2d3483", "#1b1b52"],
    similarityDark: ["#14161c", "#1d2340", "#2d3a74", "#4a61b5", "#7d95de", "#b8c7f2", "#f0f3fd"],
  };
  const palette = (name) => {
    const stops = STOPS[name].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    return Array.from({ length: 256 }, (_, level) => {
      const at = (level / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(at), stops.length - 2);
      return stops[low].map((from, k) => from + (stops[low + 1][k] - from) * (at - low));
    });
  };
  const dark = () => document.body.classList.contains("dark");
  // The colour scale of an image: lowest value, colours, highest value.
  const colourBar = (place, low, name, high) => {
    const bar = element("i", "pg-ramp");
    bar.style.background = `linear-gradient(90deg, ${STOPS[name]})`;
    place.replaceChildren(element("b", "", low), bar, element("b", "", high));
  };
  const cosine = (value) => value.toFixed(2).replace("-", "−");

  const paint = (canvas, image, name) => {
    canvas.width = image.columns;
    canvas.height = image.rows;
    const pixels = new ImageData(image.columns, image.rows);
    const levels = image.bytes && decodeBase64(image.bytes);
    const colours = image.colours && decodeBase64(image.colours);
    const table = levels && palette(name);
    for (let x = 0; x < image.columns; x += 1) {
      for (let row = 0; row < image.rows; row += 1) {
        const at = 4 * ((image.rows - 1 - row) * image.columns + x);
        const colour = levels ? table[levels[x * image.rows + row]] : colours.subarray(3 * x, 3 * x + 3);
        pixels.data.set([colour[0], colour[1], colour[2], 255], at);
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };

  const paintWave = (canvas, samples) => {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(200, Math.round(canvas.clientWidth * ratio));
    const height = Math.round((canvas.clientHeight || 72) * ratio);
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    const peak = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-4);
    pen.fillStyle = getComputedStyle(canvas).color;
    for (let x = 0; x < width; x += 1) {
      let low = 0;
      let high = 0;
      const end = Math.floor(((x + 1) * samples.length) / width);
      for (let k = Math.floor((x * samples.length) / width); k < end; k += 1) {
        low = Math.min(low, samples[k]);
        high = Math.max(high, samples[k]);
      }
      const scale = (0.48 * height) / peak;
      pen.fillRect(x, height / 2 - high * scale, 1, Math.max(ratio, (high - low) * scale));
    }
  };
  // 16-bit mono WAV, as the server sends it: 44 bytes of header, then samples.
  const decodeWav = (wav) => {
    const pcm = new Int16Array(decodeBase64(wav).buffer, 44);
    return Float32Array.from(pcm, (value) => value / 32768);
  };

  // A round number of seconds between tick labels, for about five of them.
  const tickSeconds = (length) => {
    const rough = length / 5;
    return [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60].find((round) => round >= rough) || 120;
  };
  const axis = (place, start, end) => {
    place.replaceChildren();
    const every = tickSeconds(end - start);
    for (let at = Math.ceil(start / every) * every; at <= end - 0.12 * (end - start); at += every) {
      const label = element("span", "", every < 1 ? at.toFixed(1) : clock(at, 0));
      label.style.left = `${(100 * (at - start)) / (end - start)}%`;
      place.append(label);
    }
    place.append(element("b", "", "min:s"));
  };

  // An image with a time axis: hover shows the time, click plays from there, arrow keys seek.
  const strips = new Set();
  class TimeStrip {
    constructor(place, source) {
      Object.assign(this, { place, source, start: 0, end: 1 });
      this.playhead = element("i", "pg-playhead");
      this.hint = element("output", "pg-hint");
      place.append(this.playhead, this.hint);
      place.tabIndex = 0;
      place.setAttribute("role", "slider");
      place.addEventListener("pointermove", (event) => this.hover(event));
      place.addEventListener("pointerleave", () => { this.hint.hidden = true; });
      place.addEventListener("click", (event) => player.play(this.source, this.at(event)));
      place.addEventListener("keydown", (event) => this.key(event));
      this.hint.hidden = true;
      strips.add(this);
    }

    set(start, end, describe = () => "") {
      Object.assign(this, { start, end, describe });
      this.place.setAttribute("aria-valuemin", start);
      this.place.setAttribute("aria-valuemax", end);
      this.follow(player.source === this.source ? player.seconds() : start);
    }

    at(event) {
      const box = this.place.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      return this.start + share * (this.end - this.start);
    }

    hover(event) {
      const seconds = this.at(event);
      this.hint.textContent = `${clock(seconds, 2)}${this.describe(seconds, event)}`;
      this.hint.hidden = false;
      const share = (seconds - this.start) / (this.end - this.start);
      this.hint.style.left = `${100 * share}%`;
      this.hint.style.transform = `translateX(${-100 * share}%)`;
    }

    key(event) {
      const now = player.source === this.source ? player.seconds() : this.start;
      const moves = { ArrowLeft: now - 0.5, ArrowRight: now + 0.5, Home: this.start, End: this.end };
      if (event.key in moves) {
        player.seek(this.source, Math.min(this.end, Math.max(this.start, moves[event.key])));
      } else if (event.key === " " || event.key === "Enter") {
        player.toggle(this.source);
      } else return;
      event.preventDefault();
    }

    follow(seconds) {
      const share = (seconds - this.start) / (this.end - this.start);
      this.playhead.style.left = `${100 * Math.min(1, Math.max(0, share))}%`;
      this.place.setAttribute("aria-valuenow", seconds.toFixed(2));
      this.place.setAttribute("aria-valuetext", clock(seconds, 2));
    }
  }

  // One audio player for the page: the clip, the recording compared with it, or a search result.
  const player = {
    audio: new Audio(), sources: {}, source: null,
    load(source, name, wav, start = 0) {
      const old = this.sources[source];
      if (old) URL.revokeObjectURL(old.url);
      const url = URL.createObjectURL(new Blob([decodeBase64(wav)], { type: "audio/wav" }));
      const duration = (0.75 * wav.length - 44) / 32000; // 16 bits at 16 kHz, after the header
      this.sources[source] = { url, name, start, duration };
      if (this.source === source || this.source === null) this.choose(source, true);
    },
    choose(source, reload = false) {
      if (this.source === source && !reload) return;
      this.audio.pause();
      this.source = source;
      this.audio.src = this.sources[source].url;
      this.show();
    },
    seconds() {
      return this.source ? this.sources[this.source].start + this.audio.currentTime : 0;
    },
    seek(source, seconds) {
      if (!this.sources[source]) return;
      this.choose(source);
      this.audio.currentTime = Math.max(0, seconds - this.sources[source].start);
      this.show();
    },
    play(source, seconds) {
      if (!this.sources[source]) return;
      this.seek(source, seconds);
      this.audio.play().catch(() => {});
    },
    toggle(source = this.source) {
      if (!source || !this.sources[source]) return;
      if (source !== this.source) this.play(source, this.sources[source].start);
      else if (this.audio.paused) this.audio.play().catch(() => {});
      else this.audio.pause();
    },
    show() {
      const now = this.seconds();
      strips.forEach((strip) => { if (strip.source === this.source) strip.follow(now); });
      if (!this.bar || !this.source) return;
      const { name, start, duration } = this.sources[this.source];
      this.bar.hidden = false;
      this.bar.querySelector("[data-name]").textContent = name;
      this.bar.querySelector("[data-time]").textContent = `${clock(now)} / ${clock(start + duration)}`;
      this.bar.querySelector("progress").value = this.audio.currentTime / duration || 0;
      const button = this.bar.querySelector("button");
      button.textContent = this.audio.paused ? "▶" : "❚❚";
      button.setAttribute("aria-label", this.audio.paused ? "Play" : "Pause");
    },
    mount(place) {
      this.bar = place.querySelector("[data-bar]");
      this.bar.querySelector("button").addEventListener("click", () => this.toggle());
      this.bar.querySelector("progress").addEventListener("click", (event) => {
        const { start, duration } = this.sources[this.source];
        this.seek(this.source, start + (duration * event.offsetX) / event.target.clientWidth);
      });
      const tick = () => {
        this.show();
        if (!this.audio.paused) requestAnimationFrame(tick);
      };
      ["play", "pause", "ended", "seeked"].forEach((name) => this.audio.addEventListener(name, tick));
    },
  };

  // Saves a file from the bytes that Python sent: the server writes nothing to its disk.
  const download = (file) => {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([decodeBase64(file.bytes)], { type: file.type }));
    link.download = file.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // Tabs that need a recording link to the Audio tab.
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-to-audio]")) return;
    [...document.querySelectorAll("[role=tab]")].find((tab) => tab.textContent.trim() === "Audio").click();
  });
  // The browser would open a file that is dropped outside the drop zone, instead of this page.
  ["dragover", "drop"].forEach((kind) => document.addEventListener(kind, (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  }));

  return { axis, clock, connect, cosine, dark, download, element, paint, paintWave, player, colourBar, onRejected, palette,
    decodeWav, setStatus, send, span, TimeStrip };
})();
