// What queries with masks say of an image, after `models/mask2former/postprocess.py`.
//
// With p(q, c) the softmax over classes and "none" and m(q) the sigmoid of a query's mask at the size of the image:
//
//     regions     score of class c at a pixel: the sum over q of p(q, c) m(q)
//     instances   the best pairs (q, c); score p(q, c) times the mean of m(q) where it is above one half
//     panoptic    each pixel goes to the strong query with the highest p(q) m(q)

import { enlarged, rowsOf } from "./interpolate.js";
import { windowOf } from "./masks.js";
import { sigmoid, softmax } from "./scores.js";

/** Least share of a query's mask that no stronger one takes, in panoptic maps. */
const LEAST_SHARE = 0.8;

/** Classes of each query, (Q) rows of K + 1, and a function that gives the mask logits of one query on the image. */
function read(outputs, model, size, original) {
  const { data, dims } = outputs.class_logits;
  const width = dims[2];
  const said = Array.from({ length: dims[1] }, (_, query) => softmax(data.subarray(query * width, (query + 1) * width)));
  const [height, across] = outputs.mask_logits.dims.slice(2);
  const input = model.shape.slice(1);
  const onImage = (query) => {
    const whole = enlarged(outputs.mask_logits.data, query * height * across, [height, across], input);
    if (size[0] === original[0] && size[1] === original[1]) return cut(whole, input[1], size);
    const result = new Float32Array(original[0] * original[1]);
    const row = rowsOf(input[1], size, original);
    for (let y = 0; y < original[0]; y++) {
      row(whole, 0, y, result.subarray(y * original[1], (y + 1) * original[1]));
    }
    return result;
  };
  return { said, onImage };
}

function cut(map, stride, [height, width]) {
  const result = new Float32Array(height * width);
  for (let y = 0; y < height; y++) result.set(map.subarray(y * stride, y * stride + width), y * width);
  return result;
}

/** The highest class of a query, "none" included. */
function highest(shares) {
  return shares.reduce((most, share, label) => (share > shares[most] ? label : most), 0);
}

export function regions(outputs, model, size, original) {
  const { said, onImage } = read(outputs, model, size, original);
  const count = said[0].length - 1;
  const pixels = original[0] * original[1];
  const scores = Array.from({ length: count }, () => new Float32Array(pixels));
  said.forEach((shares, query) => {
    const mask = onImage(query).map(sigmoid);
    scores.forEach((sum, label) => {
      const share = shares[label];
      for (let at = 0; at < pixels; at++) sum[at] += share * mask[at];
    });
  });
  const map = new Uint16Array(pixels);
  for (let at = 0; at < pixels; at++) {
    for (let label = 1; label < count; label++) if (scores[label][at] > scores[map[at]][at]) map[at] = label;
  }
  return { kind: "map", map, size: original };
}

export function instances(outputs, model, size, original) {
  const { said, onImage } = read(outputs, model, size, original);
  const count = said[0].length - 1;
  const pairs = said.flatMap((shares, query) =>
    Array.from(shares.subarray(0, count), (share, label) => ({ query, label, share })),
  );
  pairs.sort((one, other) => other.share - one.share);
  const seen = new Map();
  const objects = [];
  for (const { query, label, share } of pairs.slice(0, model.reader.most)) {
    if (share < model.reader.threshold) break; // the quality of a mask is one at most
    if (!seen.has(query)) seen.set(query, maskOf(onImage(query), original));
    const { mask, quality } = seen.get(query);
    if (share * quality < model.reader.threshold) continue;
    const box = [mask.left, mask.top, mask.left + mask.width, mask.top + mask.height];
    objects.push({ label, score: share * quality, box, mask });
  }
  objects.sort((one, other) => other.score - one.score);
  return { kind: "objects", objects };
}

function maskOf(logits, size) {
  const inside = Uint8Array.from(logits, (logit) => (logit > 0 ? 1 : 0));
  let [area, sum] = [0, 0];
  inside.forEach((one, at) => {
    if (!one) return;
    area++;
    sum += sigmoid(logits[at]);
  });
  return { mask: windowOf(inside, size), quality: sum / (area + 1e-6) };
}

export function panoptic(outputs, model, size, original) {
  const { said, onImage } = read(outputs, model, size, original);
  const { things, threshold } = model.reader;
  const strong = said
    .map((shares, query) => ({ query, label: highest(shares), score: shares[highest(shares)] }))
    .filter(({ label, score }) => label < said[0].length - 1 && score > threshold);
  const map = new Uint16Array(original[0] * original[1]);
  const most = new Float32Array(map.length).fill(-1);
  const winner = new Int16Array(map.length).fill(-1);
  strong.forEach((one, index) => {
    one.mask = onImage(one.query).map(sigmoid);
    one.mask.forEach((value, at) => {
      if (one.score * value > most[at]) [most[at], winner[at]] = [one.score * value, index];
    });
  });
  const segments = [];
  strong.forEach(({ label, score, mask }, index) => {
    let [won, own, both] = [0, 0, 0];
    mask.forEach((value, at) => {
      won += winner[at] === index;
      own += value >= 0.5;
      both += winner[at] === index && value >= 0.5;
    });
    if (!both || won / own < LEAST_SHARE) return;
    let segment = things.includes(label) ? undefined : segments.find((other) => other.label === label);
    if (segment) segment.score = Math.max(segment.score, score);
    else segments.push((segment = { id: segments.length + 1, label, score }));
    mask.forEach((value, at) => {
      if (winner[at] === index && value >= 0.5) map[at] = segment.id;
    });
  });
  return { kind: "panoptic", map, segments, size: original };
}
