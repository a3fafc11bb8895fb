// One photo and its captions. The chosen one governs the light, playing, the alternative text and the downloads.

/** @import { Answer, Ask, Caption, CaptionRequest, Photo, Setup, StageState, Version } from "./types.js" */
import { createAnotherCaption } from "./another_caption.js";
import { AskError } from "./errors.js";
import { copyOf, part } from "./parts.js";
import { createPhotoPane } from "./photo_pane.js";
import { createPlayer } from "./player.js";
import { createReading } from "./reading.js";
import { contactSheet } from "./sheet.js";
import { createUseIt } from "./use_it.js";
import { createVersions, kept } from "./versions.js";
import { mostAttended, strongestWord } from "./where.js";
import { createWordPopover } from "./word_popover.js";
import { asSentence, changedWords, NOTHING_ASKED, requestLabel } from "./wording.js";

const PHONE = "(max-width: 700px)"; // as in stage.css

/**
 * @typedef {object} How a new photo is shown
 * @property {boolean} play
 * @property {number} [word] the one to rest on
 * @property {string} [altText] that the visitor has written already
 *
 * @typedef {object} Stage
 * @property {(answer: Answer, how: How) => void} show a new photo
 * @property {(answer: Answer) => void} follow a camera's newest frame
 * @property {(state: StageState) => void} restore
 * @property {() => StageState | null} state null while there is no caption
 * @property {(image: string, name: string) => void} working a photo whose caption is on its way
 * @property {(sentence: string) => void} fail why there is none; what was there before stays
 * @property {() => void} stop playing, and wait for no answer
 */

/**
 * @param {HTMLElement} root empty
 * @param {Ask} ask
 * @param {Setup} setup
 * @param {{ changed: () => void, replace?: () => void, link: () => string }} on the state has changed; without `replace` no
 *   other photo is offered here
 * @returns {Stage}
 */
export function createStage(root, ask, setup, on) {
  /** @type {StageState | null} */
  let state = null;
  let pointed = -1;
  let played = -1;
  let isFollowing = false; // a camera, whose next frame replaces all
  let isBetween = false; // the photo that is shown has no caption yet, and the captions are of another one
  let asking = new AbortController();
  root.append(...copyOf("stage-content").children);

  const player = createPlayer({ word: (index) => playing(index), end: () => playing(-1) });
  const pane = createPhotoPane(part(root, "pane"), { replace: on.replace, cover: (covered) => coverCells(covered), play });
  const reading = createReading(part(root, "words-side"), setup.low_confidence, {
    point,
    select: chooseWord,
    opens: true,
  });
  const popover = createWordPopover(reading.element, { pick, hide });
  const versions = createVersions(part(root, "versions"), chooseVersion);
  const another = createAnotherCaption(part(root, "asking"), { ask: again, reset });
  const useIt = createUseIt(part(root, "asking"), {
    edit,
    sheet,
    link: on.link,
  });

  /** @returns {Version} */
  const version = () => /** @type {StageState} */ (state).versions[/** @type {StageState} */ (state).chosen];

  /** @param {Partial<StageState>} now */
  function change(now) {
    if (!state) return;
    state = { ...state, ...now };
    render();
    on.changed();
  }

  /** @param {StageState["altText"]} altText */
  function edit(altText) {
    if (!state) return;
    state = { ...state, altText };
    if (!altText) render(); // else the visitor is typing it
    on.changed();
  }

  function render() {
    if (!state) return;
    const { caption } = version();
    const [first] = state.versions;
    reading.show(caption, state.chosen ? changedWords(first.caption, caption) : []);
    reading.select(state.word);
    versions.show(state.versions, state.chosen);
    useIt.show({ photo: state.photo, version: version(), altText: state.altText });
    pane.describe(`The photo, captioned: ${caption.caption}`);
    light();
  }

  /** @param {number} index */
  function playing(index) {
    played = index;
    light();
  }

  /** @param {number} index */
  function point(index) {
    pointed = index;
    if (!player.playing()) light();
  }

  /** Light the word that is played, pointed at, or chosen. */
  function light() {
    if (!state || isBetween) return;
    const { caption, covered } = version();
    const index = [played, pointed, state.word].find((place) => place >= 0) ?? -1;
    reading.light(index);
    pane.show({ word: caption.words[index] ?? null, caption, covered });
    pane.progress(caption.words.length, played);
  }

  /** @param {number} index @param {boolean} open */
  function chooseWord(index, open) {
    if (!state) return;
    player.stop();
    pointed = -1;
    if (index === state.word) reading.select(index, true);
    else {
      state = { ...state, word: index };
      reading.select(index, true);
      light();
      on.changed();
    }
    if (!open || isFollowing) return popover.close();
    popover.open(version().caption, index, reading.word(index));
    // A phone's sheet comes from below: then the photo is wanted above it.
    if (matchMedia(PHONE).matches) pane.element.querySelector(".photo-frame")?.scrollIntoView({ block: "start" });
  }

  /** @param {number} index */
  function chooseVersion(index) {
    player.stop();
    popover.close();
    reading.fail("");
    if (!state) return;
    const { request, caption } = state.versions[index];
    another.fill(request);
    change({ chosen: index, word: strongestWord(caption) });
  }

  function play() {
    if (player.playing() || !state || isBetween) return player.stop();
    player.start(version().caption.words.length);
  }

  /** @param {string} prefix */
  function pick(prefix) {
    again({ ...version().request, several: false, prefix });
  }

  /** @param {number} index */
  function hide(index) {
    const { caption, covered } = version();
    const looked = mostAttended(caption.words[index].attention);
    coverCells(looked.map((cell, place) => (cell || covered[place] ? 1 : 0)));
  }

  /** @param {number[]} covered */
  function coverCells(covered) {
    if (!state || isBetween) return;
    const request = { ...version().request, several: false };
    const isFirst = !covered.length && JSON.stringify(request) === JSON.stringify(NOTHING_ASKED);
    return isFirst ? chooseVersion(0) : again(request, covered);
  }

  function reset() {
    asking.abort();
    wait(false);
    chooseVersion(0);
  }

  /** Ask for another caption; the newest question wins. @param {CaptionRequest} request @param {number[]} covered */
  async function again(request, covered = state ? version().covered : []) {
    if (!state) return;
    const signal = newQuestion();
    const hadFocus = reading.element.contains(document.activeElement);
    player.stop();
    wait(true);
    pane.show({ word: null, caption: version().caption, covered });
    try {
      const [first] = state.versions;
      const question = { photo: state.photo, request, covered, words: first.caption.words.length };
      const captions = await ask.again(question, signal);
      if (signal.aborted || !state) return;
      wait(false);
      add(captions.map((caption) => ({ label: requestLabel(request, covered), request, caption, covered })));
      if (hadFocus) reading.select(state.word, true);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof AskError)) throw error;
      wait(false);
      reading.fail(error.message);
      light(); // what was covered by a stroke that had no answer is not covered
    }
  }

  /** What is there already is chosen, and not added once more. @param {Version[]} found */
  function add(found) {
    if (!state) return;
    const { versions: before } = state;
    const same = (/** @type {Version} */ a) => (/** @type {Version} */ b) =>
      a.caption.caption === b.caption.caption && a.covered.join() === b.covered.join();
    const all = kept([...before, ...found.filter((version) => !before.some(same(version)))]);
    const chosen = all.findIndex(same(found[0]));
    reading.announce(found.map(({ label, caption }) => `${label}: ${caption.caption}`).join(". "));
    another.fill(found[0].request);
    change({ versions: all, chosen, word: strongestWord(found[0].caption) });
  }

  function newQuestion() {
    asking.abort();
    asking = new AbortController();
    return asking.signal;
  }

  /** @param {boolean} waiting @param {boolean} forPhoto nothing can be asked of one that has no caption yet */
  function wait(waiting, forPhoto = false) {
    isBetween = forPhoto;
    reading.working(waiting);
    for (const name of ["versions", "asking"]) part(root, name).inert = forPhoto || !state;
    if (waiting) reading.fail("");
  }

  function sheet() {
    const { caption, covered } = version();
    const words = caption.words.map((word) => ({ name: word.text, picture: pane.tile(covered, word) }));
    return contactSheet(caption.caption, [{ name: "", picture: pane.tile(covered, null) }, ...words]);
  }

  /** @param {StageState} now @param {boolean} follows */
  function take(now, follows) {
    newQuestion();
    player.stop();
    popover.close();
    [state, isFollowing] = [now, follows];
    root.classList.toggle("following", follows);
    wait(false);
    reading.fail("");
    another.fill(version().request);
    void pane.open(now.photo.image, now.photo.colour).then(() => light());
    render();
    reading.announce(`Caption: ${version().caption.caption}`);
    on.changed();
  }

  wait(false);
  return {
    state: () => state,
    restore: (now) => take(now, false),
    stop() {
      newQuestion();
      player.stop();
      wait(false);
    },
    show({ photo, captions }, { play: plays, word = strongestWord(captions[0]), altText }) {
      const state = opened(photo, captions, word < captions[0].words.length ? word : -1);
      take(altText ? { ...state, altText: { text: altText, of: asSentence(captions[0].caption) } } : state, false);
      if (plays) play();
    },
    follow: ({ photo, captions }) => take(opened(photo, captions, -1), true),
    working(image, name) {
      newQuestion();
      player.stop();
      popover.close();
      wait(true, true);
      pane.show({ word: null, caption: null, covered: [] });
      pane.describe(`${name}, which is being captioned`);
      void pane.open(image, [127, 127, 127]);
    },
    fail(sentence) {
      wait(false);
      reading.fail(sentence);
      if (state) void pane.open(state.photo.image, state.photo.colour).then(render);
    },
  };
}

/** @param {Photo} photo @param {Caption[]} captions @param {number} word @returns {StageState} */
function opened(photo, captions, word) {
  const own = { label: "The model's own", request: NOTHING_ASKED, covered: [] };
  const versions = captions.map((caption) => ({ ...own, caption }));
  return { photo, versions, chosen: 0, word, altText: null };
}
