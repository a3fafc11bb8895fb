// The captions that a photo has so far: one of them is chosen.

/** @import { Version } from "./types.js" */
import { made } from "./parts.js";
import { changedWords } from "./wording.js";

const MOST_VERSIONS = 12;
let copies = 0;

/** The newest versions, and always the first. @param {Version[]} versions */
export function kept(versions) {
  return versions.length > MOST_VERSIONS ? [versions[0], ...versions.slice(1 - MOST_VERSIONS)] : versions;
}

/**
 * @param {HTMLElement} host empty while there is only one
 * @param {(index: number) => void} choose
 * @returns {{ show: (versions: Version[], chosen: number) => void }}
 */
export function createVersions(host, choose) {
  const name = `versions-${++copies}`;

  /** @param {Version} version @param {Version} first */
  function words(version, first) {
    const changed = changedWords(first.caption, version.caption);
    return version.caption.words.flatMap((word, index) => [
      changed[index] ? made("mark", {}, word.text) : word.text,
      " ",
    ]);
  }

  /** @param {Version[]} versions @param {number} index @param {number} chosen */
  function choice(versions, index, chosen) {
    const input = made("input", { type: "radio", name, checked: index === chosen });
    input.onchange = () => choose(index);
    const text = made("span", { className: "text" }, ...words(versions[index], versions[0]));
    return made("label", {}, input, made("span", { className: "label" }, versions[index].label), text);
  }

  return {
    show(versions, chosen) {
      host.hidden = versions.length < 2;
      const legend = made("legend", {}, `Captions (${versions.length}); what is new is marked`);
      const choices = versions.map((_, index) => choice(versions, index, chosen));
      const before = host.contains(document.activeElement);
      const list = made("fieldset", {}, legend, ...choices);
      host.replaceChildren(list);
      list.scrollTop = (choices[chosen]?.offsetTop ?? 0) - list.clientHeight / 2; // without moving the page
      if (before) host.querySelectorAll("input")[chosen]?.focus();
    },
  };
}
