// Hear: a recording comes in as a file, from the microphone or as an example.
playground.hear = (root, props, watch) => {
  const { axis, paint, paintWave, player, samplesOf, say, send, span, Strip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  const strip = new Strip(find("strip"), "clip");
  let [asked, another, samples] = [0, true, null];

  const open = (request) => {
    say(status, "Reading …", "busy");
    another = !("window" in request);
    asked = send("open", request);
  };
  const upload = (body, name) => playground.upload(body, name, status, (ticket) => open({ ticket }));
  playground.picker(root, upload, status);
  root.querySelectorAll("[data-example]").forEach((button) => {
    button.addEventListener("click", () => open({ example: button.dataset.example }));
  });
  const turn = (by) => open({ window: props.value.window + by });
  find("before").addEventListener("click", () => turn(-1));
  find("after").addEventListener("click", () => turn(1));

  const draw = () => {
    if (!samples) return;
    paintWave(find("wave"), samples);
    paint(find("mel"), props.value.mel, "magma");
  };
  const show = (clip) => {
    samples = samplesOf(clip.sound);
    find("clip").hidden = false;
    find("name").textContent = clip.name;
    find("facts").replaceChildren(...clip.facts.map(([label, value]) => {
      const fact = playground.element("div");
      fact.append(playground.element("dt", "", label), playground.element("dd", "", value));
      return fact;
    }));
    const several = clip.windows.length > 1;
    document.body.classList.toggle("pg-several", several);
    find("windows").hidden = !several;
    const where = `${clip.window + 1} of ${clip.windows.length}, ${span(clip.start, clip.end)}`;
    find("where").textContent = `Window ${where}`;
    document.querySelector("[data-opened]").textContent = clip.name + (several ? `, window ${where}` : "");
    document.body.classList.add("pg-open");
    find("before").disabled = clip.window === 0;
    find("after").disabled = clip.window === clip.windows.length - 1;
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
    player.load("clip", clip.name, clip.sound, clip.start);
    requestAnimationFrame(draw);
    playground.clip = clip;
    playground.changed("hear");
    playground.listeners.forEach((listener) => listener(clip, another));
  };
  watch("value", () => {
    const clip = props.value;
    if (!clip || clip.n !== asked) return;
    if (clip.problem) return say(status, clip.problem, "problem");
    say(status, clip.note || "", clip.note ? "note" : "");
    show(clip);
  });
  new ResizeObserver(draw).observe(find("strip"));
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
};
// Who wants to know that a clip is open, and whether it is another recording or a window of the
// same; tabs come into being when they are first looked at.
playground.listeners = [];
playground.onClip = (listener) => {
  playground.listeners.push(listener);
  if (playground.clip) listener(playground.clip, false);
};

// A file's bytes → a ticket that opens it once.
playground.upload = async (body, name, status, then) => {
  const { most, largest } = document.querySelector("[data-most]").dataset;
  if (body.size > Number(most)) {
    return playground.say(status, `${name} is larger than ${largest}: choose a shorter one.`, "problem");
  }
  playground.say(status, `Sending ${name} …`, "busy");
  try {
    const answer = await fetch(`clip?name=${encodeURIComponent(name)}`, { method: "POST", body });
    const said = await answer.json();
    if (said.ticket) then(said.ticket);
    else playground.say(status, said.problem, "problem");
  } catch {
    playground.say(status, "The recording could not be sent: the connection broke, or it is larger " +
      "than is taken here.", "problem");
  }
};

// Choosing, dropping and recording.
playground.picker = (root, upload, status) => {
  const input = root.querySelector("input[type=file]");
  const drop = root.querySelector("[data-drop]");
  const record = root.querySelector("[data-record]");
  const take = (file) => { if (file) upload(file, file.name); };
  input.addEventListener("change", () => { take(input.files[0]); input.value = ""; });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.dataset.over = "yes"; });
  drop.addEventListener("dragleave", () => delete drop.dataset.over);
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    delete drop.dataset.over;
    take(event.dataTransfer.files[0]);
  });
  let recorder = null;
  record?.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    if (!navigator.mediaDevices) {
      return playground.say(status, "This browser gives no microphone to a page without https: " +
        "choose a file instead.", "problem");
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts = [];
      recorder = new MediaRecorder(stream);
      recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
      const begun = Date.now();
      const tell = () => playground.say(status, `Recording … ${playground.clock((Date.now() - begun) / 1000, 0)}`, "busy");
      const ticking = setInterval(tell, 1000);
      recorder.addEventListener("stop", () => {
        clearInterval(ticking);
        stream.getTracks().forEach((track) => track.stop());
        recorder = null;
        record.textContent = "Record";
        delete record.dataset.on;
        upload(new Blob(parts), "recording.webm");
      });
      recorder.start();
      record.dataset.on = "yes";
      record.textContent = "Stop and listen";
      tell();
    } catch {
      playground.say(status, "The microphone can't be used: allow it in the browser, or choose a file.",
        "problem");
    }
  });
};
