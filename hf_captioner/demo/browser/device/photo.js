// A visitor's photo: what is shown, and what the model reads. Sizes and sentences are those of the package.

import { AskError } from "../errors.js";
import { createResizer } from "./resize.js";

const DISPLAY_SIDE = 1280; // pixels, the longest side of what is shown
const THUMBNAIL_SIDE = 192;
const MIN_SIDE = 16; // of a smaller photo the model would say something all the same
const MAX_ASPECT = 20; // the model reads a square
const MAX_PIXELS = 89_478_485;
const BAND = 256; // rows that are read at once
const JPEG = { type: "image/jpeg", quality: 0.88 };
const NO_IMAGE = "This file isn't an image we can open. Use JPEG, PNG, WebP or GIF.";
const DAMAGED = "This photo is damaged or incomplete.";
const BEGINNINGS = ["\xff\xd8\xff", "\x89PNG", "GIF8", "RIFF"]; // of JPEG, PNG, GIF and WebP

/** Upright, with the levels of the file; raises AskError. @param {Blob} file @returns {Promise<ImageBitmap>} */
export async function openPhoto(file) {
  if (!file.size) throw new AskError("This file is empty. Choose another one.");
  let photo;
  try {
    photo = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    const beginning = String.fromCharCode(...new Uint8Array(await file.slice(0, 4).arrayBuffer()));
    throw new AskError(BEGINNINGS.some((each) => beginning.startsWith(each)) ? DAMAGED : NO_IMAGE);
  }
  const { width, height } = photo;
  const [short, long] = [Math.min(width, height), Math.max(width, height)];
  const size = `The image has ${short < MIN_SIDE ? "only " : ""}${width} x ${height} pixels`;
  if (short < MIN_SIDE) throw new AskError(`${size}; expected at least ${MIN_SIDE} on each side.`);
  if (long > MAX_ASPECT * short) {
    throw new AskError(`${size}, which is too elongated; expected at most ${MAX_ASPECT} times as many on one side as on the other: crop it.`);
  }
  if (width * height > MAX_PIXELS) throw new AskError("This photo has too many pixels. Use a smaller one.");
  return photo;
}

/** A white page of so many pixels. @param {number} width @param {number} height */
function paper(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  if (!context) throw new AskError("This device has too little memory for this photo. Use a smaller one.");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  return { canvas, context };
}

/** @param {ImageBitmap} photo @param {number} side @returns {Uint8Array} levels, side x side, RGB */
export function levelsOf(photo, side) {
  const { width, height } = photo;
  const resizer = createResizer(width, height, side);
  for (let top = 0; top < height; top += BAND) {
    const rows = Math.min(BAND, height - top);
    const { context } = paper(width, rows);
    context.drawImage(photo, 0, -top);
    resizer.add(context.getImageData(0, 0, width, rows).data, rows);
  }
  return resizer.finish();
}

/** @param {ImageBitmap} photo @param {number} side the longest, at most @returns {Promise<string>} a JPEG as a data URL */
async function jpegUrl(photo, side) {
  const scale = Math.min(1, side / Math.max(photo.width, photo.height));
  const [width, height] = [photo.width, photo.height].map((length) => Math.max(1, Math.round(length * scale)));
  const { canvas, context } = paper(width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, 0, 0, width, height);
  return `data:image/jpeg;base64,${await base64(await canvas.convertToBlob(JPEG))}`;
}

export const shown = (/** @type {ImageBitmap} */ photo) => jpegUrl(photo, DISPLAY_SIDE);
export const thumbnail = (/** @type {ImageBitmap} */ photo) => jpegUrl(photo, THUMBNAIL_SIDE);

/** @param {Uint8Array} levels @param {number} side @returns {Promise<string>} a PNG in base64 */
export async function pngOf(levels, side) {
  const { canvas, context } = paper(side, side);
  const image = context.createImageData(side, side);
  image.data.fill(255);
  for (let i = 0, at = 0; i < levels.length; i += 3, at += 4) image.data.set(levels.subarray(i, i + 3), at);
  context.putImageData(image, 0, 0);
  return base64(await canvas.convertToBlob({ type: "image/png" }));
}

/** @param {string} png what `pngOf` made @param {number} side */
export async function levelsOfPng(png, side) {
  const file = new Blob([Uint8Array.from(atob(png), (character) => character.charCodeAt(0))], { type: "image/png" });
  return levelsOf(await openPhoto(file), side);
}

/** @param {Uint8Array} levels @returns {number[]} the mean colour */
export function colourOf(levels) {
  const sums = [0, 0, 0];
  levels.forEach((level, i) => (sums[i % 3] += level));
  return sums.map((sum) => Math.round((3 * sum) / levels.length));
}

/** @param {Blob} blob @returns {Promise<string>} */
async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 1 << 15) text += String.fromCharCode(...bytes.subarray(i, i + (1 << 15)));
  return btoa(text);
}
