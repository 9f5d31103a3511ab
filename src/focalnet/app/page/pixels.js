// Images as {height, width, channels, data}: data is Uint8Array, row by row, pixel by pixel.

/** By EXIF's orientation: whether rows become columns, then are mirrored from left to right, and from top to bottom. */
const TURNS = {
  2: [false, true, false],
  3: [false, true, true],
  4: [false, false, true],
  5: [true, false, false],
  6: [true, true, false],
  7: [true, true, true],
  8: [true, false, true],
};

/** The image upright, by EXIF's orientation. */
export function turned(image, orientation) {
  if (!(orientation in TURNS)) return image;
  const [transposed, leftRight, topBottom] = TURNS[orientation];
  const { channels } = image;
  const height = transposed ? image.width : image.height;
  const width = transposed ? image.height : image.width;
  const data = new Uint8Array(height * width * channels);
  let target = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const row = topBottom ? height - 1 - y : y;
      const column = leftRight ? width - 1 - x : x;
      let source = (transposed ? column * image.width + row : row * image.width + column) * channels;
      for (let channel = 0; channel < channels; channel++) data[target++] = image.data[source++];
    }
  }
  return { height, width, channels, data };
}

/** The part of an image from (top, left) on; what lies outside it has the color `fill`. */
export function framed(image, top, left, height, width, fill) {
  const { channels } = image;
  const data = new Uint8Array(height * width * channels);
  for (let place = 0; place < data.length; place += channels) data.set(fill, place);
  const first = Math.max(0, -left);
  const end = Math.min(width, image.width - left);
  for (let y = Math.max(0, -top); y < Math.min(height, image.height - top); y++) {
    if (end <= first) break;
    const source = ((y + top) * image.width + left + first) * channels;
    data.set(image.data.subarray(source, source + (end - first) * channels), (y * width + first) * channels);
  }
  return { height, width, channels, data };
}

/** Grey of the three colors, as Pillow mixes it. */
export function grey(image) {
  const data = new Uint8Array(image.height * image.width);
  for (let at = 0, place = 0; at < data.length; at++, place += 3) {
    const [red, green, blue] = image.data.subarray(place, place + 3);
    data[at] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >>> 16;
  }
  return { height: image.height, width: image.width, channels: 1, data };
}

/** RGBA bytes as an image of three channels. */
export function withoutAlpha(rgba, height, width) {
  const data = new Uint8Array(height * width * 3);
  for (let source = 0, target = 0; target < data.length; source += 4, target += 3) {
    data[target] = rgba[source];
    data[target + 1] = rgba[source + 1];
    data[target + 2] = rgba[source + 2];
  }
  return { height, width, channels: 3, data };
}

/** An image of one or three channels as RGBA bytes. */
export function withAlpha(image) {
  const rgba = new Uint8ClampedArray(image.height * image.width * 4);
  const step = image.channels;
  for (let source = 0, target = 0; target < rgba.length; source += step, target += 4) {
    for (let color = 0; color < 3; color++) rgba[target + color] = image.data[source + (step === 3 ? color : 0)];
    rgba[target + 3] = 255;
  }
  return rgba;
}
