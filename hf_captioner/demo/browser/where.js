// Where a word looked: in words, as cells to cover, and the word that an untouched page rests on.

/** @import { Caption, Word } from "./types.js" */

export const MASK_SIDE = 32;
const COVERED_SHARE = 0.2;
const EVEN = 0.9; // of the entropy that even attention has
const PARTS = "upper left, upper centre, upper right, left, centre, right, lower left, lower centre, lower right".split(", ");
const SMALL_WORDS = new Set(
  ("a an the and or of in on at to by with from for over under near into onto through up down out off is are was were " +
    "be being it its his her their this that there he she they who which some two three several while as one another " +
    "next front top other each has have not no").split(" "),
);

/** How much of it lies in each of PARTS. @param {number[][]} attention */
function shares(attention) {
  const found = PARTS.map(() => 0);
  attention.forEach((row, y) =>
    row.forEach((cell, x) => {
      for (const [i, tall] of overlaps(y, attention.length)) {
        for (const [j, wide] of overlaps(x, row.length)) found[3 * i + j] += cell * tall * wide;
      }
    }),
  );
  return found;
}

/** The thirds that a cell lies in, each with the share of the cell that does.
 * @param {number} cell @param {number} cells on this side @returns {[number, number][]} */
function overlaps(cell, cells) {
  return [0, 1, 2].flatMap((third) => {
    const shared = Math.min((cell + 1) / cells, (third + 1) / 3) - Math.max(cell / cells, third / 3);
    return shared > 0 ? [/** @type {[number, number]} */ ([third, shared * cells])] : [];
  });
}

/** How even attention is: 1 where it is the same everywhere, 0 where one cell has it all. @param {number[][]} attention */
function evenness(attention) {
  const cells = attention.flat();
  const sum = cells.reduce((total, cell) => total + cell, 0) || 1;
  const entropy = cells.reduce((total, cell) => total - (cell > 0 ? (cell / sum) * Math.log(cell / sum) : 0), 0);
  return cells.length > 1 ? entropy / Math.log(cells.length) : 1;
}

/** "mostly lower centre", from the feature map. @param {number[][]} attention */
export function where(attention) {
  if (evenness(attention) > EVEN) return "all over the photo";
  const found = shares(attention);
  return `mostly ${PARTS[found.indexOf(Math.max(...found))]}`;
}

/** The fifth of the photo that a word looked at most, as cells of the brush. @param {number[][]} attention */
export function mostAttended(attention) {
  const [height, width] = [attention.length, attention[0].length];
  const sorted = attention.flat().sort((a, b) => a - b);
  const border = sorted[Math.ceil((1 - COVERED_SHARE) * (sorted.length - 1))];
  return Array.from({ length: MASK_SIDE ** 2 }, (_, cell) => {
    const row = Math.floor((Math.floor(cell / MASK_SIDE) * height) / MASK_SIDE);
    const column = Math.floor(((cell % MASK_SIDE) * width) / MASK_SIDE);
    return attention[row][column] >= border ? 1 : 0;
  });
}

/** The place of the word to rest on: a surer one that looked at less of the photo. @param {Caption} caption */
export function strongestWord(caption) {
  const strength = (/** @type {Word} */ word) => {
    if (SMALL_WORDS.has(word.text)) return -1;
    const doing = word.text.endsWith("ing") ? 0.1 : 1; // mostly a verb, and things are rather looked at
    return doing * word.probability * (1 - evenness(word.attention));
  };
  const found = caption.words.map(strength);
  return found.indexOf(Math.max(...found));
}
