// The whole page: its tabs, its address, and what goes from one tab to another.

/** @import { Ask, Setup } from "./types.js" */
/** @import { How } from "./stage.js" */
import { goTo, placeOf } from "./address.js";
/** @import { Place } from "./address.js" */
import { createBatch } from "./batch.js";
import { createCamera } from "./camera.js";
import { copied } from "./clipboard.js";
import { createCompare } from "./compare.js";
import { AskError } from "./errors.js";
import { createIntake } from "./intake.js";
import { keepStage, keptStage, loseStage } from "./keep.js";
import { made, part } from "./parts.js";
import { createStage } from "./stage.js";
import { createTabs } from "./tabs.js";

const GONE = "Your photo is gone after the reload. Upload it again.";
const MEGABYTE = 1 << 20;

/** @param {HTMLElement} element holds the markup of page.html @param {Ask} ask */
export function start(element, ask) {
  /** @type {Setup} */
  const setup = JSON.parse(part(element, "setup").textContent ?? "");
  const root = element;
  let asking = new AbortController();
  let stepped = true; // what the page shows by itself, or after a step to this tab, is no further step for Back

  const stage = createStage(part(root, "stage"), ask, setup, {
    changed,
    replace: () => intake.choose(false),
    link: () => location.href,
  });
  const batch = createBatch(root, ask, setup, {
    choose: () => intake.choose(true),
    look(file, altText) {
      tabs.open("caption", true);
      own(file, altText);
    },
  });
  const camera = createCamera(root, ask, setup);
  const compare = ask.compare && createCompare(root, ask.compare, setup, () => intake.choose(false));
  if (!compare) /** @type {HTMLElement} */ (root.querySelector("#tab-compare")).hidden = true;
  const intake = createIntake(root, take);
  const tabs = createTabs(root, (tab, byVisitor) => {
    if (tab !== "camera") camera.close();
    const state = stage.state();
    if (tab === "compare" && state) compare?.show(state);
    go(byVisitor);
    stepped = byVisitor && tab === "caption";
  });

  /** The address says where the visitor is. @param {boolean} isNew */
  function go(isNew) {
    const state = stage.state();
    const example = state?.photo.example ?? null;
    goTo({ tab: tabs.current(), example, word: state && state.word >= 0 ? state.word : null }, isNew);
  }

  function changed() {
    const state = stage.state();
    if (!state) return;
    keepStage(state);
    if (tabs.current() === "compare") compare?.show(state);
    go(!stepped && state.photo.example !== placeOf(location.href).example);
    stepped = false;
    for (const button of part(root, "examples").children) {
      button.setAttribute("aria-pressed", String(button.id === `example-${state.photo.example}`));
    }
  }

  /** @param {File[]} files */
  function take(files) {
    const batched = tabs.current() === "batch" || files.length > 1;
    if (batched) {
      tabs.open("batch", true);
      return batch.add(files);
    }
    const [file] = files;
    const most = setup.max_file_bytes / MEGABYTE;
    if (file.size > setup.max_file_bytes) {
      asking.abort();
      return fail(`This file has ${Math.ceil(file.size / MEGABYTE)} MB. Use one of at most ${most} MB.`);
    }
    if (tabs.current() !== "compare") tabs.open("caption", true);
    own(file);
  }

  /** @param {string} sentence */
  function fail(sentence) {
    if (tabs.current() === "compare") tabs.open("caption", true);
    stage.fail(sentence);
    const state = stage.state();
    if (state) keepStage(state); // it is shown again
  }

  /** A photo of the visitor's. @param {File} file @param {string} [altText] */
  function own(file, altText) {
    loseStage();
    const how = { play: !isStill(), altText };
    void caption(() => ask.photo(file, file.name, asking.signal), URL.createObjectURL(file), file.name, how);
  }

  /** Show the photo at once, and its caption as soon as there is one; the newest photo wins.
   * @param {() => ReturnType<Ask["photo"]>} question @param {string} image @param {string} name
   * @param {How} how */
  async function caption(question, image, name, how) {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    stage.working(image, name);
    try {
      const answer = await question();
      if (!signal.aborted) stage.show(answer, how);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof AskError)) throw error;
      fail(error.message);
    } finally {
      if (image.startsWith("blob:")) URL.revokeObjectURL(image);
    }
  }

  /** @param {string} key @param {How} how */
  const example = (key, how) => caption(() => ask.example(key, asking.signal), ask.picture(key), key, how);

  /** What the address says, by Back and Forward. */
  function follow() {
    const place = placeOf(location.href);
    tabs.open(place.tab, false);
    if (stage.state()?.photo.example === place.example || restored(place)) return;
    if (isKnown(place.example)) void example(place.example, { play: false, word: place.word ?? undefined });
  }

  /** Whether the browser had kept the photo of this place. @param {Place} place */
  function restored({ example: key, word }) {
    const kept = keptStage(key);
    if (!kept || kept === "gone" || kept.photo.example !== key) return false;
    stage.restore(word === null ? kept : { ...kept, word });
    return true;
  }

  /** @param {string | null} key @returns {key is string} */
  function isKnown(key) {
    return setup.examples.some((example) => example.key === key);
  }

  part(root, "examples").append(...setup.examples.map((each) => exampleButton(each, ask.picture(each.key), () => example(each.key, { play: !isStill() }))));
  part(root, "upload").onclick = () => intake.choose(false);
  part(root, "take").onclick = () => void intake.photograph();
  for (const button of root.querySelectorAll("[data-copy]")) {
    const code = /** @type {HTMLElement} */ (button.previousElementSibling);
    /** @type {HTMLElement} */ (button).onclick = async () => {
      button.textContent = await copied(code.textContent ?? "", "Copied");
    };
  }
  for (const address of root.querySelectorAll("[data-part=address]")) address.textContent = new URL(".", document.baseURI).href;
  window.addEventListener("popstate", follow);
  window.addEventListener("beforeunload", (event) => batch.filled() && event.preventDefault());
  part(root, "page").classList.add("started");
  begin();

  function begin() {
    const place = placeOf(location.href);
    const isGone = place.example === null && keptStage(null) === "gone";
    tabs.open(place.tab, false);
    if (restored(place)) return;
    const key = isKnown(place.example) ? place.example : setup.examples[0].key;
    const how = { play: !isStill() && !isGone && place.word === null, word: place.word ?? undefined };
    void example(key, how).then(() => isGone && stage.fail(GONE));
  }
}

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** @param {Setup["examples"][number]} example @param {string} src @param {() => void} onclick */
function exampleButton({ key, label, outside }, src, onclick) {
  const image = made("img", { src, alt: "", width: 88, height: 66 });
  const note = outside ? [made("small", {}, "outside what it knows")] : [];
  return made("button", { type: "button", id: `example-${key}`, onclick }, image, made("span", {}, label, ...note));
}
