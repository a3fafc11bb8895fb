// What the page says of captions and words.

/** @import { Caption, CaptionRequest, Word } from "./types.js" */
import { where } from "./where.js";

export const CONFIDENCE_MEANS = "The chance that this caption is better than the model's typical one.";
const ALT_TEXT_LIMIT = 125; // characters after which some screen readers stop

/** @type {CaptionRequest} */
export const NOTHING_ASKED = Object.freeze({
  prefix: "",
  bad_words: "",
  length: "Normal",
  style: "Most likely",
  several: false,
  seed: 0,
});

/** @param {number} share */
export const percent = (share) => `${Math.round(100 * share)} %`;

/** @param {Word} word */
export const wordLine = (word) => `${word.text}, ${percent(word.probability)}, ${where(word.attention)}`;

/** A caption with a capital letter and a full stop. @param {string} text */
export function asSentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  return trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/** The HTML of an image with its alternative text. @param {string} name @param {string} text */
export function htmlSnippet(name, text) {
  /** @type {Record<string, string>} */
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" };
  const escaped = (/** @type {string} */ plain) => plain.replace(/[&<>"']/g, (character) => entities[character]);
  return `<img src="${escaped(name)}" alt="${escaped(text)}">`;
}

/** @param {string} text */
export function altTextNote(text) {
  const note = `${text.length} characters.`;
  return text.length > ALT_TEXT_LIMIT ? `${note} Some screen readers stop after ${ALT_TEXT_LIMIT}.` : note;
}

/** "Low confidence (25 %)", or null where the model has none. @param {Caption} caption @param {number} low */
export function confidenceText(caption, low) {
  if (caption.confidence === null) return null;
  const share = percent(caption.confidence);
  return caption.confidence < low ? `Low confidence (${share})` : `Confidence ${share}`;
}

/** How a version came about. @param {CaptionRequest} request @param {number[]} covered */
export function requestLabel(request, covered) {
  const parts = [];
  if (covered.includes(1)) parts.push("with part of the photo covered");
  if (request.prefix.trim()) parts.push(`starting with “${request.prefix.trim()}”`);
  if (request.bad_words.trim()) parts.push(`leaving out “${request.bad_words.trim()}”`);
  if (request.length !== NOTHING_ASKED.length) parts.push(request.length.toLowerCase());
  if (request.style !== NOTHING_ASKED.style) parts.push(request.style.toLowerCase());
  if (request.several) parts.push("one of three");
  const label = parts.join(", ") || "as the model says it";
  return label[0].toUpperCase() + label.slice(1);
}

/** For each word of a later caption, whether it is new: not in the longest common subsequence. @param {Caption} before @param {Caption} after */
export function changedWords(before, after) {
  const [old, now] = [before, after].map((caption) => caption.words.map((word) => word.text));
  const lengths = Array.from({ length: old.length + 1 }, () => new Array(now.length + 1).fill(0));
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = now.length - 1; j >= 0; j--) {
      lengths[i][j] = old[i] === now[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const changed = now.map(() => true);
  for (let i = 0, j = 0; i < old.length && j < now.length; ) {
    if (old[i] === now[j]) {
      changed[j] = false;
      i++, j++;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return changed;
}
