// One photo of many: its thumbnail and its caption, to be corrected.

/** @import { Row, Setup } from "./types.js" */
/** @import { Line } from "./downloads.js" */
import { button, made } from "./parts.js";
import { confidenceText } from "./wording.js";

/**
 * @typedef {"waiting" | "asked" | "done" | "failed"} CardState
 *
 * @typedef {object} Card
 * @property {HTMLElement} element
 * @property {File} file
 * @property {() => CardState} state
 * @property {() => void} begin it is being captioned
 * @property {() => void} wait it is not, after all, or is to be once more
 * @property {(row: Row) => void} show
 * @property {(sentence: string) => void} fail
 * @property {() => boolean} needsChecking
 * @property {() => Line} line
 */

/**
 * @param {File} file @param {Setup} setup @param {{ changed: () => void, look: (file: File, altText?: string) => void }} on
 * @returns {Card}
 */
export function createCard(file, setup, on) {
  /** @type {CardState} */
  let state = "waiting";
  let problem = "";
  let written = ""; // the model's caption
  /** @type {number | null} */
  let confidence = null;
  const thumbnail = made("img", { alt: "", width: 96, height: 96, hidden: true });
  const text = made("textarea", { rows: 3, disabled: true, ariaLabel: `Caption of ${file.name}` });
  const badge = made("span", { className: "badge" }, "waiting");
  const error = made("p", { className: "error", hidden: true });
  const look = button("See where it looked", () => on.look(file, edited() ? text.value : undefined));
  look.hidden = true;
  const name = made("span", { className: "file" }, file.name);
  const foot = made("div", { className: "bar" }, badge, look);
  const element = made("li", { className: "card" }, thumbnail, made("div", {}, name, text, error, foot));
  const edited = () => text.value !== written;
  const low = () => confidence !== null && confidence < setup.low_confidence;

  function describe() {
    const sure = confidenceText({ caption: "", confidence, words: [] }, setup.low_confidence);
    badge.textContent = edited() ? "edited" : (sure ?? "");
    badge.classList.toggle("low", low() && !edited());
  }

  /** @param {CardState} now @param {string} said */
  function become(now, said) {
    state = now;
    badge.textContent = said;
    element.setAttribute("aria-busy", String(now === "asked"));
  }

  text.oninput = () => {
    describe();
    on.changed();
  };
  text.onblur = on.changed; // a filter leaves a card where it is while it is being written
  return {
    element,
    file,
    state: () => state,
    begin: () => become("asked", "on its way"),
    wait() {
      problem = "";
      text.hidden = false;
      error.hidden = true;
      become("waiting", "waiting");
    },
    show(row) {
      become("done", "");
      written = text.value = row.caption.caption;
      confidence = row.caption.confidence;
      thumbnail.src = row.thumbnail;
      text.disabled = thumbnail.hidden = look.hidden = false;
      describe();
    },
    fail(sentence) {
      problem = sentence;
      become("failed", "");
      text.hidden = true;
      error.textContent = sentence;
      error.hidden = false;
    },
    needsChecking: () => state === "failed" || (state === "done" && low() && !edited()),
    line: () => ({ file: file.name, caption: text.value.trim(), confidence: edited() ? null : confidence, problem }),
  };
}
