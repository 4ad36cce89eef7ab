// Audio tab: the open part's waveform and log-mel spectrogram, and its caption; opens recordings.
playground.tab("audio", (root) => {
  const { clock, colourBar, element, number, open, paint, paintWave, peakOf, picker, player, setStatus, showFacts, state,
    timeAxis, TimeStrip, yAxis } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  const strip = new TimeStrip(find("strip"), "clip", (start, end) => player.select(start, end));
  const mel = document.createElement("canvas"); // all of the part, of which the zoom shows some
  const MIN_VIEW_SECONDS = 0.2;
  const LINES_HZ = [250, 500, 1000, 2000, 4000];
  let clip = null;
  let view = { start: 0, end: 1 };

  const draw = () => {
    if (!clip || !player.sources.clip || root.hidden) return;
    const { samples } = player.sources.clip;
    const [from, to] = [view.start, view.end].map((seconds) => Math.round(16000 * seconds));
    paintWave(find("wave"), samples, from, Math.min(to, samples.length), peakOf(samples));
    const canvas = find("mel");
    const share = (seconds) => (mel.width * (seconds - clip.start)) / (clip.end - clip.start);
    const [left, right] = [share(view.start), share(view.end)];
    Object.assign(canvas, { width: Math.max(1, Math.round(right - left)), height: mel.height });
    canvas.getContext("2d").drawImage(mel, left, 0, right - left, mel.height, 0, 0, canvas.width, canvas.height);
  };
  const describe = (seconds, event) => {
    const box = find("mel").getBoundingClientRect();
    const { rows, columns } = clip.mel;
    if (event.clientY < box.top || !clip.mel_hz) return "";
    const band = Math.min(rows - 1, Math.floor((rows * Math.max(0, box.bottom - event.clientY)) / box.height));
    const frame = Math.min(columns - 1, Math.floor((seconds - clip.start) / clip.mel_hop_seconds));
    const level = clip.mel.low + (melLevels[frame * rows + band] / 255) * (clip.mel.high - clip.mel.low);
    return ` · frame ${frame} · ${Math.round(clip.mel_hz[band])} Hz · ${number(level)}`;
  };
  let melLevels = [];
  const setView = (start, end) => {
    const length = Math.min(clip.end - clip.start, Math.max(MIN_VIEW_SECONDS, end - start));
    const begin = Math.min(clip.end - length, Math.max(clip.start, start));
    view = { start: begin, end: begin + length };
    strip.set(view.start, view.end, describe);
    timeAxis(find("axis"), view.start, view.end);
    const isAll = length >= clip.end - clip.start - 1e-6;
    find("zoom-out").disabled = find("zoom-all").disabled = isAll;
    draw();
  };
  const zoom = (factor, at = null) => {
    const now = player.source === "clip" ? player.seconds() : view.start;
    const centre = at ?? (now >= view.start && now <= view.end ? now : (view.start + view.end) / 2);
    setView(centre - (centre - view.start) * factor, centre + (view.end - centre) * factor);
  };
  find("zoom-in").addEventListener("click", () => zoom(0.5));
  find("zoom-out").addEventListener("click", () => zoom(2));
  find("zoom-all").addEventListener("click", () => setView(clip.start, clip.end));
  find("zoom-selection").addEventListener("click", () => {
    if (player.selection) setView(player.selection.start, player.selection.end);
    else setStatus(status, "Nothing is selected: drag over the waveform first.", "note");
  });
  find("strip").addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return; // the page scrolls
    event.preventDefault();
    if (event.shiftKey) {
      const move = ((view.end - view.start) * Math.sign(event.deltaY || event.deltaX)) / 8;
      setView(view.start + move, view.end + move);
    } else zoom(event.deltaY > 0 ? 1.25 : 0.8, strip.at(event));
  }, { passive: false });

  const show = () => {
    find("clip").hidden = false;
    showFacts(find("facts"), clip.facts);
    melLevels = playground.decodeBase64(clip.mel.bytes);
    paint(mel, clip.mel, "magma");
    const shares = clip.mel_hz ? LINES_HZ.map((hz) => [clip.mel_hz.findIndex((centre) => centre >= hz) / clip.mel.rows, hz]) : [];
    yAxis(find("y"), shares.map(([share, hz]) => [share, hz < 1000 ? `${hz}` : `${hz / 1000}k`]), "Hz");
    find("lines").replaceChildren(...shares.map(([share]) => {
      const line = element("i");
      line.style.bottom = `${100 * share}%`;
      return line;
    }));
    colourBar(find("key"), number(clip.mel.low, 1), "magma", number(clip.mel.high, 1), "log10 of the energy, as the encoder is given it:");
    setView(clip.start, clip.end);
    find("caption-card").hidden = false;
    find("caption").hidden = !clip.caption;
    find("caption").textContent = clip.caption ?? "";
    find("caption-note").textContent = clip.caption
      ? "Prepared: this is what the model answers about this example. “Describe it now” asks it again."
      : "Let the model describe this recording.";
    exportMenu?.enable();
  };
  find("describe").addEventListener("click", () => { state.set({ tab: "ask", prompt: null }); playground.describeNow?.(); });
  find("to-layers").addEventListener("click", () => state.set({ tab: "hidden_states" }));
  const exportMenu = playground.exportMenu?.(find("export"), "audio", ["png", "svg", "npz", "csv", "python", "command"]);

  picker(root, (request) => open(request, status), status);
  playground.recorder(find("record"), status, (ticket) => open({ ticket }, status));
  playground.onClip((opened) => { clip = opened; show(); });
  playground.onShow("audio", draw);
  playground.onTheme(draw);
  new ResizeObserver(draw).observe(find("strip"));
});

// A button that records from the microphone: `then` receives the ticket of the upload.
playground.recorder = (button, status, then) => {
  const { clock, setStatus } = playground;
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    if (!navigator.mediaDevices) {
      return setStatus(status, "This browser allows the microphone on https pages only: choose a file instead.", "problem");
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const chunks = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
      const start = Date.now();
      const showTime = () => setStatus(status, `Recording … ${clock((Date.now() - start) / 1000, 0)}`, "busy");
      const timer = setInterval(showTime, 1000);
      recorder.addEventListener("stop", async () => {
        clearInterval(timer);
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        button.textContent = "Record";
        delete button.dataset.recording;
        const ticket = await playground.upload(new Blob(chunks), "recording.webm", status);
        if (ticket) then(ticket);
      });
      recorder.start();
      button.dataset.recording = "yes";
      button.textContent = "Stop recording";
      return showTime();
    } catch {
      return setStatus(status, "The microphone can't be used: allow it in the browser, or choose a file.", "problem");
    }
  });
};
