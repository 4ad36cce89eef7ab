// Compare tab: two recordings, each on its own time axis, and their similarity by layer and time.
playground.compareTab = (root, props, watch) => {
  const { axis, cosine, dark, element, paint, paintWave, player, colourBar, decodeWav, setStatus, send, TimeStrip } = playground;
  const find = (name) => root.querySelector(`[data-${name}]`);
  const status = find("status");
  const strips = { first: new TimeStrip(find("first"), "clip"), second: new TimeStrip(find("second"), "other") };
  const times = new TimeStrip(find("times"), "clip");
  let requestId = 0;
  let waves = [];
  const compare = (request) => {
    if (!playground.clip) return setStatus(status, "No recording is open: choose one in the Audio tab first.", "problem");
    setStatus(status, "Computing all taps of both recordings …", "busy");
    requestId = send("compare", request);
  };
  const upload = (body, name) => playground.upload(body, name, status, (ticket) => compare({ ticket }));
  playground.picker(root, upload, status);
  root.querySelectorAll("[data-example]").forEach((button) => {
    button.addEventListener("click", () => compare({ example: button.dataset.example }));
  });
  const draw = () => {
    if (!props.value?.by_time || find("pair").hidden) return;
    const { by_time: image } = props.value;
    const shades = dark() ? "similarityDark" : "similarity";
    paint(find("times").querySelector("canvas"), image, shades);
    colourBar(find("key"), cosine(image.low), shades, cosine(image.high));
    ["first", "second"].forEach((which, k) => paintWave(find(which).querySelector("canvas"), waves[k]));
  };
  watch("value", () => {
    const pair = props.value;
    if (!pair || pair.n !== requestId) return;
    if (pair.problem) return setStatus(status, pair.problem, "problem");
    setStatus(status);
    find("pair").hidden = false;
    waves = pair.wavs.map(decodeWav);
    ["first", "second"].forEach((which, k) => {
      find(`${which}-name`).textContent = pair.names[k];
      strips[which].set(...pair.spans[k]);
      axis(find(`${which}-axis`), ...pair.spans[k]);
    });
    player.load("other", pair.names[1], pair.wavs[1], pair.spans[1][0]);
    const start = pair.spans[0][0];
    const end = start + pair.column_seconds * pair.by_time.columns;
    times.set(start, end, (seconds, event) => {
      const box = find("times").querySelector("canvas").getBoundingClientRect();
      const row = Math.floor((pair.taps.length * (box.bottom - event.clientY)) / box.height);
      const tap = Math.min(pair.taps.length - 1, Math.max(0, row));
      const column = Math.min(pair.by_time.columns - 1, Math.floor((seconds - start) / pair.column_seconds));
      return ` · ${pair.taps[tap]} · ${pair.values[tap][column].toFixed(3)}`;
    });
    axis(find("axis"), start, end);
    const names = (place, texts) => find(place).replaceChildren(...texts.map((text) => element("span", "", text)).reverse());
    names("names", pair.taps);
    names("values", pair.cosines.map((cosine) => cosine.toFixed(3)));
    root.style.setProperty("--taps", pair.taps.length);
    draw();
    playground.enableDownloads("compare");
  });
  // A comparison belongs to one window of one recording.
  playground.onClip(() => {
    requestId = 0;
    find("pair").hidden = true;
    playground.disableDownloads("compare");
    setStatus(status);
  });
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
  new ResizeObserver(draw).observe(find("first"));
};
