// The player at the bottom of the page: plays the open recording, the one it is compared with, or a
// row of the collection; holds the seconds that are selected.
(() => {
  const { clock, decodeBase64, number, paintWave, strips, wavSamples } = playground;
  const MIN_SECONDS = 0.04; // of a selection: one audio token

  const player = {
    audio: new Audio(), sources: {}, source: null, selection: null, isLooping: false, queue: [],

    // A WAV file (base64) that begins at `start` seconds of its recording.
    load(source, name, wav, start = 0) { this.loadBytes(source, name, decodeBase64(wav).buffer, start); },
    loadBytes(source, name, buffer, start = 0) {
      const old = this.sources[source];
      if (old) URL.revokeObjectURL(old.url);
      const samples = wavSamples(buffer);
      const url = URL.createObjectURL(new Blob([buffer], { type: "audio/wav" }));
      this.sources[source] = { name, start, url, samples, duration: samples.length / 16000 };
      if (this.source === source || this.source === null || source === "clip") this.choose(source, true);
    },
    choose(source, isNew = false) {
      if (this.source === source && !isNew) return;
      this.audio.pause();
      this.source = source;
      this.audio.src = this.sources[source].url;
      this.drawOverview();
      this.show();
    },
    seconds() { return this.source ? this.sources[this.source].start + this.audio.currentTime : 0; },
    seek(source, seconds) {
      if (!this.sources[source]) return;
      this.queue = [];
      this.choose(source);
      const { start, duration } = this.sources[source];
      this.audio.currentTime = Math.min(duration, Math.max(0, seconds - start));
      this.show();
    },
    play(source, seconds) {
      if (!this.sources[source]) return;
      this.seek(source, seconds);
      this.start();
    },
    start() { this.audio.play().catch(() => {}); }, // a browser may refuse until the page was clicked
    toggle(source = this.source) {
      if (!source || !this.sources[source]) return;
      if (source !== this.source) return this.play(source, this.sources[source].start);
      if (!this.audio.paused) return this.audio.pause();
      const selected = this.selected();
      const now = this.seconds();
      if (selected && (now < selected.start || now >= selected.end - 0.02)) this.seek(source, selected.start);
      return this.start();
    },
    // What is played: the selected seconds, or those that are used alone.
    selected() {
      const { clip } = playground;
      if (this.source !== "clip" || !clip) return null;
      return this.selection ?? (clip.part ? { start: clip.start, end: clip.end } : null);
    },

    // Selects seconds of the open recording; without arguments, none.
    select(start = null, end = null) {
      const clip = playground.clip;
      const isSome = clip && start !== null && end - start >= MIN_SECONDS;
      this.selection = isSome ? { start: Math.max(0, start), end: Math.min(clip.duration, end) } : null;
      strips.forEach((strip) => strip.showSelected(this.selection));
      this.showSelection();
    },
    // Plays several one after another: each {start: () => promise of whether it can be played}.
    async sequence(items) {
      this.queue = [...items];
      await this.nextInQueue();
    },
    async nextInQueue() {
      const queue = this.queue;
      const item = queue.shift();
      if (!item) return;
      const isPlayed = await item.start();
      if (isPlayed) this.queue = queue; // seeking has emptied it
      else await this.nextInQueue();
    },

    show() {
      const now = this.seconds();
      strips.forEach((strip) => { if (strip.source === this.source) strip.follow(now); });
      if (!this.bar || !this.source) return;
      const { name, start, duration } = this.sources[this.source];
      this.bar.hidden = false;
      this.find("name").textContent = name;
      this.find("time").textContent = `${clock(now)} / ${clock(start + duration)}`;
      const share = duration ? this.audio.currentTime / duration : 0;
      const overview = this.find("overview");
      overview.querySelector(".pg-playhead").style.left = `${100 * share}%`;
      overview.setAttribute("aria-valuemin", number(start));
      overview.setAttribute("aria-valuemax", number(start + duration));
      overview.setAttribute("aria-valuenow", number(now));
      overview.setAttribute("aria-valuetext", `${clock(now)} of ${clock(start + duration)}`);
      const button = this.find("play");
      button.textContent = this.audio.paused ? "▶" : "❚❚";
      button.setAttribute("aria-label", this.audio.paused ? "Play" : "Pause");
    },
    showSelection() {
      const overview = this.find("overview").querySelector(".pg-selected");
      const { selection } = this;
      const source = this.sources.clip;
      overview.hidden = !selection || this.source !== "clip";
      this.find("selection").hidden = !selection;
      if (!selection || !source) return;
      overview.style.left = `${(100 * selection.start) / source.duration}%`;
      overview.style.right = `${100 * (1 - selection.end / source.duration)}%`;
      for (const [name, value] of Object.entries(selection)) {
        const input = this.find(`selection-${name}`);
        if (document.activeElement !== input) input.value = value.toFixed(2);
        input.max = source.duration.toFixed(2);
      }
      this.find("use").disabled = selection.end - selection.start > playground.clip.max_seconds + 1e-6;
      this.find("selection-note").textContent = this.find("use").disabled
        ? `The model processes at most ${playground.clip.max_seconds} s at once: select less.` : "";
    },
    // The open part is marked, where that isn't the whole recording.
    showPart() {
      const mark = this.find("overview").querySelector(".pg-open-part");
      const { clip } = playground;
      const isPart = this.source === "clip" && clip && clip.end - clip.start < clip.duration - 0.01;
      mark.hidden = !isPart;
      if (!isPart) return;
      mark.style.left = `${(100 * clip.start) / clip.duration}%`;
      mark.style.right = `${100 * (1 - clip.end / clip.duration)}%`;
    },
    drawOverview() {
      if (!this.bar || !this.source) return;
      this.showPart();
      this.bar.hidden = false;
      paintWave(this.find("overview").querySelector("canvas"), this.sources[this.source].samples);
      this.showSelection();
    },

    // Called on each frame while it plays: stops, or begins again, at the end of what is selected.
    tick() {
      const selected = this.selected();
      if (selected && !this.audio.paused && this.seconds() >= selected.end) {
        if (this.isLooping) this.audio.currentTime = selected.start - this.sources.clip.start;
        else this.audio.pause();
      }
      this.show();
      if (!this.audio.paused) requestAnimationFrame(() => this.tick());
    },

    mount(bar) {
      this.bar = bar;
      this.find = (name) => bar.querySelector(`[data-${name}]`);
      this.find("play").addEventListener("click", () => this.toggle());
      this.find("loop").addEventListener("click", (event) => {
        this.isLooping = !this.isLooping;
        event.target.setAttribute("aria-pressed", String(this.isLooping));
      });
      this.find("volume").addEventListener("input", (event) => { this.audio.volume = event.target.value / 100; });
      this.find("clear").addEventListener("click", () => this.select());
      this.find("use").addEventListener("click", () => {
        playground.open({ part: [this.selection.start, this.selection.end] });
      });
      ["start", "end"].forEach((edge) => this.find(`selection-${edge}`).addEventListener("change", (event) => {
        const value = Number(event.target.value);
        const { start, end } = { ...this.selection, [edge]: value };
        const isFine = event.target.value !== "" && Number.isFinite(value) && end - start >= MIN_SECONDS;
        if (isFine) this.select(start, end);
        else this.showSelection();
        event.target.value = this.selection?.[edge].toFixed(2) ?? "";
        if (!isFine) this.find("selection-note").textContent = `The end is after the start, by ${MIN_SECONDS} s at least.`;
      }));
      this.mountOverview(this.find("overview"));
      ["play", "pause", "seeked"].forEach((kind) => this.audio.addEventListener(kind, () => this.tick()));
      this.audio.addEventListener("ended", () => {
        if (this.queue.length) this.nextInQueue();
        else if (this.isLooping && !this.selected()) this.play(this.source, this.sources[this.source].start);
        this.show();
      });
      document.addEventListener("keydown", (event) => this.key(event));
      playground.onTheme(() => this.drawOverview());
      new ResizeObserver(() => this.drawOverview()).observe(this.find("overview"));
    },
    // Dragging over the overview moves through the recording.
    mountOverview(place) {
      const scrub = (event) => {
        if (!this.source) return;
        const box = place.getBoundingClientRect();
        const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
        const { start, duration } = this.sources[this.source];
        this.seek(this.source, start + share * duration);
      };
      place.addEventListener("pointerdown", (event) => { place.setPointerCapture(event.pointerId); scrub(event); });
      place.addEventListener("pointermove", (event) => { if (place.hasPointerCapture(event.pointerId)) scrub(event); });
      place.addEventListener("keydown", (event) => {
        if (!this.source) return;
        const { start, duration } = this.sources[this.source];
        const step = Math.max(0.5, duration / 60);
        const moves = { ArrowLeft: this.seconds() - step, ArrowRight: this.seconds() + step, Home: start, End: start + duration };
        if (!(event.key in moves)) return;
        this.seek(this.source, moves[event.key]);
        event.preventDefault();
      });
    },
    // Space plays and pauses everywhere but where a key press means something else. [ and ] select from and to the playhead.
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.source) return;
      if (event.target.closest("input, textarea, select, button, summary, a, dialog, [role=menu], [role=application]")) return;
      if (event.key === " ") this.toggle();
      else if (event.key === "[" && this.source === "clip") this.select(this.seconds(), this.selection?.end ?? playground.clip.duration);
      else if (event.key === "]" && this.source === "clip") this.select(this.selection?.start ?? 0, this.seconds());
      else return;
      event.preventDefault();
    },
  };

  Object.assign(playground, { player });
})();
