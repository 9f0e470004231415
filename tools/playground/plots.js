// The last section, its plots and tables, and the start of the page.
//
// Continues page.js, whose functions it uses.

// Plots -----------------------------------------------------------------------------

const PLOT = {
  ...{ width: 520, narrow: 300, height: 340 },
  ...{ left: 56, right: 16, top: 14, bottom: 48 },
};

// Return an SVG element with attributes and text.
function svg(name, attributes, text = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

// Return an axis {place, ticks} from values to pixels; logarithmic where `log`.
function axis(values, log, from, to) {
  const positive = values.filter((value) => !log || value > 0);
  const change = log ? Math.log10 : Number;
  let [low, high] = [Math.min(...positive), Math.max(...positive)].map(change);
  const margin = (high - low) * 0.06 || 0.5;
  [low, high] = [log ? low - margin : Math.min(0, low), high + margin];
  const place = (value) => {
    const clipped = log && value <= 0 ? low : Math.max(low, change(value));
    return from + ((clipped - low) / (high - low)) * (to - from);
  };
  const ticks = log ? logTicks(10 ** low, 10 ** high) : evenTicks(low, high);
  return { place, ticks };
}

// Return 1, 2 and 5 times powers of ten within bounds; powers alone if those are many.
function logTicks(low, high) {
  const ticks = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n++) {
    for (const factor of high / low > 200 ? [1] : [1, 2, 5]) {
      const tick = Number((factor * 10 ** n).toPrecision(3));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

// Return about five round numbers within bounds.
function evenTicks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => {
    return Number(((first + i) * step).toPrecision(6));
  });
}

// Return a name beside a point, where it covers nothing.
//
// taken: boxes [left, top, right, bottom], to which that of the name is added.
function placeName(name, [x, y], taken, right) {
  // Letters are about so wide: Chinese ones, capitals, others.
  const letter = (c) => (c > "\u2e80" ? 13.5 : c < "a" ? 10 : 7.5);
  const width = [...name].reduce((sum, c) => sum + letter(c), 0);
  const [left, above, below] = [-11 - width, -22, 6];
  const corners = [[11, above], [left, above], [left, below], [11, below]];
  const boxes = corners.map(([dx, dy]) => {
    return [x + dx, y + dy, x + dx + width, y + dy + 16];
  });
  const free = boxes.find((box) => {
    const inside = box[0] > PLOT.left && box[2] < right && box[1] > 0 &&
      box[3] < PLOT.height - PLOT.bottom;
    return inside && !taken.some((other) => {
      return box[0] < other[2] && other[0] < box[2] && box[1] < other[3] &&
        other[1] < box[3];
    });
  });
  if (!free) return ""; // the name is shown when the point is chosen
  taken.push(free);
  return svg("text", { x: free[0], y: free[1] + 13 }, name);
}

// Draw points with their intervals into a container, as an SVG.
//
// points: [{x, y, low, high, name, words, className, curve}], of which those of one
// `curve` are joined; words are shown when a point is chosen. reference: {y, name}.
function plot(container, state, { points, reference, x, y }) {
  const { height, left, right, top, bottom } = PLOT;
  // Letters keep their size where the plot is narrow.
  const width = Math.max(PLOT.narrow, Math.min(container.clientWidth, PLOT.width));
  const across = axis(points.map((p) => p.x), true, left, width - right);
  const heights = points.flatMap((p) => [p.y, p.high]);
  if (reference) heights.push(reference.y);
  const up = axis(heights, y.log, height - bottom, top);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group" });
  picture.setAttribute("aria-label", `${y.name}, ${x.name}`);

  // Axes.
  for (const tick of up.ticks) {
    const at = up.place(tick);
    const line = { x1: left, x2: width - right, y1: at, y2: at, class: "grid" };
    const place = { x: left - 8, y: at + 4, "text-anchor": "end" };
    picture.append(svg("line", line), svg("text", place, tick));
  }
  for (const tick of across.ticks) {
    const at = across.place(tick);
    const place = { x: at, y: height - bottom + 20, "text-anchor": "middle" };
    picture.append(svg("text", place, tick));
  }
  const middle = { x: (left + width - right) / 2, y: height - 6 };
  picture.append(svg("text", { ...middle, "text-anchor": "middle" }, x.name));

  // The photos' own value, which no model need be better than.
  if (reference) {
    const at = up.place(reference.y);
    const line = { x1: left, x2: width - right, y1: at, y2: at, class: "photos" };
    const place = { x: left + 4, y: at - 6 };
    picture.append(svg("line", line), svg("text", place, reference.name));
  }
  for (const curve of new Set(points.map((p) => p.curve).filter(Boolean))) {
    const joined = points.filter((p) => p.curve === curve);
    const path = joined.map((p) => `${across.place(p.x)},${up.place(p.y)}`).join(" ");
    const className = `curve ${joined[0].className}`;
    picture.append(svg("polyline", { points: path, class: className }));
  }

  // Points, each of which can be chosen.
  const taken = points.flatMap((p) => {
    const [cx, cy] = [across.place(p.x), up.place(p.y)];
    const interval = [cx - 2, up.place(p.high), cx + 2, up.place(p.low)];
    return [[cx - 7, cy - 7, cx + 7, cy + 7], interval];
  });
  const nodes = points.map((point) => {
    const [cx, cy] = [across.place(point.x), up.place(point.y)];
    const node = svg("g", { class: `point ${point.className}`, tabindex: 0 });
    node.setAttribute("role", "button");
    node.setAttribute("aria-label", point.words);
    const [y1, y2] = [up.place(point.low), up.place(point.high)];
    node.append(svg("line", { x1: cx, x2: cx, y1, y2, stroke: "currentColor" }));
    node.append(svg("circle", { cx, cy, r: 6, class: "dot" }));
    node.append(svg("circle", { cx, cy, r: 12, class: "halo" }));
    if (point.name) node.append(placeName(point.name, [cx, cy], taken, width));
    const choose = () => {
      nodes.forEach((other) => other.setAttribute("aria-current", other === node));
      state.textContent = point.words;
    };
    node.addEventListener("focus", choose);
    node.addEventListener("pointerenter", choose);
    node.addEventListener("click", choose);
    picture.append(node);
    return node;
  });
  container.replaceChildren(picture);
  state.textContent = say("plot.choose");
}

// Fill a table with rows of texts, of which the first is the head.
function fillTable(table, [head, ...rows]) {
  const line = (cells, name) => {
    return element("tr", {}, ...cells.map((cell) => element(name, {}, cell)));
  };
  const body = rows.map((cells) => line(cells, "td"));
  table.replaceChildren(line(head, "th"), ...body);
}

// Section 5: training and quality -----------------------------------------------------

// Return how a metric is shown: kernel distances times a thousand, others as they are.
const METRICS = {
  kernel: { scale: 1000, log: true },
  recall: { scale: 1, log: false },
  precision: { scale: 1, log: false },
};

// Return value and interval as a text.
function withInterval([value, low, high]) {
  const [v, l, h] = [value, low, high].map((number) => digits(number));
  return say("interval", { value: v, low: l, high: h });
}

function qualityPart() {
  const { models: rows, photos } = facts.quality;
  let metric = "kernel";
  function show() {
    const { scale, log } = METRICS[metric];
    const scaled = (values) => values.map((value) => value * scale);
    const points = Object.entries(rows).map(([name, row]) => {
      const [y, low, high] = scaled(row[metric]);
      const words = say("quality.point", {
        model: say(`model.${name}`),
        minutes: digits(row.minutes, 2),
        metric: say(`metric.${metric}`),
        value: withInterval([y, low, high]),
      });
      return { x: row.minutes, y, low, high, words, className: "one",
        name: say(`model.${name}`) };
    });
    plot(byId("quality-plot"), byId("quality-state"), {
      points,
      reference: { y: photos[metric][0] * scale, name: say("quality.photos") },
      x: { name: say("quality.minutes") },
      y: { name: say(`metric.${metric}`), log },
    });
    const kernel = (row) => digits(row.kernel[0] * METRICS.kernel.scale);
    fillTable(byId("quality-table"), [
      ["model", "minutes", "kernel", "recall", "precision", "nfe"].map((key) => {
        return say(`column.${key}`);
      }),
      ...Object.entries(rows).map(([name, row]) => [
        ...[say(`model.${name}`), row.minutes.toFixed(1), kernel(row)],
        ...[digits(row.recall[0]), digits(row.precision[0]), row.nfe],
      ]),
      [say("quality.photos"), "", kernel(photos), digits(photos.recall[0]),
        digits(photos.precision[0]), ""],
    ]);
  }
  const options = Object.keys(METRICS).map((key) => ({ key }));
  choices("metric", options, metric, (key) => say(`metric.${key}`), (key) => {
    metric = key;
    show();
  });
  repaints.push(show);
  redraws.push(show);
}

function evaluationsPart() {
  const { curves } = facts.evaluations;
  const { scale, log } = METRICS.kernel;
  let chosen = "both";
  function show() {
    const points = Object.keys(curves).flatMap((curve, i) => {
      if (chosen !== "both" && chosen !== curve) return [];
      const model = say(`curve.${curve}`), className = ["two", "one"][i];
      return curves[curve].map(({ nfe, kernel }, position) => {
        const [y, low, high] = kernel.map((value) => value * scale);
        const value = withInterval([y, low, high]);
        const words = say("evaluations.point", { model, nfe, value });
        const name = position ? "" : model; // one name for a curve
        return { x: nfe, y, low, high, name, words, curve, className };
      });
    });
    plot(byId("evaluations-plot"), byId("evaluations-state"), {
      points,
      x: { name: say("evaluations.nfe") },
      y: { name: say("metric.kernel"), log },
    });
    fillTable(byId("evaluations-table"), [
      ["model", "nfe", "kernel"].map((key) => say(`column.${key}`)),
      ...Object.entries(curves).flatMap(([curve, row]) => {
        return row.map(({ nfe, kernel }) => {
          return [say(`curve.${curve}`), nfe, digits(kernel[0] * scale)];
        });
      }),
    ]);
  }
  const options = ["both", ...Object.keys(curves)].map((key) => ({ key }));
  choices("curve", options, chosen, (key) => say(`curve.${key}`), (key) => {
    chosen = key;
    show();
  });
  repaints.push(show);
  redraws.push(show);
}

function stagesPart() {
  const { stages, labels, nearest } = facts.history;
  const words = ({ epoch, guided }) => {
    return say(guided ? "history.guided" : "history.epoch", { epoch });
  };
  const species = (i) => speciesName(labels[i]);
  const tiles = labels.map(() => tile(byId("stage-samples")));
  const input = byId("stage");
  input.max = stages.length - 1;
  input.value = stages.length - 1;
  const show = onFrame(() => {
    const stage = stages[input.value];
    tiles.forEach((shown, i) => {
      shown(decoded(stage.images[i]), species(i));
    });
  });
  slider("stage", (value) => words(stages[value]), show);

  // A sample of the last stage above the nearest of the other images.
  const pairs = labels.map(() => {
    const column = element("div");
    byId("nearest").append(column);
    return [tile(column), tile(column)];
  });
  repaints.push(show, () => {
    pairs.forEach(([sample, other], i) => {
      const distance = digits(nearest.distances[i]);
      sample(decoded(stages.at(-1).images[i]), species(i), say("history.sample"));
      other(decoded(nearest.images[i]), "", say("history.distance", { distance }));
    });
  });
}

function historySection() {
  const parts = {
    history: ["stages-part", stagesPart],
    quality: ["quality-part", qualityPart],
    evaluations: ["evaluations-part", evaluationsPart],
    copies: ["copies", () => {}],
  };
  for (const [name, [id, part]] of Object.entries(parts)) {
    byId(id).hidden = !facts[name];
    if (facts[name]) part();
  }
}

// Start -----------------------------------------------------------------------------

// Sections, and what each needs of the facts and of the models in the page.
const SECTIONS = {
  reconstruction: [reconstructionSection, () => facts.reconstruction],
  latent: [
    latentSection,
    () => facts.latent && facts.manifest.vae && facts.manifest.ae,
  ],
  denoiser: [denoiserSection, () => facts.manifest.denoiser],
  sampler: [samplerSection, () => facts.manifest.diffusion],
  history: [
    historySection,
    () => facts.history || facts.quality || facts.evaluations || facts.copies,
  ],
};

function start() {
  const left = [];
  for (const [name, [section, present]] of Object.entries(SECTIONS)) {
    byId(name).hidden = !present();
    if (!present()) {
      left.push(name);
      continue;
    }
    section();
    const link = element("a", { href: `#${name}` });
    link.dataset.text = `${name}.title`;
    byId("contents").append(element("li", {}, link));
  }
  repaints.push(() => {
    const titles = left.map((name) => say(`${name}.title`)).join("; ");
    byId("left-out").textContent = titles && say("left_out", { titles });
  });

  // Language and colours: the browser's at first.
  for (const name of ["en", "zh"]) {
    byId(`lang-${name}`).addEventListener("click", () => {
      language = name;
      translate();
    });
    repaints.push(() => {
      byId(`lang-${name}`).ariaPressed = language === name;
    });
  }
  addEventListener("resize", onFrame(() => redraws.forEach((redraw) => redraw())));
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (isDark) => {
    root.dataset.theme = isDark ? "dark" : "light";
    byId("theme").ariaPressed = isDark;
    for (const redraw of redraws) redraw();
  };
  byId("theme").addEventListener("click", () => colour(root.dataset.theme !== "dark"));
  dark.addEventListener("change", () => colour(dark.matches));
  root.dataset.theme = dark.matches ? "dark" : "light";
  byId("theme").ariaPressed = dark.matches;
  translate();
}

start();
