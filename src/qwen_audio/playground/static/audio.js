// Audio tab: open a file, a microphone recording or an example.
playground.audioTab = (root, props, watch) => {
  const { axis, paint, paintWave, player, decodeWav, setStatus, send, span, TimeStrip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  const strip = new TimeStrip(find("strip"), "clip");
  let [requestId, isNew, samples] = [0, true, null];

  const open = (request) => {
    setStatus(status, "Reading …", "busy");
    isNew = !("window" in request);
    requestId = send("open", request);
  };
  const upload = (body, name) => playground.upload(body, name, status, (ticket) => open({ ticket }));
  playground.picker(root, upload, status);
  root.querySelectorAll("[data-example]").forEach((button) => {
    button.addEventListener("click", () => open({ example: button.dataset.example }));
  });
  const move = (by) => open({ window: props.value.window + by });
  find("previous").addEventListener("click", () => move(-1));
  find("next").addEventListener("click", () => move(1));

  const draw = () => {
    if (!samples) return;
    paintWave(find("wave"), samples);
    paint(find("mel"), props.value.mel, "magma");
  };
  const show = (clip) => {
    samples = decodeWav(clip.wav);
    find("clip").hidden = false;
    find("name").textContent = clip.name;
    find("facts").replaceChildren(...clip.facts.map(([label, value]) => {
      const fact = playground.element("div");
      fact.append(playground.element("dt", "", label), playground.element("dd", "", value));
      return fact;
    }));
    const hasMany = clip.windows.length > 1;
    document.body.classList.toggle("pg-many-windows", hasMany);
    find("windows").hidden = !hasMany;
    const label = `${clip.window + 1} of ${clip.windows.length}, ${span(clip.start, clip.end)}`;
    find("window-label").textContent = `Window ${label}`;
    document.querySelector("[data-open-name]").textContent = clip.name + (hasMany ? `, window ${label}` : "");
    document.body.classList.add("pg-has-recording");
    find("previous").disabled = clip.window === 0;
    find("next").disabled = clip.window === clip.windows.length - 1;
    const hop = (clip.end - clip.start) / clip.mel.columns;
    strip.set(clip.start, clip.end, (seconds, event) => {
      const box = find("mel").getBoundingClientRect();
      if (event.clientY < box.top || !clip.mel_hz) return "";
      const band = Math.floor(clip.mel.rows * Math.max(0, box.bottom - event.clientY) / box.height);
      const hz = clip.mel_hz[Math.min(band, clip.mel.rows - 1)];
      return ` · frame ${Math.floor((seconds - clip.start) / hop)} · ${Math.round(hz)} Hz`;
    });
    axis(find("axis"), clip.start, clip.end);
    find("hz").replaceChildren(...(clip.mel_hz ? [4000, 1000, 250] : []).map((hz) => {
      const label = playground.element("span", "", hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`);
      const band = clip.mel_hz.findIndex((centre) => centre >= hz);
      label.style.bottom = `${(100 * band) / clip.mel.rows}%`;
      return label;
    }));
    player.source = null;
    player.load("clip", clip.name, clip.wav, clip.start);
    requestAnimationFrame(draw);
    playground.clip = clip;
    playground.enableDownloads("audio");
    playground.clipListeners.forEach((listener) => listener(clip, isNew));
  };
  watch("value", () => {
    const clip = props.value;
    if (!clip || clip.n !== requestId) return;
    if (clip.problem) return setStatus(status, clip.problem, "problem");
    setStatus(status, clip.note || "", clip.note ? "note" : "");
    show(clip);
  });
  new ResizeObserver(draw).observe(find("strip"));
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
};
// Called with each clip or window that is opened, and whether it is a new recording. Tabs are created
// when first selected, and learn of the open clip then.
playground.clipListeners = [];
playground.onClip = (listener) => {
  playground.clipListeners.push(listener);
  if (playground.clip) listener(playground.clip, false);
};

// Uploads a file; `then` receives the ticket that opens it once.
playground.upload = async (body, name, status, then) => {
  const { maxBytes, maxBytesText } = document.querySelector("[data-max-bytes]").dataset;
  if (body.size > Number(maxBytes)) {
    return playground.setStatus(status, `${name} is larger than ${maxBytesText}: choose a shorter one.`, "problem");
  }
  playground.setStatus(status, `Uploading ${name} …`, "busy");
  try {
    const answer = await fetch(`clip?name=${encodeURIComponent(name)}`, { method: "POST", body });
    const result = await answer.json();
    if (result.ticket) then(result.ticket);
    else playground.setStatus(status, result.problem, "problem");
  } catch {
    playground.setStatus(status, "The upload failed: the connection broke, or the file is larger than " +
      "the server accepts.", "problem");
  }
};

// File input, drop zone and microphone.
playground.picker = (root, upload, status) => {
  const input = root.querySelector("input[type=file]");
  const drop = root.querySelector("[data-drop]");
  const record = root.querySelector("[data-record]");
  const uploadFile = (file) => { if (file) upload(file, file.name); };
  input.addEventListener("change", () => { uploadFile(input.files[0]); input.value = ""; });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.dataset.dragging = "yes"; });
  drop.addEventListener("dragleave", () => delete drop.dataset.dragging);
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    delete drop.dataset.dragging;
    uploadFile(event.dataTransfer.files[0]);
  });
  let recorder = null;
  record?.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    if (!navigator.mediaDevices) {
      return playground.setStatus(status, "This browser allows the microphone on https pages only: " +
        "choose a file instead.", "problem");
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const chunks = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", (event) => chunks.push(event.data));
      const start = Date.now();
      const showTime = () => playground.setStatus(status, `Recording … ${playground.clock((Date.now() - start) / 1000, 0)}`, "busy");
      const timer = setInterval(showTime, 1000);
      recorder.addEventListener("stop", () => {
        clearInterval(timer);
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        record.textContent = "Record";
        delete record.dataset.recording;
        upload(new Blob(chunks), "recording.webm");
      });
      recorder.start();
      record.dataset.recording = "yes";
      record.textContent = "Stop recording";
      showTime();
    } catch {
      playground.setStatus(status, "The microphone can't be used: allow it in the browser, or choose a file.",
        "problem");
    }
  });
};
