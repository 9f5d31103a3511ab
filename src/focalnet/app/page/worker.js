// The network in a thread of its own: images come in, answers and maps go out, so that the page stays awake.

import { answer } from "./answers.js";
import { decode } from "./decode.js";
import { Refused } from "./files.js";
import * as ort from "./ort.js";
import { prepare } from "./prepare.js";

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

/** Images are taken in their order, one at a time. */
onmessage = ({ data }) => {
  queue = queue.then(() => look(data)).catch(() => {});
};

async function look({ id, blob, name }) {
  try {
    const { model, session } = await ready;
    const image = await decode(blob, name, model.most_pixels);
    const started = performance.now();
    const input = prepare(image, model);
    const outputs = await computed(session, model, input);
    const original = [image.height, image.width];
    const found = answer(model, outputs, input.size, original);
    const milliseconds = performance.now() - started;
    const parts = Object.entries(outputs).filter(([output]) => !model.outputs.includes(output));
    const { seen, height, width } = input;
    const maps = Object.fromEntries(parts);
    const moved = [...new Set([image.data.buffer, seen.data.buffer])];
    postMessage(
      { kind: "answer", id, name, image, seen, answer: found, maps, input: [height, width], milliseconds },
      moved,
    );
  } catch (error) {
    postMessage({ kind: "refused", id, name, sentence: told(error, name) });
  }
}

async function computed(session, model, { data, height, width, size }) {
  const feeds = { inputs: new ort.Tensor("float32", data, [1, data.length / (height * width), height, width]) };
  if (model.sizes) feeds.sizes = new ort.Tensor("int64", BigInt64Array.from(size, BigInt), [1, 2]);
  const results = await session.run(feeds);
  const plain = {};
  for (const [name, tensor] of Object.entries(results)) {
    plain[name] = { data: tensor.data.slice(), dims: [...tensor.dims] };
    tensor.dispose();
  }
  return plain;
}

function told(error, name = "this image") {
  if (error instanceof Refused) return error.message;
  console.error(error);
  if (error instanceof RangeError) return `${name} needs more memory than this browser gives: make it smaller.`;
  return `${name} could not be computed (${String(error?.message ?? error).split("\n")[0]}).`;
}
