// The page: images come by drop, choice, clipboard, camera or as an example, and go to the worker. So do sounds, as their
// waveforms, which workers cannot decode.
//
// For other scripts every answer is also an event of the document, "focalnet", with what the worker said as `detail`.

import { Camera } from "./camera.js";
import { sheetOfImage } from "./draw.js";
import { Refused } from "./files.js";
import { decodeSound } from "./sound.js";
import { element, Looks, showAnswer } from "./views.js";

const byId = (id) => document.getElementById(id);
const drop = byId("drop");
const NO_FILE = "That is no file: this page takes files only, and fetches nothing from elsewhere.";
const MOST_LETTERS = 80;
let model = null;
let looks = null;
let asked = 0;
let leftOut = 0; // files that came with the one that is looked at
let playable = null; // the file of the sound that is listened to

const worker = new Worker("worker.js", { type: "module" });
worker.onmessage = ({ data }) => hear(data);

function hear(data) {
  ({ ready, failed, answer, refused })[data.kind](data);
  document.dispatchEvent(new CustomEvent("focalnet", { detail: data }));
}

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
  if (sounds()) speakOfSounds();
  looks = new Looks(model);
  showExamples();
}

const sounds = () => model?.preprocessing.kind === "audio";

function speakOfSounds() {
  for (const word of document.querySelectorAll(".noun")) word.textContent = word.textContent.replace(/(an )?image/, (_, an) => (an ? "a sound" : "sound"));
  for (const word of document.querySelectorAll(".seen")) word.textContent = "spectrogram";
  byId("file").accept = "audio/*";
  byId("camera").hidden = true;
}

const count = (classes) => (classes === 1 ? "1 class" : `${classes} classes`);
const described = start();

async function ready() {
  await described;
  byId("hint").textContent = `Drop ${sounds() ? "a sound" : "an image"} here, paste one, or choose one below.`;
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

/** Ask the network about an image or a sound, the first of `files` that came. */
async function look(blob, whole, files = 1) {
  leftOut = files - 1;
  const name = shortened(whole);
  const id = ++asked;
  drop.classList.add("busy");
  await described;
  say(`${sounds() ? "Listening to" : "Looking at"} ${name} …`);
  if (!sounds()) return worker.postMessage({ id, blob, name });
  playable = blob;
  try {
    const wave = await decodeSound(blob, name, model.preprocessing.sample_rate);
    worker.postMessage({ id, name, wave }, [wave.buffer]);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    hear({ kind: "refused", id, name, sentence: error.message });
  }
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
  const size = sounds() ? `${result.seconds.toFixed(1)} seconds` : `${width} × ${height} pixels`;
  say(`${result.name}, ${size}${others}`);
  if (sounds()) play(playable);
  result.picture = sheetOfImage(result.image);
  showAnswer(model, result);
  looks.show(result);
}

function play(blob) {
  const player = byId("player");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  player.hidden = false;
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
  return look(file, file.name || "the file", files.length);
}

function showExamples() {
  const strip = byId("examples").querySelector(".strip");
  for (const { file, name } of model.examples) {
    const button = element("button", { title: name }, sounds() ? name : thumbnail(file, name));
    if (sounds()) button.className = "button";
    button.onclick = async () => {
      chosen(button);
      look(await (await fetch(file)).blob(), name);
    };
    strip.append(button);
  }
  byId("examples").hidden = !model.examples.length;
}

function thumbnail(file, name) {
  const image = element("img", { src: file, alt: name, title: name });
  image.onload = () => image.classList.toggle("coarse", image.naturalWidth < 80);
  return image;
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
