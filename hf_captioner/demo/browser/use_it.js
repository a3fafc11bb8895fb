// What a visitor takes away: the alternative text, HTML, a picture, a link.

/** @import { AltText, Photo, Version } from "./types.js" */
import { copied, copiedPicture } from "./clipboard.js";
import { copyOf, part, partOf } from "./parts.js";
import { altTextNote, asSentence, htmlSnippet } from "./wording.js";

/**
 * @typedef {object} Taken
 * @property {Photo} photo
 * @property {Version} version
 * @property {AltText | null} altText as the visitor edited it
 */

/**
 * @param {HTMLElement} host
 * @param {{ edit: (altText: AltText | null) => void, sheet: () => HTMLCanvasElement, link: () => string }} on edit, null:
 *   the page's own text is taken again. sheet: the picture of every word
 * @returns {{ show: (taken: Taken) => void }}
 */
export function createUseIt(host, on) {
  const element = copyOf("use-it");
  const text = partOf(element, "alt-text", HTMLTextAreaElement);
  const done = part(element, "done");
  /** @type {Taken | null} */
  let taken = null;
  const own = () => asSentence(taken?.version.caption.caption ?? "");

  function describe() {
    part(element, "note").textContent = altTextNote(text.value);
    // Of an edited text only a caption that came after it is news.
    part(element, "offer").hidden = !taken?.altText || [text.value, taken.altText.of].includes(own());
  }

  /** @param {string} content @param {string} said */
  async function copy(content, said) {
    done.textContent = await copied(content, said);
  }

  text.oninput = () => {
    if (!taken) return;
    taken = { ...taken, altText: { text: text.value, of: taken.altText?.of ?? own() } };
    on.edit(taken.altText);
    describe();
  };
  part(element, "use-new").onclick = () => on.edit(null);
  part(element, "copy-text").onclick = () => copy(text.value, "Alt text copied.");
  part(element, "copy-html").onclick = () => copy(htmlSnippet(taken?.photo.name ?? "", text.value), "HTML copied.");
  part(element, "copy-link").onclick = () => copy(on.link(), "Link copied.");
  part(element, "copy-image").onclick = async () => {
    done.textContent = await copiedPicture(on.sheet(), "Image copied.");
  };
  part(element, "download").onclick = () => {
    const link = { href: on.sheet().toDataURL(), download: "where-it-looked.png" };
    Object.assign(document.createElement("a"), link).click();
  };
  host.append(element);

  return {
    show(now) {
      taken = now;
      const shown = now.altText?.text ?? own();
      if (text.value !== shown) text.value = shown; // an equal one would move the cursor
      done.textContent = "";
      const isPrivate = now.photo.example === null;
      part(element, "copy-link").hidden = isPrivate;
      part(element, "link-note").textContent = isPrivate ? "Your photo stays private, so it has no link." : "";
      describe();
    },
  };
}
