// Pictures in the browser: their size, smaller copies.

import type { Limits } from "./service";
import { bytes, pixels } from "./words";

export interface Size {
  width: number;
  height: number;
}

/** Longest side of a picture that was scaled down here; models look at far less. */
const SENT_SIDE = 2048;
const THUMBNAIL_SIDE = 480;

/** The size of a picture by its address, or null where this browser cannot show it. */
export async function sizeOf(address: string): Promise<Size | null> {
  const image = new Image();
  image.src = address;
  return new Promise((resolve) => {
    image.onload = () => resolve({ width: image.naturalWidth, height: image.naturalHeight });
    image.onerror = () => resolve(null);
  });
}

/** What the service would refuse about a file before it is sent, or null. */
export function tooLarge(file: File, size: Size | null, limits: Limits): string | null {
  if (file.size > limits.max_bytes)
    return `The file has ${bytes(file.size)}; this service takes at most ${bytes(limits.max_bytes)}.`;
  if (size && size.width * size.height > limits.max_pixels)
    return `The picture has ${pixels(size.width * size.height)}; this service takes at most ${pixels(limits.max_pixels)}.`;
  return null;
}

async function drawn(source: Blob, longest: number): Promise<HTMLCanvasElement> {
  const bitmap = await createImageBitmap(source);
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("this browser cannot draw");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

async function jpeg(source: Blob, longest: number): Promise<Blob> {
  const canvas = await drawn(source, longest);
  return new Promise((resolve, reject) => {
    const done = (blob: Blob | null) => (blob ? resolve(blob) : reject(new Error("this browser cannot write JPEG")));
    canvas.toBlob(done, "image/jpeg", 0.88);
  });
}

/** A copy of a picture within the limits. */
export async function scaledDown(file: File, limits: Limits): Promise<File> {
  let side = Math.min(SENT_SIDE, Math.floor(Math.sqrt(limits.max_pixels)));
  let blob = await jpeg(file, side);
  while (blob.size > limits.max_bytes && side > 64) {
    side = Math.floor(side / 2);
    blob = await jpeg(file, side);
  }
  return new File([blob], file.name, { type: blob.type });
}

/** A small copy of a picture, or null where this browser cannot read it. */
export const thumbnail = (source: Blob): Promise<Blob | null> => jpeg(source, THUMBNAIL_SIDE).catch(() => null);

/** The bytes of a data address; the page's security policy lets nothing fetch one. */
export function blobOf(address: string): Blob {
  const [head = "", body = ""] = address.split(",");
  const type = head.slice("data:".length).split(";")[0] ?? "";
  return new Blob([Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0))], { type });
}
