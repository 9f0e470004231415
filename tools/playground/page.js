// The behaviour of the page: language, colours, and one function per section.
//
// Facts, texts and pictures are in the element #facts, as page.py writes them. Models
// run in a Web Worker, so that the page never waits for them. Images are Float32Array
// (3, S, S) in [-1, 1] or [0, 1], as kernel.js has them, or Uint8Array (S, S, 3).

"use strict";

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const SIDE = facts.size;
const VALUES = 3 * SIDE * SIDE;
const SPECIES = facts.classes;
const repaints = []; // what is drawn again in another language
const redraws = []; // what is drawn again in another width or other colours

// Texts ---------------------------------------------------------------------------

let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

// Return a text in the chosen language, with {names} replaced by values.
function say(key, values = {}) {
  return facts.texts[key][language].replace(/\{(\w+)\}/g, (_, name) => {
    if (name === "source") return say(`source.${facts.reference.source}`);
    return values[name] ?? facts.numbers[name];
  });
}

// Return a number as text with so many significant digits, never as 1e-3.
function digits(value, count = 3) {
  return String(Number(value.toPrecision(count)));
}

// Write the texts of the page that do not depend on what the reader does.
function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = say("title");
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = say(node.dataset.text);
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", say(node.dataset.label));
  }
  for (const repaint of repaints) repaint();
}

// Parts of the page -----------------------------------------------------------------

// Return a new element with properties and children.
function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// Return a function that calls `draw` once before the next frame, however often it is
// called itself.
function onFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

// Connect a slider with its output; return the function that shows its value again.
function slider(id, words, changed) {
  const input = byId(id);
  function show() {
    const text = words(Number(input.value));
    byId(`${id}-value`).textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  input.addEventListener("input", () => {
    show();
    changed(Number(input.value));
  });
  repaints.push(show);
  return show;
}

// Fill a group with buttons of which one is pressed; return the function that presses.
//
// options: [{key, className, content}]; words(key): the text or label of a button.
function choices(id, options, chosen, words, changed) {
  const buttons = options.map(({ key, className = "", content }) => {
    const button = element("button", { type: "button", className });
    if (content) button.append(content);
    button.addEventListener("click", () => {
      press(key);
      changed(key);
    });
    byId(id).append(button);
    return [key, button, content];
  });
  function press(pressed) {
    for (const [key, button] of buttons) button.ariaPressed = key === pressed;
  }
  repaints.push(() => {
    for (const [key, button, content] of buttons) {
      if (content || button.classList.contains("colour")) {
        button.ariaLabel = button.title = words(key);
      } else {
        button.textContent = words(key);
      }
    }
  });
  press(chosen);
  return press;
}

// Add a picture with a caption; return the function that shows (pixels, title, detail).
function tile(container, size = SIDE) {
  const canvas = element("canvas", { width: size, height: size });
  canvas.setAttribute("role", "img");
  const caption = element("figcaption");
  container.append(element("figure", {}, canvas, caption));
  return (pixels, title, detail = "") => {
    if (pixels) paint(canvas, pixels);
    caption.replaceChildren(element("b", {}, title), detail);
    canvas.setAttribute("aria-label", `${title} ${detail}`.trim());
  };
}

// Pixels ----------------------------------------------------------------------------

// Return the bytes (S, S, 3) of a picture in the facts.
const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Return the values (3, S, S) in [-1, 1] of bytes (S, S, 3).
function valuesOf(bytes) {
  const pixels = bytes.length / 3;
  return Float32Array.from(bytes, (_, i) => {
    return bytes[3 * (i % pixels) + Math.floor(i / pixels)] / 127.5 - 1;
  });
}

// Return the bytes (S, S, 3) of values (3, S, S) between `low` and 1, clipped.
function bytesOf(values, low = -1) {
  const pixels = values.length / 3;
  return Uint8ClampedArray.from(values, (_, i) => {
    return (255 * (values[(i % 3) * pixels + Math.floor(i / 3)] - low)) / (1 - low);
  });
}

// Return image + sigma * noise, scaled to the contrast of an image.
const scaled = (x, sigma) => x.map((value) => value / Math.sqrt(1 + sigma * sigma));

// Draw bytes (S, S, 3) on a canvas of that size.
function paint(canvas, bytes) {
  const picture = new ImageData(canvas.width, canvas.height);
  for (let i = 0; i < bytes.length / 3; i++) {
    picture.data.set(bytes.subarray(3 * i, 3 * i + 3), 4 * i);
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// Return the button content of a picture.
function thumbnail(bytes) {
  const canvas = element("canvas", { width: SIDE, height: SIDE });
  paint(canvas, bytes);
  return canvas;
}

// Return the mean squared error of two images in [-1, 1], on the scale of [0, 1].
function squaredError(values, others) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i] - others[i]) ** 2 / 4;
  return sum / values.length;
}

// Models ----------------------------------------------------------------------------

const PATIENCE = 500; // ms after which a request interrupts an older one

// Return `ask` of a Web Worker made of the page's scripts, with some of the models.
//
// ask(kind, call, args, onState) returns a promise of the result (worker.js has the
// calls). While a request runs, the newest of the same kind waits: the others, and one
// that is interrupted, have null as result. So a slider shows the values that it
// passes, and its last value does not wait for a long sample.
function startWorker(names) {
  const source = [byId("kernel").textContent, byId("worker").textContent];
  const url = URL.createObjectURL(new Blob(source, { type: "text/javascript" }));
  const worker = new Worker(url);
  const running = new Map(); // kind -> request
  const waiting = new Map();
  let last = 0;

  // Send the request that waits; the worker interrupts an older one of its kind.
  function send(kind) {
    const request = waiting.get(kind);
    if (!request) return;
    waiting.delete(kind);
    running.get(kind)?.resolve(null);
    running.set(kind, request);
    const { id, call, args } = request;
    worker.postMessage({ id, kind, call, args });
  }
  worker.addEventListener("message", ({ data }) => {
    for (const [kind, request] of running) {
      if (request.id !== data.id) continue;
      if ("state" in data) return request.onState?.(data.state);
      running.delete(kind);
      if ("error" in data) request.reject(new Error(data.error));
      else request.resolve(data.result ?? null);
      return send(kind);
    }
  });
  function ask(kind, call, args, onState) {
    return new Promise((resolve, reject) => {
      const request = { id: ++last, call, args, onState, resolve, reject };
      waiting.get(kind)?.resolve(null);
      waiting.set(kind, request);
      if (!running.has(kind)) return send(kind);
      setTimeout(() => waiting.get(kind) === request && send(kind), PATIENCE);
    });
  }
  const entries = names.map((name) => [name, facts.manifest[name]]);
  const manifest = Object.fromEntries(entries.filter(([, model]) => model));
  ask("load", "load", { weights: byId("weights").textContent, manifest });
  return ask;
}

// Return compute(request): awaits a request, and shows in a line of text that a model
// computes, and then how long it took; keys: those of the two texts.
function timed(id, waits, done) {
  let turn = 0;
  return async (request) => {
    const [mine, start] = [++turn, performance.now()];
    byId(id).textContent = say(waits);
    const result = await request;
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    if (result && mine === turn) byId(id).textContent = say(done, { seconds });
    return result;
  };
}

// Two workers, so that decoders answer while a U-Net computes.
const decoders = startWorker(["vae", "ae"]);
const denoisers = startWorker(["denoiser", "diffusion"]);

// Return the options of `choices` for a label: any species, or one.
const speciesOptions = () => {
  return [SPECIES.length, ...SPECIES.keys()].map((key) => ({ key }));
};
const speciesName = (label) => {
  if (label === SPECIES.length) return say("species.any");
  const key = `species.${SPECIES[label]}`;
  return key in facts.texts ? say(key) : SPECIES[label];
};

// Section 1: reconstruction -----------------------------------------------------------

const EXAMPLE = 2; // the one that is chosen at first

// Return the name of an example: its kind and species.
const exampleName = (i) => {
  const { kinds, labels } = facts.examples;
  return say(`example.${kinds[i]}`, { species: speciesName(labels[i]) });
};

// Return the options of `choices` for the examples.
const exampleOptions = () => {
  return facts.examples.images.map((picture, key) => {
    return { key, className: "picture", content: thumbnail(decoded(picture)) };
  });
};

function reconstructionSection() {
  const { models: networks, control, length } = facts.reconstruction;
  const names = Object.keys(networks);
  const tiles = ["original", ...names, "control"].map(() => {
    return tile(byId("reconstructions"));
  });
  let chosen = EXAMPLE;
  const input = byId("components");
  input.max = control.length - 1;
  input.value = control.findIndex(({ count }) => count === length);

  // Return the numbers of components between which the control is as good.
  function likeComponents(error) {
    const high = control.findIndex(({ errors }) => errors[chosen] <= error);
    if (high < 0) return say("reconstruction.above", { low: control.at(-1).count });
    if (!high) return say("reconstruction.below", { high: control[0].count });
    const [low, end] = [control[high - 1].count, control[high].count];
    return say("reconstruction.like", { low, high: end });
  }

  function show() {
    const { images, errors, count } = control[input.value];
    const error = (value) => say("error", { error: digits(value) });
    tiles[0](decoded(facts.examples.images[chosen]), say("original"));
    names.forEach((name, i) => {
      const value = networks[name].errors[chosen];
      const detail = `${error(value)} ${likeComponents(value)}`;
      tiles[i + 1](decoded(networks[name].images[chosen]), name, detail);
    });
    const title = say("reconstruction.control", { count });
    tiles.at(-1)(decoded(images[chosen]), title, error(errors[chosen]));
    const own = errors[chosen];
    const beaten = names.filter((name) => networks[name].errors[chosen] > own);
    const key = beaten.length ? "reconstruction.beats" : "reconstruction.beats_none";
    const models = beaten.join(language === "zh" ? "、" : ", ");
    byId("match").textContent = say(key, { count, models });
  }

  choices("example", exampleOptions(), chosen, exampleName, (key) => {
    chosen = key;
    show();
  });
  slider("components", (value) => control[value].count, onFrame(show));
  repaints.push(show);
  byId("errors-note").hidden = !facts.errors;
}

// Section 2: the latent space ---------------------------------------------------------

function latentSection() {
  const { mean, axes, deviations, map, gaussians, lengths } = facts.latent;
  const RANGE = 3; // standard deviations that sliders and map show
  const tiles = { vae: tile(byId("decoded")), ae: tile(byId("decoded")) };
  let seed = 10; // whose image is plainly a flower
  let z = Lab.normal(seed, mean.length);
  let own = null; // the AE's code, where it has its own

  // Coordinates of z on the principal axes, in standard deviations.
  const coordinates = () => {
    return axes.map((axis, i) => {
      return axis.reduce((sum, a, j) => sum + a * (z[j] - mean[j]), 0) / deviations[i];
    });
  };
  function move(i, value) {
    const step = (value - coordinates()[i]) * deviations[i];
    z = z.map((old, j) => old + step * axes[i][j]);
    own = null;
    update();
  }

  const decode = onFrame(async () => {
    const codes = { vae: z, ae: own ?? z };
    const images = await Promise.all(
      Object.entries(codes).map(([model, code]) => {
        return decoders(model, "decode", { model, z: code });
      }),
    );
    Object.keys(tiles).forEach((model, i) => {
      const detail = say(own ? "latent.own_code" : "latent.same_code");
      const pixels = images[i] && bytesOf(images[i], 0);
      if (pixels) tiles[model](pixels, model.toUpperCase(), detail);
    });
  });

  // One slider per axis.
  axes.forEach((_, i) => {
    const id = `axis-${i}`;
    const label = element("label", { htmlFor: id });
    const input = element("input", { type: "range", id, min: -RANGE, max: RANGE });
    input.step = 0.1;
    const output = element("output", { id: `${id}-value` });
    output.setAttribute("for", id);
    byId("axes").append(element("div", { className: "slider" }, label, output, input));
    repaints.push(() => {
      label.textContent = say("latent.axis", { number: i + 1 });
    });
  });
  const shows = axes.map((_, i) => {
    return slider(`axis-${i}`, (value) => value.toFixed(1), (value) => move(i, value));
  });

  function update() {
    coordinates().forEach((value, i) => {
      byId(`axis-${i}`).value = value;
      shows[i]();
    });
    drawMap();
    const length = digits(Math.hypot(...z), 2);
    const words = { length, vae: digits(lengths.VAE), ae: digits(lengths.AE) };
    byId("code-state").textContent = say("latent.length", words);
    decode();
  }

  // The map: a dot per code, and a cross at z.
  const canvas = byId("map");
  const toPixel = (value) => ((value + RANGE) / (2 * RANGE)) * canvas.width;
  const drawMap = onFrame(() => {
    const style = getComputedStyle(canvas);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const [x, y, label] of map) {
      context.fillStyle = style.getPropertyValue(`--${SPECIES[label]}`);
      context.beginPath();
      mark(context, label, toPixel(x), canvas.height - toPixel(y), 4);
      context.fill();
    }
    const [x, y] = coordinates();
    context.strokeStyle = style.color;
    context.lineWidth = 3;
    context.beginPath();
    context.arc(toPixel(x), canvas.height - toPixel(y), 9, 0, 2 * Math.PI);
    context.stroke();
    const words = { x: x.toFixed(1), y: y.toFixed(1) };
    canvas.setAttribute("aria-label", say("latent.map_label", words));
    const marks = SPECIES.map((_, i) => `${say(`mark.${i % 3}`)} ${speciesName(i)}`);
    byId("map-words").textContent = say("latent.map", { marks: marks.join(", ") });
  });
  function moveTo(x, y) {
    const within = (value) => Math.min(Math.max(value, -RANGE), RANGE);
    move(0, within(x));
    move(1, within(y));
  }
  function follow({ offsetX, offsetY }) {
    const scale = (2 * RANGE) / canvas.clientWidth;
    moveTo(offsetX * scale - RANGE, RANGE - offsetY * scale);
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && follow(event));
  onArrows(canvas, (right, down) => {
    const [x, y] = coordinates();
    moveTo(x + right / 10, y - down / 10);
  });

  // New codes.
  const draw = () => Lab.normal(++seed, mean.length);
  const from = ({ mean, factor }, noise) => {
    return Float32Array.from(mean, (value, i) => {
      return factor[i].reduce((sum, f, j) => sum + f * noise[j], value);
    });
  };
  const renew = (id, make) => {
    byId(id).addEventListener("click", () => {
      [z, own] = make();
      update();
    });
  };
  renew("draw-code", () => [draw(), null]);
  renew("mean-code", () => [Float32Array.from(mean), null]);
  renew("draw-own", () => {
    const noise = draw();
    return [from(gaussians.VAE, noise), from(gaussians.AE, noise)];
  });
  repaints.push(update);
  redraws.push(drawMap);
}

// Call move(right, down) with -1, 0 or 1 when an arrow key is pressed on a canvas.
function onArrows(canvas, move) {
  const steps = {
    ...{ ArrowLeft: [-1, 0], ArrowRight: [1, 0] },
    ...{ ArrowUp: [0, -1], ArrowDown: [0, 1] },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    move(...steps[event.key]);
  });
}

// Add the mark of a species to a path: a disc, a square or a triangle.
function mark(context, label, x, y, radius) {
  if (label % 3 === 0) context.arc(x, y, radius, 0, 2 * Math.PI);
  else if (label % 3 === 1) {
    context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  }
  else {
    context.moveTo(x, y - 1.3 * radius);
    context.lineTo(x + 1.2 * radius, y + radius);
    context.lineTo(x - 1.2 * radius, y + radius);
  }
}

// Section 3: the denoiser -------------------------------------------------------------

function denoiserSection() {
  const [low, high] = facts.sigmas;
  const tiles = ["clean", "noised", "estimate"].map(() => tile(byId("estimates")));
  let clean = valuesOf(decoded(facts.examples.images[EXAMPLE]));
  let network = "denoiser";
  let label = SPECIES.length;
  let seed = 1;
  const compute = timed("denoiser-state", "denoiser.waits", "denoiser.done");
  const sigmaOf = (value) => low * (high / low) ** (value / 100);

  const show = onFrame(async () => {
    const sigma = sigmaOf(Number(byId("sigma").value));
    const noise = Lab.normal(seed, VALUES);
    const image = clean;
    const x = image.map((value, i) => value + sigma * noise[i]);
    tiles[0](bytesOf(image), say("denoiser.clean"));
    const words = { error: digits(squaredError(x, image)) };
    tiles[1](bytesOf(scaled(x, sigma)), say("denoiser.noised"), say("error", words));
    const args = { model: network, x, sigma, label };
    const estimate = await compute(denoisers("denoise", "denoise", args));
    if (!estimate) return;
    const clipped = estimate.map((value) => Math.max(-1, Math.min(1, value)));
    const error = squaredError(clipped, image);
    tiles[2](bytesOf(estimate), say("denoiser.estimate"),
      say("error", { error: digits(error) }));
  });

  const pick = (key) => {
    clean = valuesOf(decoded(facts.examples.images[key]));
    show();
  };
  const options = exampleOptions();
  const press = choices("noised-image", options, EXAMPLE, exampleName, pick);
  byId("own-picture").addEventListener("change", async ({ target }) => {
    if (!target.files.length) return;
    try {
      clean = valuesOf(await readPicture(target.files[0]));
      press(null);
      show();
    } catch {
      byId("denoiser-state").textContent = say("denoiser.unreadable");
    }
  });
  slider("sigma", (value) => digits(sigmaOf(value), 2), show);
  if (facts.manifest.diffusion) {
    const networks = [{ key: "denoiser" }, { key: "diffusion" }];
    const words = (key) => say(`network.${key}`);
    choices("network", networks, network, words, (key) => {
      network = key;
      show();
    });
  }
  byId("network").hidden = !facts.manifest.diffusion;
  choices("given-species", speciesOptions(), label, speciesName, (key) => {
    label = key;
    show();
  });
  byId("new-noise").addEventListener("click", () => {
    seed += 1;
    show();
  });
  repaints.push(show);
}

// Return the bytes (S, S, 3) of the middle square of a picture file.
async function readPicture(file) {
  let picture = await createImageBitmap(file);
  let side = Math.min(picture.width, picture.height);
  let [left, top] = [(picture.width - side) / 2, (picture.height - side) / 2];
  // Halving keeps every pixel's part, which one large step would not.
  for (;;) {
    const size = side > 2 * SIDE ? Math.ceil(side / 2) : SIDE;
    const canvas = element("canvas", { width: size, height: size });
    const context = canvas.getContext("2d");
    context.drawImage(picture, left, top, side, side, 0, 0, size, size);
    if (size === SIDE) {
      const { data } = context.getImageData(0, 0, size, size);
      return data.filter((_, i) => i % 4 < 3);
    }
    [picture, side, left, top] = [canvas, size, 0, 0];
  }
}

// Section 4: sampling -----------------------------------------------------------------

// Return noise between two, on the arc that keeps its length.
function slerp(start, end, t) {
  let dot = 0, a = 0, b = 0;
  start.forEach((value, i) => {
    dot += value * end[i];
    a += value * value;
    b += end[i] * end[i];
  });
  const angle = Math.acos(Math.min(1, Math.max(-1, dot / Math.sqrt(a * b))));
  if (Math.sin(angle) < 0.01) return start.map((v, i) => (1 - t) * v + t * end[i]);
  const [p, q] = [Math.sin((1 - t) * angle), Math.sin(t * angle)];
  return start.map((value, i) => (p * value + q * end[i]) / Math.sin(angle));
}

function samplerSection() {
  const { sigma_max: highest, guidance_interval: interval } =
    facts.manifest.diffusion.settings;
  const result = tile(byId("sampled"));
  const number = (id) => Number(byId(id).value);
  let label = SPECIES.length - 1; // guidance needs a species
  let rows = []; // of the states: [state, estimate]
  const compute = timed("sampler-state", "sampler.waits", "sampler.done");

  const noise = () => {
    const ends = ["seed-a", "seed-b"].map((id) => {
      return Lab.normal(Math.floor(Math.abs(number(id))), VALUES);
    });
    return slerp(...ends, number("between") / 100);
  };
  const options = () => {
    const [steps, guidance] = [number("steps"), number("guidance")];
    return { model: "diffusion", noise: noise(), label, steps, guidance };
  };

  // Guidance acts on one species, where a step begins within the interval.
  function guided() {
    const sigmas = Lab.flowSigmas(number("steps"), highest).slice(0, -1);
    const within = sigmas.some((s) => interval[0] <= s && s <= interval[1]);
    return within && label < SPECIES.length;
  }

  // Make as many pictures as there are states.
  function layStates(steps) {
    const columns = byId("states");
    if (rows.length === steps + 1) return rows;
    columns.replaceChildren();
    rows = Array.from({ length: steps + 1 }, (_, step) => {
      const column = element("div");
      columns.append(column);
      return [tile(column), step < steps ? tile(column) : null];
    });
    return rows;
  }

  const show = onFrame(async () => {
    const asked = options();
    byId("guidance").disabled = !guided();
    const shown = layStates(asked.steps);
    const bar = byId("sampling");
    bar.max = asked.steps;
    bar.value = 0;
    const chosen = label;
    const report = ({ step, x, sigma, estimate }) => {
      const words = { sigma: digits(sigma, 2) };
      shown[step][0](bytesOf(x), say("sampler.state", words));
      if (estimate) shown[step][1](bytesOf(estimate), "", say("sampler.estimate"));
      bar.value = step;
    };
    const image = await compute(denoisers("sample", "sample", asked, report));
    if (image) result(bytesOf(image), speciesName(chosen), say("sampler.result"));
  });

  choices("species", speciesOptions(), label, speciesName, (key) => {
    label = key;
    show();
  });
  for (const id of ["seed-a", "seed-b"]) byId(id).addEventListener("input", show);
  byId("next-seed").addEventListener("click", () => {
    byId("seed-a").value = number("seed-a") + 1;
    byId("between").value = 0;
    showBetween();
    show();
  });
  const showBetween = slider("between", (value) => `${value} %`, show);
  slider("steps", (value) => value, show);
  slider("guidance", (value) => value.toFixed(1), show);
  repaints.push(show);
  blobPart(options);
}

// "Draw a blob": a canvas to paint on, and the flower that the model makes of it.
function blobPart(options) {
  const COLOURS = {
    ...{ white: [245, 245, 245], yellow: [240, 205, 60], orange: [236, 120, 25] },
    ...{ pink: [224, 110, 160], violet: [96, 70, 195], sky: [150, 175, 215] },
    ...{ leaf: [62, 98, 38], soil: [52, 40, 30] },
  };
  const canvas = byId("blob");
  const result = tile(byId("edited"));
  const pixels = new Uint8Array(VALUES);
  let colour = "orange";
  let cursor = [SIDE / 2, SIDE / 2];

  // Paint a disc about a pixel.
  function dab(x, y) {
    const radius = Number(byId("brush").value) - 0.5;
    for (let i = 0; i < SIDE * SIDE; i++) {
      const [dx, dy] = [(i % SIDE) - x, Math.floor(i / SIDE) - y];
      if (Math.hypot(dx, dy) <= radius) pixels.set(COLOURS[colour], 3 * i);
    }
    draw();
  }
  const draw = onFrame(() => {
    paint(canvas, pixels);
    // The cursor, for the keyboard.
    if (canvas.matches(":focus-visible")) {
      const context = canvas.getContext("2d");
      context.fillStyle = (cursor[0] + cursor[1]) % 2 ? "#ffffff" : "#000000";
      context.fillRect(...cursor, 1, 1);
    }
    const words = { row: cursor[1] + 1, column: cursor[0] + 1, size: SIDE };
    canvas.setAttribute("aria-label", say("blob.canvas", words));
    byId("blob-state").textContent = say("blob.cursor", words);
  });

  function follow({ offsetX, offsetY }) {
    const scale = SIDE / canvas.clientWidth;
    cursor = [offsetX, offsetY].map((place) => {
      return Math.max(0, Math.min(SIDE - 1, Math.floor(place * scale)));
    });
    dab(...cursor);
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    follow(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && follow(event));
  canvas.addEventListener("focus", draw);
  canvas.addEventListener("blur", draw);
  onArrows(canvas, (right, down) => {
    const next = [cursor[0] + right, cursor[1] + down];
    cursor = next.map((place) => Math.max(0, Math.min(SIDE - 1, place)));
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    dab(...cursor);
  });
  function fill() {
    for (let i = 0; i < SIDE * SIDE; i++) pixels.set(COLOURS[colour], 3 * i);
    draw();
  }
  byId("fill").addEventListener("click", fill);

  const compute = timed("edit-state", "sampler.waits", "sampler.done");
  const make = onFrame(async () => {
    const strength = Number(byId("strength").value) / 100;
    const args = { ...options(), start: valuesOf(pixels), strength };
    const image = await compute(denoisers("edit", "sample", args));
    if (image) result(bytesOf(image), say("blob.result"));
  });
  byId("edit").addEventListener("click", make);
  slider("strength", (value) => `${value} %`, make);
  slider("brush", (value) => value, () => {});
  const swatches = Object.keys(COLOURS).map((key) => ({ key, className: "colour" }));
  choices("palette", swatches, colour, (key) => say(`colour.${key}`), (key) => {
    colour = key;
  });
  [...byId("palette").querySelectorAll("button")].forEach((button, i) => {
    button.style.background = `rgb(${Object.values(COLOURS)[i]})`;
  });

  // At first an orange disc on leaves.
  colour = "leaf";
  fill();
  colour = "orange";
  byId("brush").value = 6;
  dab(SIDE / 2, SIDE / 2);
  byId("brush").value = 3;
  repaints.push(draw, make);
}
