// What stays in the visitor's own browser: the photo's captions over a reload, and names over visits.

/** @import { StageState } from "./types.js" */

const STAGE = "captioner:stage";
const GONE = "gone";

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
    storage("sessionStorage")?.setItem(STAGE, JSON.stringify(state));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    loseStage(); // the storage is full
  }
}

/** From now on a reload loses the photo: it is being worked on. */
export function loseStage() {
  storage("sessionStorage")?.setItem(STAGE, GONE);
}

/** @returns {StageState | "gone" | null} */
export function keptStage() {
  const kept = storage("sessionStorage")?.getItem(STAGE) ?? null;
  if (kept === null) return null;
  return kept === GONE ? GONE : JSON.parse(kept);
}

/** @param {string} name @param {string} text */
export const keepText = (name, text) => storage("localStorage")?.setItem(`captioner:${name}`, text);

/** @param {string} name */
export const keptText = (name) => storage("localStorage")?.getItem(`captioner:${name}`) ?? "";
