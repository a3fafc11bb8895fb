// Pillow's bilinear resampling to the bit, in bands of rows, so that a large photo is never in memory twice.

const PRECISION = 22; // bits of a weight, as Pillow's
const ROUND = 1 << (PRECISION - 1);

/**
 * A triangle as wide as the two pixels it goes between, or wider where the image becomes smaller (antialiasing).
 * @param {number} from @param {number} to pixels @returns {{ first: number, weights: Int32Array }[]} for each pixel of the result
 */
function filterOf(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, pixel) => {
    const centre = (pixel + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const end = Math.min(Math.trunc(centre + support + 0.5), from);
    const shares = Array.from({ length: end - first }, (_, i) => Math.max(0, 1 - Math.abs((first + i - centre + 0.5) / support)));
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(shares, (share) => Math.trunc(0.5 + (share / sum) * (1 << PRECISION))) };
  });
}

/**
 * Resize an image of any size to side x side pixels as a whole; its rows are added band by band, from the top.
 * @param {number} width @param {number} height @param {number} side
 */
export function createResizer(width, height, side) {
  const across = filterOf(width, side);
  const narrow = new Uint8Array(height * side * 3);
  let rows = 0;

  /** @param {Uint8ClampedArray} band RGBA, opaque @param {number} count of its rows */
  function add(band, count) {
    for (let row = 0; row < count; row += 1, rows += 1) {
      let out = rows * side * 3;
      for (const { first, weights } of across) {
        let [r, g, b] = [ROUND, ROUND, ROUND];
        let at = (row * width + first) * 4;
        for (let i = 0; i < weights.length; i += 1, at += 4) {
          r += band[at] * weights[i];
          g += band[at + 1] * weights[i];
          b += band[at + 2] * weights[i];
        }
        narrow[out++] = r >> PRECISION;
        narrow[out++] = g >> PRECISION;
        narrow[out++] = b >> PRECISION;
      }
    }
  }

  /** @returns {Uint8Array} levels, row by row, RGB */
  function finish() {
    const levels = new Uint8Array(side * side * 3);
    const line = side * 3;
    filterOf(height, side).forEach(({ first, weights }, row) => {
      for (let i = 0; i < line; i += 1) {
        let sum = ROUND;
        for (let j = 0; j < weights.length; j += 1) sum += narrow[(first + j) * line + i] * weights[j];
        levels[row * line + i] = sum >> PRECISION;
      }
    });
    return levels;
  }

  return { add, finish };
}
