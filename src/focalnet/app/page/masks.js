// Masks of objects as windows of the image: {left, top, width, height, data}, data is Uint8Array of 0 and 1.

/**
 * The mask of a box on the image: where the probability, sampled at the centers of the pixels, is one half or more.
 * @param probabilities (side, side), over the box.
 * @param box [x1, y1, x2, y2] in pixels of the image.
 * @param size [height, width] of the image.
 */
export function pastedMask(probabilities, side, [x1, y1, x2, y2], [rows, columns]) {
  const inside = (value, most) => Math.trunc(Math.min(Math.max(value, 0), most));
  const [left, right] = [inside(Math.floor(x1) - 1, columns), inside(Math.ceil(x2) + 1, columns)];
  const [top, bottom] = [inside(Math.floor(y1) - 1, rows), inside(Math.ceil(y2) + 1, rows)];
  const [width, height] = [Math.max(0, right - left), Math.max(0, bottom - top)];
  const data = new Uint8Array(width * height);
  const at = (y, x) => (y < 0 || x < 0 || y >= side || x >= side ? 0 : probabilities[y * side + x]);
  for (let row = 0; row < height; row++) {
    const y = place(top + row, y1, y2, side);
    const [upper, lower] = [Math.floor(y), y - Math.floor(y)];
    for (let column = 0; column < width; column++) {
      const x = place(left + column, x1, x2, side);
      const [first, rest] = [Math.floor(x), x - Math.floor(x)];
      const above = at(upper, first) * (1 - rest) + at(upper, first + 1) * rest;
      const below = at(upper + 1, first) * (1 - rest) + at(upper + 1, first + 1) * rest;
      data[row * width + column] = above * (1 - lower) + below * lower >= 0.5 ? 1 : 0;
    }
  }
  return { left, top, width, height, data };
}

/** Where the center of a pixel lies among the positions of a mask; the middle for a box without extent. */
function place(pixel, from, to, side) {
  const share = (pixel + 0.5 - from) / (to - from);
  return (Number.isFinite(share) ? share : 0.5) * side - 0.5;
}

/** The window around the ones of a mask of the whole image, and their number. */
export function windowOf(mask, [rows, columns]) {
  let [left, top, right, bottom, area] = [columns, rows, 0, 0, 0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (!mask[y * columns + x]) continue;
      area++;
      [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
    }
  }
  if (!area) return { left: 0, top: 0, width: 0, height: 0, data: new Uint8Array(0) };
  const [width, height] = [right - left, bottom - top];
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    data.set(mask.subarray((y + top) * columns + left, (y + top) * columns + right), y * width);
  }
  return { left, top, width, height, data };
}
