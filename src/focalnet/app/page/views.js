// The parts of the page that show an answer and how it came about.

import { contextOf, reachOf } from "./context.js";
import { css } from "./colors.js";
import { colored, drawAnswer, drawContext, drawImage, drawMap, rangeOf, segmentColors, sheetOfImage } from "./draw.js";

const MOST_ROWS = 12;
const FINE = 7; // positions of a side
const byId = (id) => document.getElementById(id);
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const short = (value) => (Math.abs(value) >= 1000 || (value && Math.abs(value) < 0.001) ? value.toExponential(1) : Number(value.toPrecision(3)).toString());

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function row({ name, share, value, color, classes = "" }) {
  const filled = element("div", { className: "filled" });
  filled.style.cssText = `width: ${100 * Math.min(1, Math.max(0, share))}%; height: 100%; background: ${color}`;
  const label = element("span", { className: "name", title: name }, name);
  if (classes.includes("swatched")) {
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = color;
    label.prepend(swatch);
  }
  const bar = element("span", { className: "bar" }, filled);
  return element("div", { className: `row ${classes}` }, label, bar, element("span", { className: "value" }, value));
}

/** The answer in words, and as rows that light up their object or region. */
export function showAnswer(model, result) {
  const { answer } = result;
  const rows = { classes: classRows, labels: labelRows, objects: objectRows, map: mapRows, panoptic: panopticRows };
  const { words, lines } = rows[answer.kind](answer, model);
  byId("words").textContent = words;
  byId("words").className = "soft said";
  byId("rows").replaceChildren(...lines.map(({ only, ...line }) => lit(row(line), only, model, result)));
  byId("time").textContent = `${Math.max(1, Math.round(result.milliseconds))} ms in this browser, on one thread`;
  drawAnswer(byId("picture"), result.image, result.picture, answer, model);
}

function lit(line, only, model, result) {
  if (only === undefined) return line;
  const draw = (shown) => drawAnswer(byId("picture"), result.image, result.picture, result.answer, model, shown);
  line.onpointerenter = () => draw(only);
  line.onpointerleave = () => draw(null);
  return line;
}

function classRows({ scores, order }, model) {
  const lines = order.slice(0, MOST_ROWS).map((label, place) => ({
    name: model.classes[label], share: scores[label], value: percent(scores[label]), color: "var(--accent)",
    classes: place ? "" : "first",
  }));
  return { words: `${model.classes[order[0]]}, ${percent(scores[order[0]])}`, lines };
}

function labelRows({ scores, order, threshold }, model) {
  const said = order.filter((label) => scores[label] >= threshold);
  const lines = order.slice(0, Math.max(MOST_ROWS, said.length)).map((label) => ({
    name: model.classes[label], share: scores[label], value: percent(scores[label]),
    color: scores[label] >= threshold ? "var(--accent)" : "var(--soft)",
    classes: scores[label] >= threshold ? "first" : "weak",
  }));
  const words = said.map((label) => model.classes[label]).join(", ") || "no label";
  return { words: `${words} (from ${percent(threshold)} on)`, lines };
}

function objectRows({ objects }, model) {
  const lines = objects.map(({ label, score }, only) => ({
    name: model.classes[label], share: score, value: percent(score), color: css(model.colors[label]),
    classes: "swatched", only,
  }));
  return { words: counted(objects, model) || "nothing found", lines };
}

function mapRows({ map }, model) {
  const lines = areas(map, model.classes.length).map(([label, share]) => ({
    name: model.classes[label], share, value: percent(share), color: css(model.colors[label]), classes: "swatched",
    only: label,
  }));
  return { words: lines.slice(0, 3).map(({ name, value }) => `${name} ${value}`).join(", "), lines };
}

function panopticRows({ map, segments }, model) {
  const colors = segmentColors(segments, model);
  const shares = new Map(areas(map, segments.length + 1));
  const lines = segments.map(({ id, label }) => ({
    name: model.classes[label], share: shares.get(id) ?? 0, value: percent(shares.get(id) ?? 0),
    color: css(colors[id]), classes: "swatched", only: id,
  }));
  return { words: counted(segments, model) || "nothing found", lines };
}

function counted(objects, model) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${count} × ` : "") + model.classes[label]).join(", ");
}

/** [number, share of the pixels] of what is on a map, most first. */
function areas(map, count) {
  const pixels = new Float64Array(count);
  for (const number of map) pixels[number]++;
  const found = Array.from(pixels, (n, number) => [number, n / map.length]).filter(([, share]) => share > 0);
  return found.sort((one, other) => other[1] - one[1]);
}

/** How the answer came about: one object for the life of the page. */
export class Looks {
  constructor(model) {
    this.model = model;
    this.stage = null;
    this.reach = model.stages.map(({ reach }) => reachOf(reach));
    this.chooseStages();
    this.listen();
    showKernels(model);
  }

  chooseStages() {
    const names = this.model.stages.map((_, stage) => `Stage ${stage + 1}`);
    const buttons = names.map((name, stage) => {
      const button = element("button", { textContent: name });
      button.onclick = () => {
        this.stage = stage;
        this.place = null;
        this.draw();
      };
      return button;
    });
    byId("stages").replaceChildren(...buttons);
  }

  listen() {
    const canvas = byId("position");
    canvas.onpointermove = (event) => {
      const box = canvas.getBoundingClientRect();
      const share = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
      this.move(share.map((part, axis) => Math.floor(part * this.shares()[axis] * this.dims()[axis])));
    };
    canvas.onkeydown = (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step || !this.result) return;
      event.preventDefault();
      this.move(this.place.map((at, axis) => at + step[axis]));
    };
    byId("over").onchange = () => this.draw();
  }

  /** The gates of the stage that is chosen; rows and columns of its map; the share of the input that is image. */
  gates() {
    return this.result.maps[`gates_${this.stage + 1}`];
  }

  dims() {
    return this.gates().dims.slice(2);
  }

  shares() {
    return [this.result.seen.height / this.result.input[0], this.result.seen.width / this.result.input[1]];
  }

  /** The last stage whose map is fine enough to look at, or the first. */
  lastFine() {
    const sides = this.model.stages.map((_, stage) => Math.min(...this.result.maps[`gates_${stage + 1}`].dims.slice(2)));
    return Math.max(0, sides.findLastIndex((side) => side >= FINE));
  }

  show(result) {
    this.result = result;
    this.stage ??= this.lastFine();
    this.place = null;
    this.picture = sheetOfImage(result.seen);
    byId("looks").hidden = false;
    byId("heard-card").hidden = !result.heard;
    if (result.heard) drawImage(byId("heard"), result.heard);
    this.draw();
  }

  draw() {
    if (!this.result) return;
    [...byId("stages").children].forEach((button, stage) => button.setAttribute("aria-pressed", stage === this.stage));
    const [height, width] = this.dims();
    const { data, dims } = this.gates();
    const levels = Array.from({ length: dims[1] }, (_, level) => data.subarray(level * height * width, (level + 1) * height * width));
    const reach = this.reach[this.stage];
    byId("gates").replaceChildren(
      ...levels.map((values, level) =>
        this.figure(values, [height, width], "viridis", levelName(level, reach), note(level, reach)),
      ),
    );
    byId("modulators").replaceChildren(
      ...this.model.stages.map((_, stage) => {
        const { data: values, dims: shape } = this.result.maps[`modulator_${stage + 1}`];
        return this.figure(values, shape.slice(1), "magma", `Stage ${stage + 1}`, `${shape[1]} × ${shape[2]} positions`);
      }),
    );
    this.move(this.place ?? this.dims().map((side, axis) => Math.floor((side * this.shares()[axis]) / 2)));
  }

  figure(values, [height, width], table, title, text) {
    const share = this.shares();
    const [low, high] = rangeOf(values, height, width, share);
    const canvas = element("canvas");
    const map = colored(values, height, width, low, high, table);
    drawMap(canvas, this.result.seen, this.picture, map, share, { over: byId("over").checked });
    const caption = element("figcaption", {}, title, element("small", {}, text));
    return element("figure", {}, canvas, caption, scale(low, high, table));
  }

  move(place) {
    if (!this.result) return;
    const most = this.dims().map((side, axis) => Math.ceil(side * this.shares()[axis]) - 1);
    this.place = place.map((at, axis) => Math.min(Math.max(at, 0), most[axis]));
    const reach = this.reach[this.stage];
    const context = contextOf(this.gates(), reach, ...this.place);
    const sides = reach.map(({ side }) => side);
    drawContext(byId("position"), this.result.seen, this.picture, context, this.dims(), this.place, sides, this.shares());
    const largest = Math.max(...context.gates.map(Math.abs)) || 1;
    byId("gates-here").replaceChildren(
      ...context.gates.map((gate, level) =>
        row({
          name: `${levelName(level, reach)}, ${note(level, reach)}`, share: Math.abs(gate) / largest, value: short(gate),
          color: gate < 0 ? "var(--bad)" : "var(--accent)",
        }),
      ),
    );
  }
}

const levelName = (level, reach) => (level < reach.length ? `Level ${level + 1}` : "Global");
const note = (level, reach) => (level < reach.length ? `${reach[level].side} × ${reach[level].side}` : "all");

function scale(low, high, table) {
  const canvas = colored(Float32Array.from({ length: 256 }, (_, value) => value), 1, 256, 0, 255, table);
  return element("div", { className: "scale" }, short(low), canvas, short(high));
}

function showKernels(model) {
  const most = Math.max(0, ...model.stages.map(({ kernels }) => kernels.length));
  if (!most) return;
  const grid = byId("kernels");
  grid.style.gridTemplateColumns = `auto repeat(${model.stages.length}, auto)`;
  const heads = model.stages.map((_, stage) => element("span", { className: "label" }, `Stage ${stage + 1}`));
  grid.append(element("span"), ...heads);
  for (let level = 0; level < most; level++) {
    grid.append(element("span", { className: "label" }, `Level ${level + 1}`));
    for (const { kernels } of model.stages) grid.append(kernels[level] ? kernelFigure(kernels[level]) : element("span"));
  }
  byId("kernels-card").hidden = false;
}

function kernelFigure(kernel) {
  const limit = Math.max(...kernel.flat().map(Math.abs)) || 1;
  const canvas = colored(kernel.flat(), kernel.length, kernel[0].length, -limit, limit, "signed");
  canvas.className = "coarse";
  const text = `${kernel.length} × ${kernel[0].length}, ± ${short(limit)}`;
  return element("figure", {}, canvas, element("figcaption", {}, element("small", {}, text)));
}
