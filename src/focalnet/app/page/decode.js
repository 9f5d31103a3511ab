// From the bytes of a file to an upright image with three channels, transparency laid on white.

import { inspect, Refused } from "./files.js";
import { turned, withoutAlpha } from "./pixels.js";

const MOST_BYTES = 256 * 2 ** 20;

/**
 * @throws {Refused} where it is no image that can be read.
 */
export async function decode(blob, name, mostPixels) {
  const { bytes, type, orientation } = inspect(await contentOf(blob, name), name, mostPixels);
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], { type }), { colorSpaceConversion: "none" });
  } catch {
    throw new Refused(`${name} cannot be decoded as an image: it is damaged, or this browser does not know its kind.`);
  }
  const { width, height } = bitmap;
  try {
    if (width * height > mostPixels) throw new Refused(`${name} has too many pixels: make it smaller.`);
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    return turned(withoutAlpha(context.getImageData(0, 0, width, height).data, height, width), orientation);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused(`${name} is too large for this browser: make it smaller.`);
  } finally {
    bitmap.close();
  }
}

/** The bytes of a file. */
export async function contentOf(blob, name) {
  if (blob.size > MOST_BYTES) throw new Refused(`${name} has more than 256 MiB: choose a smaller file.`);
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch {
    throw new Refused(`${name} cannot be read: it is a folder, or it was moved or changed meanwhile.`);
  }
}
