// The photo: lit for a word, covered with the brush, and all words side by side.

/** @import { Caption, Photo, Word } from "./types.js" */
import { createBrush } from "./brush.js";
import { drawCover, drawLight, drawPhoto } from "./light.js";
import { copyOf, made, part, partOf } from "./parts.js";

const LONGEST_SIDE = 1280; // of the canvas, in its own pixels
const SHORTEST_SIDE = 640; // its longest side at least: for a smooth heatmap on a small photo, too
const TILE_SIDE = 240;

/**
 * @typedef {object} Shown what the photo is lit and covered for
 * @property {Word | null} word
 * @property {Caption | null} caption whose words are the tiles
 * @property {number[]} covered
 *
 * @typedef {object} PhotoPane
 * @property {HTMLElement} element
 * @property {(image: string, colour: number[]) => Promise<boolean>} open show another photo; false
 *   where a later one has been opened meanwhile, or the browser cannot show it
 * @property {(description: string) => void} describe for who does not see it
 * @property {(shown: Shown) => void} show
 * @property {(count: number, playing: number) => void} progress words, and the one that is played; -1 for none
 * @property {(covered: number[], word: Word | null) => HTMLCanvasElement} tile a small picture of it
 */

/**
 * @param {HTMLElement} host
 * @param {{ replace?: () => void, cover?: (covered: number[]) => void, play: () => void }} on without `cover` or
 *   `replace` there is no such button
 * @returns {PhotoPane}
 */
export function createPhotoPane(host, on) {
  const element = copyOf("photo-pane");
  const canvas = partOf(element, "canvas", HTMLCanvasElement);
  const strength = partOf(element, "strength", HTMLInputElement);
  const everyWord = partOf(element, "every-word", HTMLInputElement);
  let photo = new Image();
  /** @type {Shown} */
  let shown = { word: null, caption: null, covered: [] };
  let colour = [127, 127, 127];
  let opened = 0;

  /** @param {HTMLCanvasElement} target @param {number[]} covered @param {Word | null} word */
  function draw(target, covered, word) {
    if (!photo.naturalWidth) return;
    drawPhoto(target, photo);
    drawCover(target, covered, colour);
    if (word) drawLight(target, word.attention, Number(strength.value) / 100);
  }

  /** @param {number[]} covered @param {Word | null} word */
  function tile(covered, word) {
    const small = document.createElement("canvas");
    resize(small, photo, TILE_SIDE, TILE_SIDE);
    draw(small, covered, word);
    return small;
  }

  function drawTiles() {
    const words = everyWord.checked && shown.caption ? shown.caption.words : [];
    const tiles = words.map((word) => made("figure", {}, tile(shown.covered, word), made("figcaption", {}, word.text)));
    part(element, "tiles").replaceChildren(...tiles);
    part(element, "tiles").hidden = !tiles.length;
  }

  const brush = createBrush(element, canvas, {
    painting(covered) {
      shown = { ...shown, covered, word: null };
      draw(canvas, covered, null);
    },
    painted: (covered) => on.cover?.(covered),
  });
  part(element, "cover").hidden = !on.cover;
  part(element, "replace").hidden = !on.replace;
  part(element, "replace").onclick = () => on.replace?.();
  part(element, "play").onclick = () => on.play();
  strength.oninput = () => (draw(canvas, shown.covered, shown.word), drawTiles());
  everyWord.onchange = drawTiles;
  host.append(element);

  return {
    element,
    tile,
    describe: (description) => canvas.setAttribute("aria-label", description),
    async open(image, mean) {
      const mine = ++opened;
      const next = Object.assign(new Image(), { src: image });
      const isShown = await next.decode().then(
        () => true,
        () => false,
      );
      if (mine !== opened || !isShown) return false;
      [photo, colour] = [next, mean];
      resize(canvas, photo, SHORTEST_SIDE, LONGEST_SIDE);
      draw(canvas, shown.covered, shown.word);
      drawTiles();
      return true;
    },
    show(now) {
      const same = now.caption === shown.caption && now.covered.join() === shown.covered.join();
      shown = now;
      brush.set(now.covered);
      draw(canvas, now.covered, now.word);
      if (!same) drawTiles();
    },
    progress(count, playing) {
      const bar = partOf(element, "progress", HTMLProgressElement);
      [bar.max, bar.value] = [count || 1, playing + 1];
      part(element, "play").textContent = playing < 0 ? "Play" : "Stop";
    },
  };
}

/** The photo's shape, with the longest side between these. @param {HTMLCanvasElement} canvas @param {HTMLImageElement} photo
 * @param {number} least @param {number} most */
function resize(canvas, photo, least, most) {
  const longest = Math.max(photo.naturalWidth, photo.naturalHeight);
  const scale = Math.min(Math.max(longest, least), most) / longest;
  canvas.width = Math.max(1, Math.round(photo.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(photo.naturalHeight * scale));
}
