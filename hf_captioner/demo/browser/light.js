// Drawing: the photo, lit where the model looked, and what is covered. Sizes are in pixels of the canvas.

const DARK = [0, 0, 0];
const WARM = [255, 176, 32];

/** @typedef {CanvasRenderingContext2D} Context */

/** Cells as a picture of one pixel each, which the browser smooths when it is drawn large.
 * @param {number[]} cells @param {number} columns @param {number[]} colour @param {(cell: number) => number} alpha */
function cellPicture(cells, columns, colour, alpha) {
  const picture = document.createElement("canvas");
  [picture.width, picture.height] = [columns, cells.length / columns];
  const pixels = new ImageData(picture.width, picture.height);
  cells.forEach((cell, index) => pixels.data.set([...colour, 255 * alpha(cell)], 4 * index));
  context(picture).putImageData(pixels, 0, 0);
  return picture;
}

/** @param {HTMLCanvasElement} canvas */
export const context = (canvas) => /** @type {Context} */ (canvas.getContext("2d"));

/** The whole canvas shows the photo. @param {HTMLCanvasElement} canvas @param {CanvasImageSource} photo */
export function drawPhoto(canvas, photo) {
  const drawing = context(canvas);
  drawing.globalAlpha = 1;
  drawing.imageSmoothingQuality = "high";
  drawing.drawImage(photo, 0, 0, canvas.width, canvas.height);
}

/** Dimmed where the model did not look, warm where it did, as hf_captioner/heatmap.py draws it.
 * @param {HTMLCanvasElement} canvas @param {number[][]} attention @param {number} strength 0 to 1 */
export function drawLight(canvas, attention, strength) {
  const cells = attention.flat();
  const most = Math.max(...cells) || 1;
  const columns = attention[0].length;
  const drawing = context(canvas);
  drawing.globalAlpha = strength;
  const layers = [
    cellPicture(cells, columns, DARK, (cell) => 0.7 * (1 - cell / most)),
    cellPicture(cells, columns, WARM, (cell) => 0.45 * (cell / most) ** 2),
  ];
  for (const layer of layers) drawing.drawImage(layer, 0, 0, canvas.width, canvas.height);
  drawing.globalAlpha = 1;
}

/** @param {HTMLCanvasElement} canvas @param {number[]} covered cells of a square, 1 where covered @param {number[]} colour */
export function drawCover(canvas, covered, colour) {
  if (!covered.includes(1)) return;
  const drawing = context(canvas);
  drawing.globalAlpha = 1;
  drawing.imageSmoothingEnabled = false;
  const cells = cellPicture(covered, Math.sqrt(covered.length), colour, (cell) => cell);
  drawing.drawImage(cells, 0, 0, canvas.width, canvas.height);
  drawing.imageSmoothingEnabled = true;
}
