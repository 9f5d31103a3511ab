// From the raw outputs of a network to what it says, as `postprocess` and the tasks of the library make it.
//
// `model.reader` says which of these the outputs are, and what is to be known besides:
//
//     classes    one class: the softmax of logits, or of `scale` × them   labels     any number: their sigmoid
//     pixels     a class per pixel, from logits (K, H, W)               regions    the same, from queries with masks
//     queries    objects from queries: classes and boxes                objects    objects, boxes and masks, as they are
//     instances  objects from queries with masks                        panoptic   a segment per pixel
//
// Outputs are {name: {data, dims}} of one image. `size` is what is image in the input, `original` the image before it
// was resized, both [height, width].

import { rowsOf } from "./interpolate.js";
import { pastedMask } from "./masks.js";
import { instances, panoptic, regions } from "./queries.js";
import { sigmoid, softmax } from "./scores.js";

const READERS = { classes, labels, pixels, queries, objects, regions, instances, panoptic };

export function answer(model, outputs, size, original) {
  return READERS[model.reader.kind](outputs, model, size, original);
}

/** Row indices of the largest numbers, largest first; of equal ones the first. */
function best(numbers, most) {
  const order = Array.from(numbers.keys()).sort((one, other) => numbers[other] - numbers[one] || one - other);
  return order.slice(0, most);
}

function classes(outputs, model) {
  const scale = model.reader.scale ?? 1;
  const scores = softmax(outputs[model.outputs[0]].data.map((value) => scale * value));
  return { kind: "classes", scores: Array.from(scores), order: best(scores, scores.length) };
}

function labels(outputs, model) {
  const scores = Float64Array.from(outputs[model.outputs[0]].data, sigmoid);
  const order = best(scores, scores.length);
  return { kind: "labels", scores: Array.from(scores), order, threshold: model.reader.threshold };
}

function pixels(outputs, model, size, original) {
  const { data, dims } = outputs[model.outputs[0]];
  const [, count, height, width] = dims;
  const [rows, columns] = original;
  const same = size[0] === rows && size[1] === columns;
  const read = rowsOf(width, size, original);
  const map = new Uint16Array(rows * columns);
  const highest = new Float32Array(columns);
  const row = new Float32Array(columns);
  for (let y = 0; y < rows; y++) {
    highest.fill(-Infinity);
    for (let label = 0; label < count; label++) {
      const offset = label * height * width;
      if (same) row.set(data.subarray(offset + y * width, offset + y * width + columns));
      else read(data, offset, y, row);
      for (let x = 0; x < columns; x++) {
        if (row[x] > highest[x]) {
          highest[x] = row[x];
          map[y * columns + x] = label;
        }
      }
    }
  }
  return { kind: "map", map, size: original };
}

function queries(outputs, model, size, original) {
  const scores = Float64Array.from(outputs.pred_logits.data, sigmoid);
  const count = outputs.pred_logits.dims[2];
  const boxes = outputs.pred_boxes.data;
  const found = best(scores, model.reader.most).filter((index) => scores[index] >= model.reader.threshold);
  const objects = found.map((index) => {
    const [cx, cy, w, h] = boxes.subarray(4 * Math.floor(index / count), 4 * Math.floor(index / count) + 4);
    const corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
    return {
      label: index % count,
      score: scores[index],
      box: corners.map((side, axis) => side * original[axis % 2 ? 0 : 1]),
    };
  });
  return { kind: "objects", objects };
}

function objects(outputs, model, size, original) {
  const { boxes, scores, labels: numbers, mask_probs: masks } = outputs;
  const factors = [original[1] / size[1], original[0] / size[0]];
  const found = [];
  for (let index = 0; index < scores.data.length; index++) {
    const score = scores.data[index];
    if (!(score > 0 && score >= model.reader.threshold)) continue;
    const box = Array.from(boxes.data.subarray(4 * index, 4 * index + 4), (side, axis) => side * factors[axis % 2]);
    const object = { label: Number(numbers.data[index]), score, box };
    if (masks) {
      const side = masks.dims[3];
      object.mask = pastedMask(masks.data.subarray(index * side * side, (index + 1) * side * side), side, box, original);
    }
    found.push(object);
  }
  return { kind: "objects", objects: found };
}
