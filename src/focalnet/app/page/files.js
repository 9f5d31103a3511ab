// What a file is by its first bytes, whether it is whole, and which way up: before the browser decodes it.
//
// A browser shows what there is of a damaged image, and turns some upright and others not. Here a damaged file is
// refused, as Python does, and EXIF's orientation is read, and set to 1 in the bytes, so that all browsers agree.

/** A mistake of the reader's, said in one sentence. */
export class Refused extends Error {}

const READ = "this page reads JPEG, PNG, WebP, GIF, BMP and AVIF";
const ORIENTATION = 0x0112;

/**
 * @param bytes Uint8Array of the whole file.
 * @returns {type, width, height, orientation, bytes}: the size as the bitmap lies; `bytes` with orientation 1.
 * @throws {Refused}
 */
export function inspect(bytes, name, mostPixels) {
  if (!bytes.length) throw new Refused(`${name} is empty: choose another file.`);
  const kind = KINDS.find(({ is }) => is(bytes));
  if (!kind) throw new Refused(`${name} is ${named(bytes)}: ${READ}.`);
  let found;
  try {
    found = kind.look(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    found = null; // read beyond the end
  }
  if (!found) throw new Refused(`${name} is damaged, a part of the ${kind.name} is missing: replace it.`);
  const { width, height, exif, xmp } = found;
  if (!(width > 0 && height > 0)) throw new Refused(`${name} is damaged, it says no size: replace it.`);
  if (width * height > mostPixels) {
    const [has, most] = [width * height, mostPixels].map((count) => count.toLocaleString("en"));
    throw new Refused(`${name} has ${has} pixels, more than ${most}: make it smaller.`);
  }
  const tag = exif && orientationIn(bytes, exif);
  const orientation = tag ? tag.value : (xmp && orientationInText(bytes, xmp)) || 1;
  if (tag) {
    bytes = bytes.slice();
    new DataView(bytes.buffer).setUint16(tag.at, 1, tag.little);
  }
  return { type: kind.type, width, height, orientation, bytes };
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const text = (bytes, from, length) => String.fromCharCode(...bytes.subarray(from, from + length));
const begins = (bytes, ...start) => start.every((byte, at) => bytes[at] === byte);

const KINDS = [
  { name: "JPEG", type: "image/jpeg", is: (bytes) => begins(bytes, 0xff, 0xd8, 0xff), look: lookAtJpeg },
  { name: "PNG", type: "image/png", is: (bytes) => begins(bytes, 137, 80, 78, 71, 13, 10, 26, 10), look: lookAtPng },
  { name: "GIF", type: "image/gif", is: (bytes) => /^GIF8[79]a/.test(text(bytes, 0, 6)), look: lookAtGif },
  { name: "BMP", type: "image/bmp", is: (bytes) => text(bytes, 0, 2) === "BM" && (bytes[14] ?? 0) < 128, look: lookAtBmp },
  {
    name: "WebP",
    type: "image/webp",
    is: (bytes) => text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP",
    look: lookAtWebp,
  },
  { name: "AVIF", type: "image/avif", is: (bytes) => /^ftypavi[fs]/.test(text(bytes, 4, 8)), look: lookAtAvif },
];

/** What else a file is, in words. */
function named(bytes) {
  const start = text(bytes, 0, 512);
  if (/^(II\*\0|MM\0\*)/.test(start)) return "a TIFF";
  if (start.slice(4, 8) === "ftyp") return /hei|mif1/.test(start.slice(8, 24)) ? "a HEIC image" : "a film";
  if (/^\x1aE\xdf\xa3|^RIFF....AVI /s.test(start)) return "a film";
  if (start.startsWith("%PDF")) return "a PDF";
  if (start.startsWith("PK")) return "an archive";
  if (/^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg/is.test(start)) {
    return "an SVG drawing";
  }
  return isText(bytes.subarray(0, 512)) ? "text" : "no image of a known format";
}

function isText(bytes) {
  try {
    return /^[^\0-\x08\x0e-\x1f]*$/.test(new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true }));
  } catch {
    return false;
  }
}

function lookAtPng(bytes) {
  const data = view(bytes);
  let found = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = data.getUint32(at);
    const type = text(bytes, at + 4, 4);
    const [start, end] = [at + 8, at + 8 + length];
    if (end + 4 > bytes.length) return null;
    if (type === "IHDR") found = { width: data.getUint32(start), height: data.getUint32(start + 4) };
    if (type === "eXIf" && found) found.exif = [start, end];
    if (/^[iz]TXt$/.test(type) && found && text(bytes, start, 17) === "XML:com.adobe.xmp") found.xmp = [start, end];
    if (type === "IEND") return found;
    at = end + 4;
  }
  return null;
}

function lookAtJpeg(bytes) {
  const data = view(bytes);
  const found = {};
  for (let at = 2; at + 4 <= bytes.length; ) {
    if (bytes[at] !== 0xff) return null;
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      at += 2;
      continue;
    }
    const [start, end] = [at + 4, at + 2 + data.getUint16(at + 2)];
    if (marker === 0xe1 && text(bytes, start, 6) === "Exif\0\0") found.exif ??= [start + 6, end];
    if (marker === 0xe1 && text(bytes, start, 28) === "http://ns.adobe.com/xap/1.0/") found.xmp ??= [start, end];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      found.height = data.getUint16(start + 1);
      found.width = data.getUint16(start + 3);
    }
    if (marker === 0xda) return endsIn(bytes, end) && found.width !== undefined ? found : null;
    at = end;
  }
  return null;
}

/** Whether the end of a JPEG stands somewhere after its first scan begins. */
function endsIn(bytes, from) {
  for (let at = bytes.length - 2; at >= from; at--) if (bytes[at] === 0xff && bytes[at + 1] === 0xd9) return true;
  return false;
}

function lookAtGif(bytes) {
  const data = view(bytes);
  const table = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  const found = { width: data.getUint16(6, true), height: data.getUint16(8, true) };
  const blocks = (at) => {
    while (at < bytes.length && bytes[at]) at += bytes[at] + 1;
    return at + 1;
  };
  for (let at = 13 + table(bytes[10]); at < bytes.length; ) {
    if (bytes[at] === 0x21) at = blocks(at + 2);
    else if (bytes[at] === 0x2c) return blocks(at + 11 + table(bytes[at + 9])) <= bytes.length ? found : null;
    else return null;
  }
  return null;
}

function lookAtBmp(bytes) {
  const data = view(bytes);
  if (data.getUint32(14, true) === 12) return { width: data.getUint16(18, true), height: data.getUint16(20, true) };
  const [width, height] = [data.getInt32(18, true), Math.abs(data.getInt32(22, true))];
  const plain = [0, 3].includes(data.getUint32(30, true));
  const row = Math.ceil((width * data.getUint16(28, true)) / 32) * 4;
  return plain && data.getUint32(10, true) + row * height > bytes.length ? null : { width, height };
}

function lookAtWebp(bytes) {
  const data = view(bytes);
  if (data.getUint32(4, true) + 8 > bytes.length) return null;
  const found = {};
  for (let at = 12; at + 8 <= bytes.length; ) {
    const type = text(bytes, at, 4);
    const [start, length] = [at + 8, data.getUint32(at + 4, true)];
    const wide = (place) => 1 + data.getUint16(place, true) + bytes[place + 2] * 65536;
    if (type === "VP8X") [found.width, found.height] = [wide(start + 4), wide(start + 7)];
    if (type === "VP8 ") {
      found.width ??= data.getUint16(start + 6, true) & 0x3fff;
      found.height ??= data.getUint16(start + 8, true) & 0x3fff;
    }
    if (type === "VP8L") {
      const bits = data.getUint32(start + 1, true);
      found.width ??= (bits & 0x3fff) + 1;
      found.height ??= ((bits >>> 14) & 0x3fff) + 1;
    }
    if (type === "EXIF") found.exif = [start, start + length];
    if (type === "XMP ") found.xmp = [start, start + length];
    at = start + length + (length % 2);
  }
  return found;
}

/** The size stands in the first box `ispe`; where the file ends, the browser's decoder finds out. */
function lookAtAvif(bytes) {
  for (let at = 0; at + 16 <= Math.min(bytes.length, 65536); at++) {
    if (bytes[at] === 0x69 && text(bytes, at, 4) === "ispe") {
      return { width: view(bytes).getUint32(at + 8), height: view(bytes).getUint32(at + 12) };
    }
  }
  return null;
}

/** The orientation in a block of EXIF, and where it stands. */
function orientationIn(bytes, [from, end]) {
  if (text(bytes, from, 6) === "Exif\0\0") from += 6;
  const data = new DataView(bytes.buffer, bytes.byteOffset + from, Math.max(0, Math.min(end, bytes.length) - from));
  const order = text(bytes, from, 2);
  if (data.byteLength < 8 || !["II", "MM"].includes(order)) return null;
  const little = order === "II";
  const table = data.getUint32(4, little);
  if (table + 2 > data.byteLength) return null;
  for (let entry = 0; entry < data.getUint16(table, little); entry++) {
    const at = table + 2 + 12 * entry;
    if (at + 12 > data.byteLength) return null;
    if (data.getUint16(at, little) !== ORIENTATION) continue;
    return { value: data.getUint16(at + 8, little), at: from + at + 8, little };
  }
  return null;
}

/** The orientation in a block of XMP. */
function orientationInText(bytes, [from, end]) {
  const found = /tiff:Orientation(?:="|>)([0-9])/.exec(new TextDecoder("latin1").decode(bytes.subarray(from, end)));
  return found ? Number(found[1]) : null;
}
