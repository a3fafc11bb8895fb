// What stays in the visitor's own browser: the photo's captions over a reload, and names over visits.

/** @import { StageState } from "./types.js" */

const GONE = "gone";

/** An example does not take the place of a visitor's own photo. @param {string | null} example */
const keyOf = (example) => `captioner:${example === null ? "own" : "example"}`;

/** A browser may have no storage for a page, or forbid it. @param {"localStorage" | "sessionStorage"} kind */
function storage(kind) {
  try {
    return window[kind];
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

/** @param {StageState} state */
export function keepStage(state) {
  try {
    storage("sessionStorage")?.setItem(keyOf(state.photo.example), JSON.stringify(state));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    storage("sessionStorage")?.removeItem(keyOf(state.photo.example)); // it is full
    if (state.photo.example === null) loseStage();
  }
}

/** From now on a reload loses the visitor's photo: it is being worked on. */
export function loseStage() {
  storage("sessionStorage")?.setItem(keyOf(null), GONE);
}

/** The visitor's photo, or an example. @param {string | null} example @returns {StageState | "gone" | null} */
export function keptStage(example) {
  const kept = storage("sessionStorage")?.getItem(keyOf(example)) ?? null;
  if (kept === null) return null;
  return kept === GONE ? GONE : JSON.parse(kept);
}

/** @param {string} name @param {string} text */
export const keepText = (name, text) => storage("localStorage")?.setItem(`captioner:${name}`, text);

/** @param {string} name */
export const keptText = (name) => storage("localStorage")?.getItem(`captioner:${name}`) ?? "";
