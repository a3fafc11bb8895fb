// A caption in large words: each lights the photo, and says how sure and where.

/** @import { Caption } from "./types.js" */
import { copyOf, made, part } from "./parts.js";
import { CONFIDENCE_MEANS, confidenceText, percent, wordLine } from "./wording.js";
import { where } from "./where.js";

const NO_WORD = "Point at a word, tap it, or use the arrow keys, to see where it looked.";

/**
 * @typedef {object} Reading
 * @property {HTMLElement} element
 * @property {(caption: Caption, changed: boolean[]) => void} show
 * @property {() => void} clear
 * @property {(index: number, focus?: boolean) => void} select the word that stays lit; -1 for none
 * @property {(index: number) => void} light the word that is lit now
 * @property {(working: boolean) => void} working skeleton words in place of the caption
 * @property {(sentence: string) => void} fail where the caption would stand; an empty one takes it away
 * @property {(index: number) => HTMLElement} word
 * @property {(text: string) => void} announce to a screen reader
 */

/**
 * @param {HTMLElement} host @param {number} low the confidence below which a caption is doubted
 * @param {{ point: (index: number) => void, select: (index: number, open: boolean) => void, opens: boolean }} on a word is
 *   pointed at (-1: none any more), or chosen, by a click to see more of it (open) or by the arrows; opens: there is more
 * @returns {Reading}
 */
export function createReading(host, low, on) {
  const element = copyOf("reading");
  const words = part(element, "words");
  const [line, confidence] = [part(element, "line"), part(element, "confidence-line")];
  /** @type {Caption | null} */
  let caption = null;
  let selected = -1;
  const buttons = () => /** @type {HTMLButtonElement[]} */ ([...words.children]);

  /** @param {number} index @param {boolean} changed */
  function wordButton(index, changed) {
    const word = /** @type {Caption} */ (caption).words[index];
    const button = made("button", { type: "button", className: changed ? "word changed" : "word" }, word.text);
    button.style.setProperty("--probability", String(word.probability));
    button.setAttribute("aria-description", `${percent(word.probability)}, ${where(word.attention)}`);
    if (on.opens) button.setAttribute("aria-haspopup", "dialog");
    button.onpointerenter = (event) => event.pointerType === "mouse" && on.point(index);
    button.onpointerleave = () => on.point(-1);
    button.onclick = () => on.select(index, true);
    return button;
  }

  words.onkeydown = (event) => {
    const all = buttons();
    const now = all.indexOf(/** @type {HTMLButtonElement} */ (event.target));
    /** @type {Record<string, number>} */
    const places = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: all.length - 1 };
    if (now < 0 || !(event.key in places || event.key === "Escape")) return;
    event.preventDefault();
    on.select(event.key === "Escape" ? -1 : (places[event.key] + all.length) % all.length, false);
  };
  part(element, "what").onclick = () => {
    const means = part(element, "means");
    means.textContent = CONFIDENCE_MEANS;
    means.hidden = !means.hidden;
    part(element, "what").setAttribute("aria-expanded", String(!means.hidden));
  };
  host.append(element);

  return {
    element,
    word: (index) => buttons()[index],
    announce(text) {
      part(element, "announcement").textContent = text;
    },
    show(now, changed) {
      caption = now;
      words.setAttribute("aria-label", now.caption);
      words.replaceChildren(...now.words.map((_, index) => wordButton(index, Boolean(changed[index]))));
      const text = confidenceText(now, low);
      confidence.hidden = text === null;
      part(element, "confidence").textContent = text ?? "";
      confidence.classList.toggle("low", now.confidence !== null && now.confidence < low);
    },
    clear() {
      caption = null;
      words.replaceChildren();
      confidence.hidden = true;
      line.textContent = "";
    },
    select(index, focus = false) {
      selected = index;
      buttons().forEach((button, place) => {
        button.tabIndex = place === Math.max(index, 0) ? 0 : -1;
        button.setAttribute("aria-pressed", String(place === index));
        if (focus && place === index) button.focus();
      });
    },
    light(index) {
      buttons().forEach((button, place) => button.classList.toggle("lit", place === index));
      const word = caption?.words[index];
      line.textContent = word ? wordLine(word) : caption ? NO_WORD : "";
      // While words pass by quickly, a screen reader would be talking all the time.
      line.setAttribute("aria-live", index === selected ? "polite" : "off");
    },
    working(working) {
      element.setAttribute("aria-busy", String(working));
      part(element, "skeleton").hidden = !working;
      part(element, "caption").classList.toggle("working", working);
    },
    fail(sentence) {
      part(element, "error").textContent = sentence;
      part(element, "error").hidden = !sentence;
      element.classList.toggle("failed", Boolean(sentence));
    },
  };
}
