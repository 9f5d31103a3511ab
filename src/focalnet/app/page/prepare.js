// From an image to the numbers that the network takes, as `focalnet.inputs.Image` makes them.
//
//     crop      resize until the image covers the input, cut the center
//     squash    resize to the input, whatever the shape
//     pad       resize until the image fits into the input, pad around it with the mean
//     whole     resize in its own shape; where the network has one size, pad on the right and at the bottom

import { framed, grey } from "./pixels.js";
import { resize } from "./resize.js";

/** Most that a side may be longer than the other one. */
const LONGEST = 16;

/**
 * @param image upright, three channels.
 * @param model the description of the network, model.json.
 * @returns {data, dims, height, width, size, seen}: Float32Array (1, C, H, W); `size` is [height, width] of what is image in it,
 *     `seen` the image before it is normalized, of that size.
 */
export function prepare(image, model) {
  const how = model.preprocessing;
  if (how.mean.length === 1) image = grey(image);
  const whole = model.view === "whole";
  const by = image.channels === 3 && !whole ? model.pillow : "torch"; // as in Python
  const seen = { crop, squash, pad, whole: wholeView }[model.view](image, how, by);
  const height = model.sizes ? model.shape[1] : seen.height;
  const width = model.sizes ? model.shape[2] : seen.width;
  const table = how.mean.map((mean, channel) => normalized(mean, how.std[channel], whole));
  const data = new Float32Array(table.length * height * width);
  table.forEach((values, channel) => {
    for (let y = 0; y < seen.height; y++) {
      let target = (channel * height + y) * width;
      let source = y * seen.width * seen.channels + channel;
      for (let x = 0; x < seen.width; x++, source += seen.channels) data[target++] = values[seen.data[source]];
    }
  });
  return { data, dims: [1, table.length, height, width], height, width, size: [seen.height, seen.width], seen };
}

/** What 0 to 255 become, step by step in float32 as torch has them. */
function normalized(mean, std, divided) {
  const [m, s, share] = [mean, std, 1 / 255].map(Math.fround);
  return Float32Array.from({ length: 256 }, (_, value) => {
    const scaled = Math.fround(divided ? value / 255 : value * share);
    return Math.fround(Math.fround(scaled - m) / s);
  });
}

function sides(how) {
  return typeof how.input_size === "number" ? [how.input_size, how.input_size] : how.input_size;
}

function crop(image, how, by) {
  const [height, width] = sides(how);
  const [rows, columns] = [height, width].map((side) => Math.trunc(side / how.crop_pct));
  let seen = limited(image);
  const byWidth = columns * seen.height >= rows * seen.width;
  const size = byWidth
    ? [Math.trunc((columns * seen.height) / seen.width), columns]
    : [rows, Math.trunc((rows * seen.width) / seen.height)];
  seen = resize(seen, ...size, how.interpolation, by);
  const black = new Uint8Array(seen.channels);
  return framed(seen, cutAt(seen.height, height), cutAt(seen.width, width), height, width, black);
}

/** Where a center crop begins; before the image where that is smaller. */
function cutAt(side, wanted) {
  return wanted > side ? -Math.floor((wanted - side) / 2) : halfEven((side - wanted) / 2);
}

/** Rounding as Python's `round`: halves to the even neighbor. */
function halfEven(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

function squash(image, how, by) {
  return resize(image, ...sides(how), how.interpolation, by);
}

function pad(image, how, by) {
  const [height, width] = sides(how);
  const fitting = scaledSize(image, Math.min(height / image.height, width / image.width));
  const [rows, columns] = [Math.min(fitting[0], height), Math.min(fitting[1], width)];
  const seen = resize(image, rows, columns, how.interpolation, by);
  const [top, left] = [height - seen.height, width - seen.width].map((rest) => Math.floor(rest / 2));
  const fill = how.mean.map((value) => halfEven(255 * value));
  return framed(seen, -top, -left, height, width, fill);
}

function wholeView(image, how, by) {
  const [rows, columns] = sides(how);
  let factor = Math.min(rows / image.height, columns / image.width);
  if (typeof how.input_size === "number") {
    const [short, long] = [image.height, image.width].sort((one, other) => one - other);
    factor = Math.min(how.input_size / short, (how.long_side || LONGEST * how.input_size) / long);
  }
  return resize(image, ...scaledSize(image, factor), how.interpolation, by);
}

function scaledSize(image, factor) {
  return [image.height, image.width].map((side) => Math.max(1, Math.trunc(side * factor + 0.5)));
}

/** The image cut around its center where it is longer than 16 times its width. */
function limited(image) {
  const most = LONGEST * Math.min(image.height, image.width);
  if (Math.max(image.height, image.width) <= most) return image;
  const [height, width] = [image.height, image.width].map((side) => Math.min(side, most));
  const [top, left] = [image.height - height, image.width - width].map((rest) => Math.floor(rest / 2));
  return framed(image, top, left, height, width, new Uint8Array(image.channels));
}
