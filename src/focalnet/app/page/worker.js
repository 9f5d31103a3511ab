// The network in a thread of its own: images, or the waveforms of sounds, come in, answers and maps go out, so that the
// page stays awake.

import { answer } from "./answers.js";
import { decode } from "./decode.js";
import { Refused } from "./files.js";
import * as ort from "./ort.js";
import { prepare } from "./prepare.js";
import { kept, prepareSound, spectrogram, strongest, upright } from "./sound.js";

ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };

const ready = start();
let queue = ready;

async function start() {
  const response = await fetch("model.json");
  if (!response.ok) throw new Refused("model.json is missing: build the page again.");
  const model = await response.json();
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  return { model, session };
}

ready.then(
  () => postMessage({ kind: "ready" }),
  (error) => postMessage({ kind: "failed", sentence: told(error) }),
);

/** They are taken in their order, one at a time. */
onmessage = ({ data }) => {
  queue = queue.then(() => look(data)).catch(() => {});
};

async function look(job) {
  const { id, name } = job;
  try {
    const { model, session } = await ready;
    const result = await (job.wave ? listened : looked)(job, model, session);
    const moved = [...new Set([result.image.data.buffer, result.seen.data.buffer])];
    postMessage({ kind: "answer", id, name, ...result }, moved);
  } catch (error) {
    postMessage({ kind: "refused", id, name, sentence: told(error, name) });
  }
}

async function looked({ blob, name }, model, session) {
  const image = await decode(blob, name, model.most_pixels);
  const started = performance.now();
  const { seen, height, width, ...input } = prepare(image, model);
  const outputs = await computed(session, model, input);
  const found = answer(model, outputs, input.size, [image.height, image.width]);
  const milliseconds = performance.now() - started;
  return { image, seen, answer: found, maps: mapsOf(model, outputs), input: [height, width], milliseconds };
}

async function listened({ wave }, model, session) {
  const started = performance.now();
  const clip = prepareSound(wave, model);
  const outputs = await computed(session, model, clip);
  const found = answer(model, outputs);
  const milliseconds = performance.now() - started;
  const seen = spectrogram(clip.data, model.preprocessing);
  const maps = Object.fromEntries(Object.entries(mapsOf(model, outputs)).map(([name, map]) => [name, upright(map)]));
  const input = [seen.height, seen.width];
  const heard = kept(seen, strongest(maps[`modulator_${model.stages.length}`], input));
  const seconds = wave.length / model.preprocessing.sample_rate;
  return { image: seen, seen, heard, answer: found, maps, input, milliseconds, seconds };
}

/** What the network computes besides: its gates and modulators. */
const mapsOf = (model, outputs) => Object.fromEntries(Object.entries(outputs).filter(([name]) => !model.outputs.includes(name)));

async function computed(session, model, { data, dims, size }) {
  const feeds = { inputs: new ort.Tensor("float32", data, dims) };
  if (model.sizes) feeds.sizes = new ort.Tensor("int64", BigInt64Array.from(size, BigInt), [1, 2]);
  const results = await session.run(feeds);
  const plain = {};
  for (const [name, tensor] of Object.entries(results)) {
    plain[name] = { data: tensor.data.slice(), dims: [...tensor.dims] };
    tensor.dispose();
  }
  return plain;
}

function told(error, name = "this file") {
  if (error instanceof Refused) return error.message;
  console.error(error);
  if (error instanceof RangeError) return `${name} needs more memory than this browser gives: make it smaller.`;
  return `${name} could not be computed (${String(error?.message ?? error).split("\n")[0]}).`;
}
