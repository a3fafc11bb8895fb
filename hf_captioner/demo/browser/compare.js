// Two captioners on one photo.

/** @import { Ask, Caption, Setup, StageState } from "./types.js" */
/** @import { Reading } from "./reading.js" */
import { AskError } from "./errors.js";
import { keepText, keptText } from "./keep.js";
import { part, partOf } from "./parts.js";
import { createPhotoPane } from "./photo_pane.js";
import { createPlayer } from "./player.js";
import { createReading } from "./reading.js";
import { changedWords } from "./wording.js";

const SIDES = /** @type {const} */ (["first", "second"]);

/** @typedef {{ reading: Reading, caption: Caption | null, word: number }} Side */

/**
 * @param {HTMLElement} root @param {NonNullable<Ask["compare"]>} ask @param {Setup} setup @param {() => void} replace another photo is wanted
 * @returns {{ show: (state: StageState) => void }} compare this photo from now on
 */
export function createCompare(root, ask, setup, replace) {
  const form = partOf(root, "compare-form", HTMLFormElement);
  /** @type {StageState | null} */
  let given = null;
  let asking = new AbortController();
  let last = 0; // the side that was touched last
  const player = createPlayer({ word: (index) => light(last, index), end: rest });
  const pane = createPhotoPane(part(root, "compare-pane"), { play, replace });
  /** @type {Side[]} */
  const sides = SIDES.map((name, side) => ({
    reading: createReading(part(root, `compare-${name}`), setup.low_confidence, {
      point: (index) => !player.playing() && (index < 0 ? rest() : light(side, index)),
      select: (index) => select(side, index),
      opens: false,
    }),
    caption: null,
    word: -1,
  }));
  const field = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));

  /** @param {number} side @param {number} index */
  function light(side, index) {
    const { caption } = sides[side];
    sides.forEach(({ reading }, other) => reading.light(other === side ? index : -1));
    pane.show({ word: caption?.words[index] ?? null, caption, covered: [] });
    pane.progress(caption?.words.length ?? 0, player.playing() ? index : -1);
  }

  function rest() {
    light(last, sides[last].word);
  }

  /** @param {number} side @param {number} index */
  function select(side, index) {
    player.stop();
    last = side;
    sides.forEach((each, other) => {
      each.word = other === side ? index : -1;
      each.reading.select(each.word, other === side);
    });
    rest();
  }

  function play() {
    if (player.playing()) return player.stop();
    player.start(sides[last].caption?.words.length ?? 0);
  }

  /** @param {number} side @param {StageState} state @param {AbortSignal} signal */
  async function read(side, { photo, versions }, signal) {
    const { reading } = sides[side];
    const model = field(SIDES[side]).value.trim();
    reading.working(true);
    reading.fail("");
    try {
      const image = await (await fetch(photo.image)).blob();
      const caption = model ? await ask(image, model, signal) : versions[0].caption;
      if (signal.aborted) return;
      reading.working(false);
      part(root, `compare-${SIDES[side]}-name`).textContent = model || setup.model;
      sides[side].caption = caption;
      sides[side].word = -1;
      reading.announce(`${model || setup.model}: ${caption.caption}`);
      render();
    } catch (error) {
      if (signal.aborted) return;
      reading.working(false);
      if (!(error instanceof AskError)) throw error;
      reading.fail(error.message); // what was there before stays
    }
  }

  function render() {
    const [first, second] = sides.map(({ caption }) => caption);
    sides.forEach(({ caption, reading, word }, side) => {
      const other = side ? first : second;
      if (!caption) return;
      reading.show(caption, other ? changedWords(other, caption) : []);
      reading.select(word);
    });
    rest();
  }

  async function compare() {
    if (!given) return sides[0].reading.fail("There is no photo yet. Give one in the Caption tab.");
    player.stop();
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    for (const name of SIDES) keepText(name, field(name).value.trim());
    const state = given;
    await Promise.all(SIDES.map((_, side) => read(side, state, signal)));
  }

  for (const name of SIDES) field(name).value = keptText(name);
  form.onsubmit = (event) => {
    event.preventDefault();
    void compare();
  };
  return {
    show(now) {
      if (now.photo.image === given?.photo.image) return;
      given = now;
      asking.abort();
      player.stop();
      for (const side of sides) {
        Object.assign(side, { caption: null, word: -1 });
        side.reading.clear();
      }
      if (!field(SIDES[0]).value.trim()) {
        sides[0].caption = now.versions[0].caption; // this page's model has captioned it already
        render();
      }
      pane.describe("The photo that is compared");
      void pane.open(now.photo.image, now.photo.colour).then(rest);
    },
  };
}
