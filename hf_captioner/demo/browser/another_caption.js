// What a visitor asks of the next caption.

/** @import { CaptionRequest } from "./types.js" */
import { copyOf, part, partOf } from "./parts.js";

/**
 * @param {HTMLElement} host
 * @param {{ ask: (request: CaptionRequest) => void, reset: () => void }} on
 * @returns {{ fill: (request: CaptionRequest) => void }}
 */
export function createAnotherCaption(host, on) {
  const element = copyOf("another-caption");
  const form = partOf(element, "form", HTMLFormElement);
  let seed = 0;

  /** @returns {CaptionRequest} */
  function request() {
    const given = new FormData(form);
    const text = (/** @type {string} */ name) => String(given.get(name) ?? "").trim();
    return {
      prefix: text("prefix"),
      bad_words: text("bad_words"),
      length: /** @type {CaptionRequest["length"]} */ (text("length")),
      style: /** @type {CaptionRequest["style"]} */ (text("style")),
      several: given.has("several"),
      seed,
    };
  }

  /** @param {CaptionRequest} now */
  function fill(now) {
    seed = now.seed;
    for (const name of /** @type {const} */ (["prefix", "bad_words", "length", "style"])) {
      const field = form.elements.namedItem(name);
      if (field instanceof HTMLInputElement || field instanceof RadioNodeList) field.value = now[name];
    }
    const several = form.elements.namedItem("several");
    if (several instanceof HTMLInputElement) several.checked = now.several;
    offerAgain();
  }

  /** Only what is drawn at random comes out otherwise when it is asked again. */
  function offerAgain() {
    part(element, "again").hidden = request().style !== "More varied";
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    on.ask(request());
  };
  form.onchange = offerAgain;
  part(element, "again").onclick = () => {
    seed += 1;
    on.ask(request());
  };
  part(element, "reset").onclick = on.reset;
  host.append(element);
  return { fill };
}
