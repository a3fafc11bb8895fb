// The page's address: the tab in its hash, an example and its word in its query. A visitor's own photo is never in it.

/** @typedef {{ tab: string, example: string | null, word: number | null }} Place */

/** @param {string} address @returns {Place} */
export function placeOf(address) {
  const url = new URL(address);
  const word = Number.parseInt(url.searchParams.get("word") ?? "", 10);
  return {
    tab: url.hash.slice(1) || "caption",
    example: url.searchParams.get("example"),
    word: word > 0 ? word - 1 : null, // people count from one
  };
}

/** The address of a place. @param {string} address the present one @param {Place} place */
export function addressOf(address, { tab, example, word }) {
  const url = new URL(address);
  url.searchParams.delete("example");
  url.searchParams.delete("word");
  if (example !== null) url.searchParams.set("example", example);
  if (example !== null && word !== null) url.searchParams.set("word", String(word + 1));
  url.hash = tab === "caption" ? "" : tab;
  return url.href.replace(/#$/, "");
}

/** @param {Place} place @param {boolean} isNew whether Back leads to the place before */
export function goTo(place, isNew) {
  const address = addressOf(location.href, place);
  if (address === location.href) return;
  if (isNew) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}
