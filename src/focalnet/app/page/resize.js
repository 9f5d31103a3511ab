// Resizing with antialiasing as Pillow and torch do it: across and down, each pass rounded to 8 bits.
//
// Both take the same weights, those of a filter that is as wide as the pixels of the result are. They differ in how
// the weights are rounded: Pillow keeps 22 bits after the point, torch as many as 16 bits hold.

const FILTERS = {
  bilinear: { reach: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, at: cubic },
};
const PILLOW_BITS = 22;

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Of each place of the result the first place that it reads, and the weights from there on. */
function weightsOf(from, to, filter) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const reach = filter.reach * wide;
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(from, Math.trunc(center + reach + 0.5));
    const weights = [];
    for (let x = first; x < end; x++) weights.push(filter.at((x - center + 0.5) / wide));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { first, weights: sum === 0 ? weights : weights.map((weight) => weight / sum) };
  });
}

/** The same in whole numbers, and how many bits they have after the point. */
function rounded(rows, by) {
  let bits = PILLOW_BITS;
  if (by === "torch") {
    const most = Math.max(0, ...rows.map((row) => Math.max(...row.weights)));
    for (bits = 0; bits < 22; bits++) if (Math.trunc(0.5 + most * 2 ** (bits + 1)) >= 2 ** 15) break;
  }
  const whole = (weight) => Math.trunc((weight < 0 ? -0.5 : 0.5) + weight * 2 ** bits);
  return { bits, rows: rows.map(({ first, weights }) => ({ first, weights: Int32Array.from(weights, whole) })) };
}

/** One pass over `lines` lines of pixels; steps say how far places and lines lie apart in what is read and written. */
function pass(data, result, { bits, rows }, lines, channels, read, write) {
  const half = 2 ** (bits - 1);
  const unit = 2 ** bits;
  rows.forEach(({ first, weights }, place) => {
    for (let line = 0; line < lines; line++) {
      const start = first * read.place + line * read.line;
      const target = place * write.place + line * write.line;
      for (let channel = 0; channel < channels; channel++) {
        let sum = half;
        for (let k = 0, at = start + channel; k < weights.length; k++, at += read.place) sum += data[at] * weights[k];
        result[target + channel] = Math.min(255, Math.max(0, Math.floor(sum / unit)));
      }
    }
  });
}

/**
 * An image of another size.
 * @param image {height, width, channels, data}: data is Uint8Array, row by row, pixel by pixel.
 * @param interpolation "bilinear" or "bicubic".
 * @param by whose rounding: "torch", or the version of Pillow, a number.
 */
export function resize(image, height, width, interpolation, by) {
  const axes = downFirst(image, height, width, by) ? [down, across] : [across, down];
  for (const axis of axes) image = axis(image, { height, width }, FILTERS[interpolation], by);
  return image;
}

/** From version 13 on, Pillow begins with the rows where it loses more than twice as many of them as of columns. */
function downFirst(image, height, width, by) {
  const lost = image.height - height;
  return by >= 13 && lost > 0 && lost > 2 * (image.width - width);
}

function across(image, { width }, filter, by) {
  const { height, channels, data } = image;
  if (width === image.width) return image;
  const result = new Uint8Array(height * width * channels);
  const read = { place: channels, line: image.width * channels };
  const write = { place: channels, line: width * channels };
  pass(data, result, rounded(weightsOf(image.width, width, filter), by), height, channels, read, write);
  return { height, width, channels, data: result };
}

function down(image, { height }, filter, by) {
  const { width, channels, data } = image;
  if (height === image.height) return image;
  const result = new Uint8Array(height * width * channels);
  const steps = { place: width * channels, line: channels };
  pass(data, result, rounded(weightsOf(image.height, height, filter), by), width, channels, steps, steps);
  return { height, width, channels, data: result };
}
