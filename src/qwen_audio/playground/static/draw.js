// Drawing: colour maps and their keys, images, waveforms, axes.
(() => {
  const { element, decodeBase64, clock } = playground;

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
  const palettes = {};
  // 256 colours [red, green, blue] of a map.
  const palette = (name) => {
    const stops = STOPS[name].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    palettes[name] ??= Array.from({ length: 256 }, (_, level) => {
      const at = (level / 255) * (stops.length - 1);
      const low = Math.min(Math.floor(at), stops.length - 2);
      return stops[low].map((from, k) => from + (stops[low + 1][k] - from) * (at - low));
    });
    return palettes[name];
  };
  // The key of an image: what the colours stand for, lowest value, colours, highest value.
  const colourBar = (place, low, name, high, title = "") => {
    const bar = element("i", "pg-ramp");
    bar.style.background = `linear-gradient(90deg, ${STOPS[name]})`;
    place.replaceChildren(...(title ? [element("span", "", title)] : []), element("b", "", low), bar, element("b", "", high));
  };

  // An array of the server's, {shape, float16 | float32 | int32: base64}.
  const halfs = () => {
    const table = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits += 1) {
      const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
      const size = exponent === 31 ? (fraction ? NaN : Infinity)
        : exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction;
      table[bits] = bits & 32768 ? -size : size;
    }
    return table;
  };
  let halfTable = null;
  const decode = (array) => {
    if (array.float16 !== undefined) {
      halfTable ??= halfs();
      const bits = new Uint16Array(decodeBase64(array.float16).buffer);
      const values = new Float32Array(bits.length);
      for (let k = 0; k < bits.length; k += 1) values[k] = halfTable[bits[k]];
      return values;
    }
    if (array.float32 !== undefined) return new Float32Array(decodeBase64(array.float32).buffer);
    return new Int32Array(decodeBase64(array.int32).buffer);
  };

  // An image of bytes (base64, or `levels`): columns from left to right, the first row at the bottom.
  const paint = (canvas, image, name) => {
    canvas.width = image.columns;
    canvas.height = image.rows;
    const pixels = new ImageData(image.columns, image.rows);
    const out = new Uint32Array(pixels.data.buffer);
    const levels = image.levels ?? (image.bytes && decodeBase64(image.bytes));
    const colours = image.colours && decodeBase64(image.colours);
    const pack = ([red, green, blue]) => 0xff000000 | (Math.round(blue) << 16) | (Math.round(green) << 8) | Math.round(red);
    const table = levels && Uint32Array.from(palette(name), pack);
    for (let row = 0; row < image.rows; row += 1) {
      const line = (image.rows - 1 - row) * image.columns;
      for (let x = 0; x < image.columns; x += 1) {
        out[line + x] = levels ? table[levels[x * image.rows + row]] : pack(colours.subarray(3 * x, 3 * x + 3));
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  };

  // The samples from one index to another, as the lowest and highest of each column; in the canvas's colour.
  const paintWave = (canvas, samples, from = 0, to = samples.length, peak = peakOf(samples)) => {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(60, Math.round(canvas.clientWidth * ratio));
    const height = Math.round((canvas.clientHeight || 72) * ratio);
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(canvas).color;
    const scale = (0.48 * height) / peak;
    const each = (to - from) / width;
    const step = Math.max(1, Math.floor(each / 400)); // of many samples some are enough
    for (let x = 0; x < width; x += 1) {
      const end = Math.min(samples.length, Math.max(from + (x + 1) * each, from + x * each + 1));
      let [low, high] = [0, 0];
      for (let k = Math.floor(from + x * each); k < end; k += step) {
        low = Math.min(low, samples[k]);
        high = Math.max(high, samples[k]);
      }
      pen.fillRect(x, height / 2 - high * scale, 1, Math.max(ratio, (high - low) * scale));
    }
  };
  const peakOf = (samples) => samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-4);

  // 16-bit mono WAV, as the server makes it: 44 bytes of header, then samples.
  const wavSamples = (buffer) => {
    const values = new Int16Array(buffer, 44);
    const samples = new Float32Array(values.length);
    for (let k = 0; k < samples.length; k += 1) samples[k] = values[k] / 32768;
    return samples;
  };
  const decodeWav = (base64) => wavSamples(decodeBase64(base64).buffer);

  // A round number of seconds between tick labels, for about five of them.
  const tickSeconds = (length) => {
    const rough = length / 5;
    return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60].find((round) => round >= rough) || 120;
  };
  const timeAxis = (place, start, end) => {
    place.classList.add("pg-axis");
    place.replaceChildren();
    const every = tickSeconds(end - start);
    const digits = every < 0.1 ? 2 : 1;
    const minutes = end > 60;
    for (let k = Math.ceil(start / every - 1e-9); k * every <= end - 0.08 * (end - start); k += 1) {
      const text = minutes ? clock(k * every, every < 1 ? digits : 0) : (k * every).toFixed(every < 1 ? digits : 0);
      const label = element("span", "", text);
      label.style.left = `${(100 * (k * every - start)) / (end - start)}%`;
      place.append(label);
    }
    place.append(element("b", "", minutes ? "min:s" : "s"));
  };
  // Labels at shares of the height (0 is the bottom), and what they count.
  const yAxis = (place, labels, title) => {
    place.classList.add("pg-y-axis");
    place.replaceChildren(element("b", "", title), ...labels.map(([share, text]) => {
      const label = element("span", "", text);
      label.style.bottom = `${100 * share}%`;
      return label;
    }));
  };

  // The theme: the visitor's own choice, or that of the system.
  const dark = () => document.documentElement.classList.contains("dark");
  const redraws = [];
  const onTheme = (redraw) => redraws.push(redraw);
  const setDark = (isDark) => {
    document.documentElement.classList.toggle("dark", isDark);
    redraws.forEach((redraw) => redraw());
  };

  Object.assign(playground, { STOPS, colourBar, dark, decode, decodeWav, onTheme, paint, paintWave, palette, peakOf,
    setDark, timeAxis, wavSamples, yAxis });
})();
