// Maps of numbers enlarged or made smaller bilinearly, as torch's `F.interpolate(…, align_corners=False)` does it.

/** Of each place of the result the two places that it lies between, and the share of the second one. */
function between(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const share = new Float64Array(to);
  for (let place = 0; place < to; place++) {
    const at = Math.max(0, ((place + 0.5) * from) / to - 0.5);
    low[place] = Math.min(Math.floor(at), from - 1);
    high[place] = Math.min(low[place] + 1, from - 1);
    share[place] = at - low[place];
  }
  return { low, high, share };
}

/**
 * A reader of one map of several at another size.
 * @param size [height, width] of the part of the map that is read, from its top left corner.
 * @param target [height, width] of the result.
 * @returns a function of (data, offset, row, result): fills `result` with a row of the map that begins at `offset`.
 */
export function rowsOf(stride, size, target) {
  const down = between(size[0], target[0]);
  const across = between(size[1], target[1]);
  return (data, offset, row, result) => {
    const above = offset + down.low[row] * stride;
    const below = offset + down.high[row] * stride;
    const lower = down.share[row];
    for (let x = 0; x < target[1]; x++) {
      const [left, right, rest] = [across.low[x], across.high[x], across.share[x]];
      const top = data[above + left] * (1 - rest) + data[above + right] * rest;
      result[x] = top * (1 - lower) + (data[below + left] * (1 - rest) + data[below + right] * rest) * lower;
    }
  };
}

/** One map (height, width) as another size: Float32Array. */
export function enlarged(data, offset, [height, width], target) {
  const result = new Float32Array(target[0] * target[1]);
  const read = rowsOf(width, [height, width], target);
  for (let y = 0; y < target[0]; y++) read(data, offset, y, result.subarray(y * target[1], (y + 1) * target[1]));
  return result;
}
