// Drawings on canvases: images, maps of numbers, objects, regions.

import { css, inkOn, shade, TABLES } from "./colors.js";
import { withAlpha } from "./pixels.js";

const [LEAST, MOST] = [560, 1400]; // pixels of the longer side of a drawing
const [FILL, PAINT, OVER] = [0.4, 0.55, 0.6]; // how opaque masks, regions and maps are

/** A canvas that is not shown. */
function sheet(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

function sheetOf(rgba, width, height) {
  const canvas = sheet(width, height);
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}

export const sheetOfImage = (image) => sheetOf(withAlpha(image), image.width, image.height);

/** How many pixels of a drawing one of the image has: whole ones where it is small, so that pixels stay pixels. */
export function factorFor({ height, width }) {
  const longest = Math.max(height, width);
  return longest < LEAST ? Math.ceil(LEAST / longest) : Math.min(1, MOST / longest);
}

/** The canvas with the image on it; returns its context and the factor. */
export function drawImage(canvas, image, picture = sheetOfImage(image)) {
  const factor = factorFor(image);
  canvas.width = Math.round(factor * image.width);
  canvas.height = Math.round(factor * image.height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = factor < 1;
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return { context, factor };
}

/** Numbers (height, width) as colors from `low` to `high`. */
export function colored(values, height, width, low, high, name) {
  const rgba = new Uint8ClampedArray(4 * height * width);
  const scale = high > low ? 255 / (high - low) : 0;
  for (let at = 0; at < height * width; at++) {
    const value = 3 * Math.round(Math.min(255, Math.max(0, (values[at] - low) * scale)));
    rgba.set(TABLES[name].subarray(value, value + 3), 4 * at);
    rgba[4 * at + 3] = 255;
  }
  return sheetOf(rgba, width, height);
}

/** The least and the greatest number of the part of a map that is image. */
export function rangeOf(values, height, width, share) {
  let [low, high] = [Infinity, -Infinity];
  const [rows, columns] = [Math.ceil(height * share[0]), Math.ceil(width * share[1])];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const value = values[y * width + x];
      [low, high] = [Math.min(low, value), Math.max(high, value)];
    }
  }
  return [low, high];
}

/**
 * A map over what the network saw, or alone.
 * @param seen the image, and its picture.
 * @param share of the input that is image, down and across.
 * @param over the image, which is grey then; `smooth` for colors that run into each other.
 */
export function drawMap(canvas, seen, picture, map, share, { over, smooth = true }) {
  const { context } = drawImage(canvas, seen, picture);
  if (over) greyed(context, canvas);
  context.globalAlpha = over ? OVER : 1;
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(map, 0, 0, canvas.width / share[1], canvas.height / share[0]);
  context.globalAlpha = 1;
}

function greyed(context, canvas) {
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "hsl(0 0% 50%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "source-over";
}

/** The image with what the network says of it; `only` is the number of the one row that is shown. */
export function drawAnswer(canvas, image, picture, answer, model, only = null) {
  const { context, factor } = drawImage(canvas, image, picture);
  if (answer.kind === "objects") drawObjects(context, factor, answer.objects, model, only);
  if (answer.kind === "map" || answer.kind === "panoptic") drawRegions(context, canvas, answer, model, only);
}

function drawObjects(context, factor, objects, model, only) {
  const line = Math.max(2, Math.round(Math.min(context.canvas.width, context.canvas.height) / 260));
  const shown = objects.map((object, index) => ({ ...object, index })).filter(({ index }) => only === null || only === index);
  for (const { mask, label } of [...shown].reverse()) if (mask?.width) drawMask(context, factor, mask, model.colors[label]);
  for (const { box, label } of [...shown].reverse()) {
    const [x1, y1, x2, y2] = box.map((side) => side * factor);
    context.lineWidth = line + 2;
    context.strokeStyle = "rgb(0 0 0 / .4)";
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    context.lineWidth = line;
    context.strokeStyle = css(model.colors[label]);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
  drawPlates(context, factor, shown, model);
}

/** Names at their boxes, where they cover no other name. */
function drawPlates(context, factor, objects, model) {
  const { width, height } = context.canvas;
  const size = Math.max(14, Math.round(Math.min(width, height) / 34));
  const [pad, tall] = [Math.round(size / 3), Math.round(size * 1.35)];
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const taken = [];
  for (const { box, label, score } of objects) {
    const [x1, y1, x2, y2] = box.map((side) => side * factor);
    const text = `${model.classes[label]} ${Math.round(100 * score)} %`;
    const wide = context.measureText(text).width + 2 * pad;
    const places = [y1 - tall, y2, y1, y2 - tall].flatMap((y) => [x1, x2 - wide].map((x) => [x, y]));
    const free = places
      .map(([x, y]) => [Math.min(Math.max(x, 0), width - wide), y])
      .find(([x, y]) => y >= 0 && y + tall <= height && !taken.some((other) => covers([x, y, wide, tall], other)));
    if (!free) continue;
    taken.push([...free, wide, tall]);
    context.fillStyle = css(model.colors[label]);
    context.fillRect(free[0], free[1], wide, tall);
    context.fillStyle = inkOn(model.colors[label]);
    context.fillText(text, free[0] + pad, free[1] + tall / 2);
  }
}

const covers = ([x, y, w, h], [a, b, c, d]) => x < a + c && a < x + w && y < b + d && b < y + h;

function drawMask(context, factor, { left, top, width, height, data }, color) {
  const rgba = new Uint8ClampedArray(4 * width * height);
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && data[y * width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[y * width + x]) continue;
      const core = inside(y - 1, x) && inside(y + 1, x) && inside(y, x - 1) && inside(y, x + 1);
      rgba.set([...color, core || factor > 4 ? 255 * FILL : 255], 4 * (y * width + x));
    }
  }
  context.imageSmoothingEnabled = factor < 1;
  context.drawImage(sheetOf(rgba, width, height), left * factor, top * factor, width * factor, height * factor);
}

/** Regions in the colors of their classes, with a light line between them. */
function drawRegions(context, canvas, { map, size, segments }, model, only) {
  const [height, width] = size;
  const paints = segments ? segmentColors(segments, model) : model.colors;
  const rgba = new Uint8ClampedArray(4 * height * width);
  for (let at = 0; at < map.length; at++) {
    const color = paints[map[at]];
    if (!color || (only !== null && only !== map[at])) continue;
    const edge = (at % width && map[at - 1] !== map[at]) || (at >= width && map[at - width] !== map[at]);
    rgba.set(color, 4 * at);
    rgba[4 * at + 3] = 255 * (edge ? 0.9 : PAINT);
  }
  context.imageSmoothingEnabled = canvas.width < width;
  context.drawImage(sheetOf(rgba, width, height), 0, 0, canvas.width, canvas.height);
}

/** By the id of a segment its color: that of its class, in shades. */
export function segmentColors(segments, model) {
  const seen = {};
  const colors = [];
  for (const { id, label } of segments) {
    seen[label] = (seen[label] ?? -1) + 1;
    colors[id] = shade(model.colors[label], seen[label]);
  }
  return colors;
}

/**
 * What one position gathers.
 * @param context {weights, gates} of `contextOf`; `dims` [h, w] of the map.
 * @param place [row, column] of the position.
 * @param sides of the levels, in positions.
 */
export function drawContext(canvas, seen, picture, { weights }, dims, place, sides, share) {
  const [height, width] = dims;
  const shown = weights.map(Math.sqrt);
  const high = shown.reduce((one, other) => Math.max(one, other), 0);
  drawMap(canvas, seen, picture, colored(shown, height, width, 0, high, "magma"), share, {
    over: true, smooth: false,
  });
  const context = canvas.getContext("2d");
  const [down, across] = [canvas.height / share[0] / height, canvas.width / share[1] / width];
  const frame = (side, style, line) => {
    const half = (side - 1) / 2;
    context.lineWidth = line;
    context.strokeStyle = style;
    context.strokeRect((place[1] - half) * across, (place[0] - half) * down, side * across, side * down);
  };
  const line = Math.max(2, canvas.width / 300);
  for (const side of sides) {
    frame(side, "rgb(0 0 0 / .45)", line + 2);
    frame(side, "rgb(255 255 255 / .85)", line);
  }
  frame(1, "#000", line + 3);
  frame(1, "#35d0ff", line + 1);
}
