// Levels of colour become what the encoder reads.

const CELLS = 32; // of the brush, on each side

/** @typedef {{ image_size: number, image_mean: number[], image_std: number[] }} ImageConfig of config.json */

/** @param {Uint8Array} levels S x S, RGB @param {ImageConfig} config @returns {Float32Array} (3, S, S), normalised */
export function pixelsOf(levels, { image_mean: mean, image_std: std }) {
  const count = levels.length / 3;
  const pixels = new Float32Array(levels.length);
  for (let channel = 0; channel < 3; channel += 1) {
    const [middle, width] = [mean, std].map((each) => Math.fround(Math.fround(each[channel]) * 255));
    for (let i = 0; i < count; i += 1) pixels[channel * count + i] = Math.fround(levels[3 * i + channel] - middle) / width;
  }
  return pixels;
}

/** The image's mean colour wherever a cell is covered. @param {Float32Array} pixels (3, S, S) @param {number[]} covered
 * cells of the brush, row by row; none is an empty list @param {number} side S @returns {Float32Array} */
export function occlude(pixels, covered, side) {
  const painted = pixels.slice();
  const count = side * side;
  for (let channel = 0; covered.length && channel < 3; channel += 1) {
    const own = pixels.subarray(channel * count, (channel + 1) * count);
    const mean = own.reduce((sum, value) => sum + value, 0) / count;
    for (let i = 0; i < count; i += 1) {
      const [row, column] = [Math.floor(i / side), i % side].map((at) => Math.floor((at * CELLS) / side));
      if (covered[row * CELLS + column]) painted[channel * count + i] = mean;
    }
  }
  return painted;
}
