// What one position of a map gathers: its effective context.
//
// A focal modulation sums, at each position, levels of context that reach further and further, each times a gate.
// Level l is l convolutions one after the other. How much a place counts for a position is taken as
//
//     sum over l of |gate l| · K l,     K l = |k 1| * … * |k l|, each kernel brought to a sum of one,
//
// and |gate| / (h w) everywhere for the global level. It says how far and how evenly a position looks; what the
// GELUs between the levels do, and the signs of the kernels, are left out.

/** The kernels of the levels of a stage, one after the other: [{side, data}], each of sum one. */
export function reachOf(kernels) {
  const reach = [];
  let before = { side: 1, data: Float64Array.of(1) };
  for (const kernel of kernels) {
    const values = Float64Array.from(kernel.flat(), Math.abs);
    const sum = values.reduce((one, other) => one + other, 0) || 1;
    before = convolved(before, { side: kernel.length, data: values.map((value) => value / sum) });
    reach.push(before);
  }
  return reach;
}

function convolved(one, other) {
  const side = one.side + other.side - 1;
  const data = new Float64Array(side * side);
  for (let y = 0; y < one.side; y++) {
    for (let x = 0; x < one.side; x++) {
      const value = one.data[y * one.side + x];
      for (let row = 0; row < other.side; row++) {
        for (let column = 0; column < other.side; column++) {
          data[(y + row) * side + x + column] += value * other.data[row * other.side + column];
        }
      }
    }
  }
  return { side, data };
}

/**
 * How much each place of a map counts for one position.
 * @param gates {data, dims}: (1, L + 1, h, w), the last one of the global level.
 * @param reach of `reachOf`, L of them.
 * @returns {weights, gates}: Float32Array (h, w), and the L + 1 gates of the position.
 */
export function contextOf(gates, reach, row, column) {
  const [, levels, height, width] = gates.dims;
  const own = Array.from({ length: levels }, (_, level) => gates.data[(level * height + row) * width + column]);
  const weights = new Float32Array(height * width).fill(Math.abs(own[levels - 1]) / (height * width));
  reach.forEach(({ side, data }, level) => {
    const half = (side - 1) >> 1;
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const [down, across] = [row + y - half, column + x - half];
        if (down < 0 || across < 0 || down >= height || across >= width) continue;
        weights[down * width + across] += Math.abs(own[level]) * data[y * side + x];
      }
    }
  });
  return { weights, gates: own };
}
