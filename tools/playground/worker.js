// A Web Worker around kernel.js, which is put before this file.
//
// Answers a message {id, call, args, kind} with {id, state} for every state of a sample
// and then {id, result}, or with {id, error} or {id, cancelled: true}. A newer message
// of the same kind, by default its call, cancels an older one. Calls and their args:
//
//   load: {weights, manifest} -> names of the models; weights: base64, or ArrayBuffer
//   decode: {model, z} -> image in [0, 1]
//   denoise: {model, x, sigma, label} -> estimate of the image
//   sample: {model, noise or seed, label, steps, guidance, start, strength} -> image in
//     [-1, 1]; states are {step, steps, sigma, x, estimate} of Lab.states
//   normal: {seed, count} -> standard normal numbers

"use strict";

(() => {
  let models = {};
  const newest = new Map(); // kind -> id

  const CALLS = {
    load({ weights, manifest }) {
      const buffer = typeof weights === "string" ? bytesOf(weights) : weights;
      models = Lab.load(buffer, manifest);
      return Object.keys(models);
    },
    decode: ({ model, z }) => modelNamed(model).decode(z),
    denoise: ({ model, x, sigma, label }) => modelNamed(model).denoise(x, sigma, label),
    normal: ({ seed, count }) => Lab.normal(seed, count),
  };

  function modelNamed(name) {
    if (!models[name]) throw new RangeError(`there is no model ${name}`);
    return models[name];
  }

  function bytesOf(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes.buffer;
  }

  // Let messages that wait be received: a message to ourselves comes after them.
  function pause() {
    return new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    });
  }

  // Sample, and pause at every state; return null once `isNewest` is false.
  async function sample({ model, seed = 0, ...options }, isNewest, report) {
    const named = modelNamed(model);
    const noise = options.noise ?? Lab.normal(seed, named.length);
    for (const state of Lab.states(named, { ...options, noise })) {
      report(state);
      await pause();
      if (!isNewest()) return null;
      if (state.step === state.steps) return state.x;
    }
  }

  async function answer({ id, call, args, kind = call }) {
    const isNewest = () => newest.get(kind) === id;
    newest.set(kind, id);
    await pause();
    try {
      let result = null;
      if (isNewest() && call === "sample") {
        result = await sample(args, isNewest, (state) => postMessage({ id, state }));
      } else if (isNewest()) {
        if (!(call in CALLS)) throw new RangeError(`there is no call ${call}`);
        result = CALLS[call](args);
      }
      postMessage(isNewest() ? { id, result } : { id, cancelled: true });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  }

  globalThis.onmessage = ({ data }) => answer(data);
})();
