// The page: images come by drop, choice, clipboard, camera or as an example, and go to the worker.
//
// For other scripts every answer is also an event of the document, "focalnet", with what the worker said as `detail`.

import { Camera } from "./camera.js";
import { sheetOfImage } from "./draw.js";
import { element, Looks, showAnswer } from "./views.js";

const byId = (id) => document.getElementById(id);
const drop = byId("drop");
const [READY, NO_FILE] = [
  "Drop an image here, paste one, or choose one below.",
  "That is no file: this page takes files only, and fetches nothing from elsewhere.",
];
const MOST_LETTERS = 80;
let model = null;
let looks = null;
let asked = 0;
let leftOut = 0; // files that came with the one that is looked at

const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data }) => {
  ({ ready, failed, answer, refused })[data.kind](data);
  document.dispatchEvent(new CustomEvent("focalnet", { detail: data }));
};
worker.onerror = () => failed({ sentence: "This browser cannot run the page: it needs modules in workers and WebAssembly." });

async function start() {
  if (location.protocol === "file:") {
    failed({ sentence: "A page of files alone may not read them: serve the folder, for example python -m http.server." });
    return;
  }
  const response = await fetch("model.json");
  if (!response.ok) return; // the worker says it
  model = await response.json();
  document.title = `${model.title} · focalnet`;
  byId("title").textContent = model.title;
  const purpose = model.purpose[0].toUpperCase() + model.purpose.slice(1);
  const network = [model.head, model.network].filter(Boolean).join(" on ");
  byId("lead").textContent = [purpose, network, count(model.classes.length)].join(" · ");
  byId("about").textContent =
    `Made by focalnet ${model.library}. ` +
    (model.licence ? `Licence of the weights: ${model.licence}. ` : "") +
    "ONNX Runtime runs it: see LICENSE-onnxruntime.txt.";
  looks = new Looks(model);
  showExamples();
}

const count = (classes) => (classes === 1 ? "1 class" : `${classes} classes`);
const described = start();

function ready() {
  byId("hint").textContent = READY;
  drop.querySelector(".frame").classList.add("empty");
}

function failed({ sentence }) {
  byId("hint").textContent = "The network could not be loaded.";
  say(sentence, true);
}

function say(sentence, bad = false) {
  byId("status").textContent = sentence;
  byId("status").className = bad ? "bad" : "";
}

const shortened = (name) => (name.length > MOST_LETTERS ? `${name.slice(0, MOST_LETTERS - 1)}…` : name);

/** Ask the network about an image, the first of `files` that came. */
function look(blob, whole, files = 1) {
  leftOut = files - 1;
  const name = shortened(whole);
  asked++;
  drop.classList.add("busy");
  say(`Looking at ${name} …`);
  worker.postMessage({ id: asked, blob, name });
}

async function answer(result) {
  await described;
  if (result.id !== asked) return; // another image came in between
  drop.classList.remove("busy");
  byId("hint").hidden = true;
  byId("picture").hidden = false;
  drop.querySelector(".frame").classList.remove("empty");
  const { width, height } = result.image;
  const others = leftOut ? `; ${leftOut} more ${leftOut === 1 ? "file was" : "files were"} left out` : "";
  say(`${result.name}, ${width} × ${height} pixels${others}`);
  result.picture = sheetOfImage(result.image);
  showAnswer(model, result);
  looks.show(result);
}

function refused({ id, sentence }) {
  if (id !== asked) return;
  drop.classList.remove("busy");
  say(sentence, true);
}

function take(files) {
  if (!files?.length) return say(NO_FILE, true);
  chosen(null);
  const [file] = files;
  return look(file, file.name || "the image", files.length);
}

function showExamples() {
  const strip = byId("examples").querySelector(".strip");
  for (const { file, name } of model.examples) {
    const image = element("img", { src: file, alt: name, title: name });
    image.onload = () => image.classList.toggle("coarse", image.naturalWidth < 80);
    const button = element("button", { title: name }, image);
    button.onclick = async () => {
      chosen(button);
      look(await (await fetch(file)).blob(), name);
    };
    strip.append(button);
  }
  byId("examples").hidden = !model.examples.length;
}

function chosen(button) {
  for (const other of byId("examples").querySelectorAll("button")) other.classList.toggle("chosen", other === button);
}

byId("file").onchange = ({ target }) => {
  if (target.files.length) take(target.files);
  target.value = "";
};
addEventListener("paste", ({ clipboardData }) => clipboardData.files.length && take(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files);
});
new Camera((blob) => take([new File([blob], "the camera's image")]), (sentence) => say(sentence, true));
