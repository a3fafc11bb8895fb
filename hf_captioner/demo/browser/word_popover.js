// What else could stand at a word: beside the word, or as a sheet from below on a phone.

/** @import { Caption } from "./types.js" */
import { copyOf, made, part } from "./parts.js";
import { percent } from "./wording.js";

const GAP = 8; // pixels between the word and the popover
let copies = 0;

/**
 * @param {HTMLElement} host
 * @param {{ pick: (prefix: string) => void, hide: (index: number) => void }} on
 * @returns {{ open: (caption: Caption, index: number, anchor: HTMLElement) => void, close: () => void }}
 */
export function createWordPopover(host, on) {
  const element = copyOf("word-popover");
  part(element, "title").id = `word-popover-${++copies}`;
  element.setAttribute("aria-labelledby", part(element, "title").id);
  let index = -1;
  /** @type {HTMLElement | null} */
  let opener = null;
  const close = () => {
    if (!element.matches(":popover-open")) return;
    const inside = element.contains(document.activeElement);
    element.hidePopover();
    if (inside) opener?.focus();
  };

  /** @param {Caption} caption @param {string} text @param {number} share @param {number} most of all shares */
  function alternative(caption, text, share, most) {
    const present = text === caption.words[index].text;
    const prefix = [...caption.words.slice(0, index).map((word) => word.text), text].join(" ");
    const choice = made("button", { type: "button", disabled: present }, made("span", { className: "name" }, text));
    const bar = made("span", { className: "share" });
    bar.style.setProperty("--share", `${(100 * share) / most}%`);
    choice.append(bar, made("span", { className: "percent" }, percent(share) + (present ? ", now" : "")));
    choice.onclick = () => {
      close();
      on.pick(prefix);
    };
    return made("li", { className: present ? "present" : "" }, choice);
  }

  part(element, "close").onclick = close;
  part(element, "hide").onclick = () => {
    close();
    on.hide(index);
  };
  host.append(element);

  return {
    close,
    open(caption, word, anchor) {
      [index, opener] = [word, anchor];
      const { text, probability, alternatives } = caption.words[word];
      /** @type {[string, number][]} */
      const own = alternatives.some(([name]) => name === text) ? [] : [[text, probability]];
      const all = [...alternatives, ...own];
      const most = Math.max(...all.map(([, share]) => share)) || 1;
      const choices = all.map(([name, share]) => alternative(caption, name, share, most));
      part(element, "title").textContent = `“${text}”`;
      part(element, "alternatives").replaceChildren(...choices);
      if (!element.matches(":popover-open")) element.showPopover();
      place(element, anchor);
      part(element, "close").focus({ preventScroll: true });
    },
  };
}

/** Below the word, inside the window's width; a phone's sheet is placed by the style sheet.
 * @param {HTMLElement} element @param {HTMLElement} anchor */
function place(element, anchor) {
  const word = anchor.getBoundingClientRect();
  const left = Math.min(word.left, document.documentElement.clientWidth - element.offsetWidth - GAP);
  element.style.setProperty("--left", `${Math.max(GAP, left) + window.scrollX}px`);
  element.style.setProperty("--top", `${word.bottom + GAP + window.scrollY}px`);
}
