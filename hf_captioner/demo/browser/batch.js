// Many photos: cards that fill as captions arrive, to be corrected and downloaded.

/** @import { Ask, Setup } from "./types.js" */
import { createCard } from "./batch_card.js";
import { download } from "./downloads.js";
import { AskError } from "./errors.js";
import { part, partOf } from "./parts.js";

/** @import { Card } from "./batch_card.js" */

const AT_ONCE = 2;

/**
 * @param {HTMLElement} root @param {Ask} ask @param {Setup} setup
 * @param {{ choose: () => void, look: (file: File, altText?: string) => void }} on more photos are wanted; one is to be looked at
 * @returns {{ add: (files: File[]) => void, filled: () => boolean }}
 */
export function createBatch(root, ask, setup, on) {
  /** @type {Card[]} */
  let cards = [];
  let stopping = new AbortController();
  let asking = 0;
  const filter = partOf(root, "batch-filter", HTMLInputElement);
  const waiting = () => cards.filter((card) => card.state() === "waiting");

  async function work() {
    const { signal } = stopping;
    for (let card = waiting()[0]; card && !signal.aborted; card = waiting()[0]) {
      card.begin();
      render();
      try {
        card.show(await ask.row(card.file, signal));
      } catch (error) {
        if (signal.aborted) card.wait();
        else if (error instanceof AskError) card.fail(error.message);
        else throw error;
      }
      render();
    }
    asking -= 1;
    if (stopping.signal.aborted) render();
    else start(); // the visitor may have gone on before what was stopped had ended
  }

  function start() {
    if (stopping.signal.aborted) stopping = new AbortController();
    for (; asking < Math.min(AT_ONCE, waiting().length); asking += 1) void work();
    render();
  }

  /** @param {File[]} files */
  function add(files) {
    const room = setup.max_files - cards.length;
    const most = `At most ${setup.max_files} photos at a time; ${files.length - room} more were not taken.`;
    say(files.length > room ? most : "");
    const added = files.slice(0, room).map((file) => createCard(file, setup, { changed: render, look: on.look }));
    cards.push(...added);
    part(root, "batch-cards").append(...added.map((card) => card.element));
    start();
  }

  /** @param {string} sentence */
  function say(sentence) {
    part(root, "batch-error").textContent = sentence;
    part(root, "batch-error").hidden = !sentence;
  }

  function render() {
    const done = cards.filter((card) => card.state() === "done" || card.state() === "failed");
    const failed = cards.filter((card) => card.state() === "failed").length;
    const running = asking > 0 && !stopping.signal.aborted;
    part(root, "batch-work").hidden = !cards.length;
    part(root, "batch-add").classList.toggle("small", cards.length > 0);
    part(root, "batch-stop").hidden = !running;
    part(root, "batch-go").hidden = running || !waiting().length;
    part(root, "batch-again").hidden = running || !failed;
    part(root, "batch-downloads").hidden = !done.length;
    const state = running || done.length === cards.length ? "" : "Stopped: ";
    const without = failed ? `, ${failed} without a caption` : "";
    part(root, "batch-progress").textContent = `${state}${done.length} of ${cards.length}${without}`;
    const bar = partOf(root, "batch-bar", HTMLProgressElement);
    [bar.max, bar.value] = [cards.length || 1, done.length];
    const doubted = cards.filter((card) => card.needsChecking());
    const label = /** @type {HTMLElement} */ (filter.nextElementSibling);
    label.textContent = `Needs checking (${doubted.length})`;
    for (const card of cards) {
      const isHidden = filter.checked && !card.needsChecking();
      card.element.hidden = isHidden && !card.element.contains(document.activeElement);
    }
  }

  part(root, "batch-limit").textContent = `or drop them here: up to ${setup.max_files} at a time`;
  part(root, "batch-add").onclick = on.choose;
  part(root, "batch-go").onclick = start;
  part(root, "batch-again").onclick = () => {
    for (const card of cards) if (card.state() === "failed") card.wait();
    start();
  };
  part(root, "batch-stop").onclick = () => {
    stopping.abort();
    render();
  };
  part(root, "batch-clear").onclick = () => {
    stopping.abort();
    cards = [];
    part(root, "batch-cards").replaceChildren();
    say("");
    render();
    part(root, "batch-add").focus();
  };
  filter.onchange = render;
  for (const button of root.querySelectorAll("[data-download]")) {
    const { download: name } = /** @type {HTMLElement} */ (button).dataset;
    /** @type {HTMLElement} */ (button).onclick = () => {
      const lines = cards.filter((card) => card.state() === "done" || card.state() === "failed");
      download(/** @type {string} */ (name), lines.map((card) => card.line()));
    };
  }
  return { add, filled: () => cards.length > 0 };
}
