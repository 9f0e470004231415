// The trained models in plain JavaScript: two decoders, a U-Net and its sampler.
//
// Lab.load(buffer, manifest)       -> models, of the bytes that weights.py packs
// models.vae.decode(z)             -> image (3, S, S) in [0, 1]; also models.ae
// models.diffusion.denoise(x, sigma, label) -> the estimate of the image in x
// Lab.sample(model, options)       -> an image in [-1, 1]; Lab.states: every state
// Lab.normal(seed, count)          -> standard normal numbers
//
// For a page, a Web Worker and node. A map is {data, channels, side}, channels first,
// square, in float64: V8 would convert float32 at every load. Layers have the names of
// the PyTorch modules, whose forward passes these are.

"use strict";
globalThis.Lab = (() => {
  // Layers ----------------------------------------------------------------------------

  // Return the neighbourhoods of a map's pixels as a matrix, zeros outside the map.
  //
  // size: 1 or 3, pixels per side of a neighbourhood. The layout is
  // [pair of pixels][channel, row, column][pixel of the pair].
  function neighbourhoods({ data, channels, side }, size) {
    const columns = channels * size * size;
    const matrix = new Float64Array(columns * 2 * Math.ceil((side * side) / 2));
    for (let column = 0; column < columns; column++) {
      const dy = (Math.floor(column / size) % size) - (size - 1) / 2;
      const dx = (column % size) - (size - 1) / 2;
      const channel = Math.floor(column / (size * size));
      for (let y = Math.max(0, -dy); y < side - Math.max(0, dy); y++) {
        const from = (channel * side + y + dy) * side + dx;
        for (let x = Math.max(0, -dx); x < side - Math.max(0, dx); x++) {
          const pixel = y * side + x;
          matrix[(pixel & ~1) * columns + 2 * column + (pixel & 1)] = data[from + x];
        }
      }
    }
    return matrix;
  }

  // Return weights (rows, columns) times neighbourhoods, plus bias: (rows, pixels).
  //
  // Four rows by two pixels at once: the sums stay in registers, the rows in the
  // first-level cache. The layout of weights is [four rows][column][row of the four].
  function product({ weight: w, rows, columns }, matrix, pixels, bias) {
    const out = new Float64Array(rows * pixels);
    for (let row = 0; row < rows; row += 4) {
      const end = (row + 4) * columns;
      for (let pixel = 0; pixel < pixels; pixel += 2) {
        let a0 = 0, a1 = 0, a2 = 0, a3 = 0; // of the first pixel
        let b0 = 0, b1 = 0, b2 = 0, b3 = 0; // of the second pixel
        for (let i = row * columns, j = pixel * columns; i < end; i += 4, j += 2) {
          const w0 = w[i], w1 = w[i + 1], w2 = w[i + 2], w3 = w[i + 3];
          const a = matrix[j], b = matrix[j + 1];
          a0 += w0 * a; a1 += w1 * a; a2 += w2 * a; a3 += w3 * a;
          b0 += w0 * b; b1 += w1 * b; b2 += w2 * b; b3 += w3 * b;
        }
        // Rows and pixels beyond the last are not kept.
        const sums = [a0, b0, a1, b1, a2, b2, a3, b3];
        for (let k = 0; k < 8; k++) {
          const i = row + (k >> 1), j = pixel + (k & 1);
          if (i < rows && j < pixels) out[i * pixels + j] = sums[k] + bias[i];
        }
      }
    }
    return out;
  }

  // Convolve a map, padded by zeros to keep its size, with kernels of 1 or 3 pixels.
  function convolve(layer, map, bias = layer.bias) {
    const data = product(layer, neighbourhoods(map, layer.size), map.side ** 2, bias);
    return { data, channels: layer.rows, side: map.side };
  }

  // Apply a linear layer to a vector, in place of a map of one pixel.
  function linear(layer, data) {
    return convolve(layer, { data, channels: data.length, side: 1 }).data;
  }

  // Normalize each group of channels of a map to mean 0 and variance 1.
  function groupNorm({ weight, bias }, map, group) {
    const data = map.data.slice(), pixels = map.side ** 2;
    const count = pixels * (map.channels % group ? map.channels : group);
    for (let start = 0; start < data.length; start += count) {
      let end = start + count, mean = 0, variance = 0;
      for (let i = start; i < end; i++) mean += data[i] / count;
      for (let i = start; i < end; i++) variance += (data[i] - mean) ** 2 / count;
      const scale = 1 / Math.sqrt(variance + 1e-5);
      for (let i = start; i < end; i++) {
        const channel = Math.floor(i / pixels);
        data[i] = (data[i] - mean) * scale * weight[channel] + bias[channel];
      }
    }
    return { ...map, data };
  }

  // Self-attention between the pixels of a map, one head, with a shortcut.
  function attend([norm, qkv, out], map, group) {
    const pixels = map.side ** 2, size = map.channels * pixels;
    const { data } = convolve(qkv, groupNorm(norm, map, group)); // query, key, value
    const attended = new Float64Array(size);
    for (let p = 0; p < pixels; p++) {
      const scores = new Float64Array(pixels);
      for (let i = 0; i < size; i += pixels) {
        for (let q = 0; q < pixels; q++) scores[q] += data[i + p] * data[size + i + q];
      }
      // Softmax; the largest score is subtracted against overflow.
      const highest = Math.max(...scores), scale = Math.sqrt(map.channels);
      const weights = scores.map((score) => Math.exp((score - highest) / scale));
      const sum = weights.reduce((a, b) => a + b);
      for (let i = 0; i < size; i += pixels) {
        const value = data.subarray(2 * size + i);
        attended[i + p] = weights.reduce((a, w, q) => a + (w * value[q]) / sum, 0);
      }
    }
    return add(map, convolve(out, { ...map, data: attended }));
  }

  // Activations of one number; `activate` applies one to many, in place.
  const sigmoid = (x) => 1 / (1 + Math.exp(-x));
  const silu = (x) => x / (1 + Math.exp(-x));
  const gelu = (x) => (x / 2) * (1 + Math.sign(x) * erf(Math.abs(x) / Math.SQRT2));
  const ACTIVATIONS = { GELU: gelu, ReLU: (x) => Math.max(x, 0) };
  function activate(data, activation) {
    for (let i = 0; i < data.length; i++) data[i] = activation(data[i]);
    return data;
  }

  // The error function from 0 on, within 2e-7 (Abramowitz & Stegun 1964, 7.1.26).
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * x);
    const even = 0.254829592 + t * t * (1.421413741 + t * t * 1.061405429);
    const odd = -0.284496736 - t * t * 1.453152027;
    return 1 - t * (even + t * odd) * Math.exp(-x * x);
  }

  function add(map, other) {
    return { ...map, data: map.data.map((value, i) => value + other.data[i]) };
  }

  // Return a new map whose value at (channel, y, x) is pick(channel, y, x).
  function remap(channels, side, pick) {
    const data = new Float64Array(channels * side * side);
    for (let i = 0; i < data.length; i++) {
      const row = Math.floor(i / side);
      data[i] = pick(Math.floor(row / side), row % side, i % side);
    }
    return { data, channels, side };
  }

  // Average squares of 2 x 2 pixels.
  function halve({ data, channels, side }) {
    return remap(channels, side / 2, (channel, y, x) => {
      const i = (channel * side + 2 * y) * side + 2 * x;
      return (data[i] + data[i + 1] + data[i + side] + data[i + side + 1]) / 4;
    });
  }

  // Repeat every pixel as a square of 2 x 2.
  function double({ data, channels, side }) {
    return remap(channels, 2 * side, (channel, y, x) => {
      return data[(channel * side + (y >> 1)) * side + (x >> 1)];
    });
  }

  // Turn factor^2 channels into a square of pixels: pixel_shuffle, cropped to a side.
  function shuffle({ data, channels, side }, factor, cropped) {
    return remap(channels / factor ** 2, cropped, (channel, y, x) => {
      const part = (channel * factor + (y % factor)) * factor + (x % factor);
      const row = part * side + Math.floor(y / factor);
      return data[row * side + Math.floor(x / factor)];
    });
  }

  // Models ----------------------------------------------------------------------------

  // Return the decoder of an autoencoder, of VarAutoencoder.py or Autoencoder.py, whose
  // transposed convolutions weights.py turns into convolutions and pixel shuffles.
  function decoder(settings, layers) {
    const activation = ACTIVATIONS[settings.activation];
    function decode(z) {
      check(z.length === settings.encoding_dim, "the length of z", z.length);
      const side = settings.image_size / 4;
      const data = activate(linear(layers["features.0"], z), activation);
      let map = { data, channels: data.length / side ** 2, side };
      for (const name of ["image.0", "image.2", "image.4"]) {
        const { stride } = layers[name];
        map = shuffle(convolve(layers[name], map), stride, map.side * stride);
        activate(map.data, name === "image.4" ? sigmoid : activation);
      }
      return new Float32Array(map.data);
    }
    return { settings, decode };
  }

  const OBJECTIVES = { // (c_skip, c_out) for data of standard deviation 1
    eps: (s) => [1, -s],
    x0: () => [0, 1],
    v: (s) => [1 / (1 + s * s), -s / Math.sqrt(1 + s * s)],
    flow: (s) => [1 / (1 + s), -s / (1 + s)],
  };

  // Return the Denoiser of utils/diffusion/denoiser.py; `any` is its null label.
  function denoiser(settings, layers) {
    const any = settings.classes.length, unit = settings.sigma_data;
    const length = settings.img_channels * settings.image_size ** 2;
    function denoise(x, sigma, label = any) {
      check(x.length === length, "the length of x", x.length);
      check(sigma > 0, "sigma", sigma);
      check(Number.isInteger(label) && label >= 0 && label <= any, "label", label);
      const s = sigma / unit;
      const [skip, scale] = OBJECTIVES[settings.objective](s);
      const image = Float64Array.from(x, (value) => value / Math.hypot(unit, sigma));
      const vector = condition(settings, layers, s, label);
      const output = unet(settings, layers, image, vector);
      return Float32Array.from(output, (f, i) => skip * x[i] + unit * scale * f);
    }
    return { settings, length, any, denoise };
  }

  // Return noise level and label as the vector that conditions the residual blocks.
  function condition({ frequencies: count }, layers, s, label) {
    const powers = Array.from({ length: count }, (_, i) => -1 + (5 * i) / (count - 1));
    const angles = powers.map((power) => Math.log(s) * 2 ** power);
    const waves = [...angles.map(Math.cos), ...angles.map(Math.sin)];
    const hidden = activate(linear(layers["sigma_mlp.0"], waves), silu);
    const level = linear(layers["sigma_mlp.2"], hidden);
    const labels = layers.label_embedding.weight.subarray(label * level.length);
    return activate(level.map((value, i) => value + labels[i]), silu);
  }

  // Return the output of utils/diffusion/unet.py for one image and condition.
  function unet(settings, layers, image, vector) {
    const { image_size: side, img_channels: colours, patch, group } = settings;
    const depth = settings.channels.length;

    // Group norm, SiLU and convolution; `more` is added to the bias.
    function normalized(name, last, map, more) {
      const { bias, ...layer } = layers[`${name}.${last}`];
      const normed = groupNorm(layers[`${name}.0`], map, group);
      activate(normed.data, silu);
      return convolve(layer, normed, more ? bias.map((b, i) => b + more[i]) : bias);
    }

    function residual(name, map) {
      const more = linear(layers[`${name}.condition`], vector);
      const hidden = normalized(`${name}.first`, 2, map, more);
      const out = normalized(`${name}.second`, 3, hidden);
      const shortcut = layers[`${name}.shortcut`];
      return add(shortcut ? convolve(shortcut, map) : map, out);
    }
    function blocks(name, map) {
      for (let i = 0; i < settings.num_blocks; i++) map = residual(`${name}.${i}`, map);
      return map;
    }

    // Squares of patch x patch pixels become channels; the border is repeated, so that
    // every resolution is a whole number of pixels.
    const area = patch * patch, coarsest = patch * 2 ** (depth - 1);
    const padded = (Math.ceil(side / coarsest) * coarsest) / patch;
    let map = remap(colours * area, padded, (channel, y, x) => {
      const row = y * patch + (Math.floor(channel / patch) % patch);
      const start = Math.floor(channel / area) * side + Math.min(row, side - 1);
      return image[start * side + Math.min(x * patch + (channel % patch), side - 1)];
    });

    // Encoder, middle, and decoder with added skip connections.
    map = convolve(layers.conv_in, map);
    const skips = [];
    for (let i = 0; i < depth; i++) {
      map = blocks(`down.${i}`, i ? halve(map) : map);
      skips.push(map);
    }
    const attention = ["norm", "qkv", "out"].map((name) => layers[`middle.1.${name}`]);
    map = attend(attention, residual("middle.0", map), group);
    for (let i = 0; i < depth; i++) {
      map = blocks(`up.${i}`, add(i ? double(map) : map, skips.pop()));
    }
    return shuffle(normalized("conv_out", 2, map), patch, side).data;
  }

  function check(good, name, value) {
    if (!good) throw new RangeError(`${name} is wrong: ${value}`);
  }

  // Return {name: model} of an ArrayBuffer of weights and its manifest (weights.py).
  function load(buffer, manifest) {
    const kinds = { decoder, denoiser }, models = {};
    for (const [name, { kind, settings, layers }] of Object.entries(manifest)) {
      const loaded = {};
      for (const [key, entry] of Object.entries(layers)) {
        const layer = (loaded[key] = { ...entry });
        for (const [part, [offset, length]] of Object.entries(entry.floats)) {
          layer[part] = Float64Array.from(new Float32Array(buffer, offset, length));
        }
        if (entry.rows) layer.weight = unpack(buffer, layer);
      }
      models[name] = kinds[kind](settings, loaded);
    }
    return models;
  }

  // Return a matrix of 8-bit weights, scaled by row, in the layout of `product`.
  function unpack(buffer, { integers, scale, rows, columns }) {
    const bytes = new Int8Array(buffer, integers, rows * columns);
    const weight = new Float64Array(Math.ceil(rows / 4) * 4 * columns);
    for (let row = 0; row < rows; row++) {
      const start = (row - (row % 4)) * columns + (row % 4);
      for (let i = 0; i < columns; i++) {
        weight[start + 4 * i] = Math.fround(bytes[row * columns + i] * scale[row]);
      }
    }
    return weight;
  }

  // Sampling --------------------------------------------------------------------------

  // Return steps + 1 falling noise levels: flow_sigmas of utils/diffusion/samplers.py.
  function flowSigmas(steps, highest) {
    const time = (step) => (highest / (1 + highest)) * (1 - step / steps);
    const levels = Array.from({ length: steps }, (_, i) => time(i) / (1 - time(i)));
    return [highest, ...levels.slice(1), 0];
  }

  // Yield {step, steps, sigma, x, estimate}, from noise to image, by Euler's method.
  //
  // options: noise (by default that of seed 0), label (any), steps (the model's own),
  // guidance (1), as CFGDenoiser in utils/diffusion/sampling.py. With start, an image
  // in [-1, 1], and strength, sampling starts at (1 - strength) * start + strength *
  // noise: sdedit in utils/diffusion/editing.py. x is the state, scaled to be shown by
  // 1 / sqrt(1 + sigma^2); the last is the image, about [-1, 1], without estimate.
  function* states({ settings, length, any, denoise }, options) {
    const { noise = normal(0, length), steps = settings.steps } = options;
    const { label = any, guidance = 1, start, strength = 1 } = options;
    check(Number.isInteger(steps) && steps > 0, "steps", steps);
    const { sigma_max: highest, guidance_interval: [low, high] } = settings;
    const edited = start && strength < 1;
    // The part of the noise levels below that of the start.
    const first = edited ? Math.min(strength / (1 - strength), highest) : highest;
    const sigmas = flowSigmas(steps, highest).filter((sigma) => sigma < first);
    sigmas.unshift(first);
    let x = noise.map((value, i) => (edited ? start[i] : 0) + sigmas[0] * value);
    for (const [step, sigma] of sigmas.entries()) {
      const state = { step, steps: sigmas.length - 1, sigma, estimate: null };
      state.x = x.map((value) => value / Math.sqrt(1 + sigma ** 2));
      if (step < state.steps) {
        const estimate = (state.estimate = denoise(x, sigma, label));
        if (guidance !== 1 && label !== any && low <= sigma && sigma <= high) {
          const other = denoise(x, sigma, any);
          estimate.forEach((c, i) => (estimate[i] += (guidance - 1) * (c - other[i])));
        }
        const kept = sigmas[step + 1] / sigma;
        x = x.map((value, i) => estimate[i] + kept * (value - estimate[i]));
      }
      yield state;
    }
  }

  // Return the image that `states` ends at; onState(step, x, estimate): at every state.
  function sample(model, { onState = () => {}, ...options }) {
    let last;
    for (last of states(model, options)) onState(last.step, last.x, last.estimate);
    return last.x;
  }

  // Mix the bits of a 32-bit number (the finalizer of MurmurHash3, A. Appleby).
  function mix(bits) {
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    return bits ^ (bits >>> 16);
  }

  // Return `count` standard normal numbers, the same in every browser.
  //
  // Marsaglia's polar method on a mixed counter (Steele et al. 2014, "Fast splittable
  // pseudorandom number generators"); without Math.log, which may differ by a digit.
  function normal(seed, count) {
    const numbers = new Float32Array(count + (count & 1));
    let state = mix(seed + 1);
    // In (-1, 1).
    const uniform = () => (mix((state = (state + 0x9e3779b9) | 0)) + 0.5) / 2 ** 31;
    for (let i = 0; i < count; ) {
      const u = uniform(), v = uniform(), square = u * u + v * v;
      if (square >= 1) continue;
      const scale = Math.sqrt((-2 * logarithm(square)) / square);
      numbers[i++] = u * scale;
      numbers[i++] = v * scale;
    }
    return numbers.slice(0, count);
  }

  // Return ln(x) of x in (0, 1), by x = 2^n * m and the series of artanh.
  function logarithm(x) {
    let n = 0, sum = 0;
    for (; x < 0.5; x *= 2) n--;
    const y = (x - 1) / (x + 1);
    for (let k = 31; k > 0; k -= 2) sum = sum * y * y + 1 / k;
    return n * Math.LN2 + 2 * y * sum;
  }

  return { load, sample, states, flowSigmas, normal };
})();
