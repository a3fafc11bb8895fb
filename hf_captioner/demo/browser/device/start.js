// The page where the model runs in the visitor's own browser.

import { start } from "../page.js";
import { part } from "../parts.js";
import { askDevice } from "./ask.js";

const MEGABYTE = 1e6;
const READY = "The model is ready.";
const root = /** @type {HTMLElement} */ (document.querySelector("main"));
const { examples } = JSON.parse(part(root, "setup").textContent ?? "");
const dark = matchMedia("(prefers-color-scheme: dark)");
const bar = part(root, "loading-bar");
const amount = part(root, "loading-amount");
const again = part(root, "loading-again");

/** @param {string} sentence @param {"loading" | "ready" | "error"} state */
function say(sentence, state) {
  const said = part(root, "loading-said");
  if (said.textContent !== sentence) said.textContent = sentence; // which a screen reader then reads
  part(root, "loading").classList.toggle("error", state === "error");
  bar.hidden = amount.hidden = state !== "loading";
}

const ask = askDevice(await answers(), {
  progress(loaded, total) {
    const [now, all] = [loaded, total].map((bytes) => Math.round(bytes / MEGABYTE));
    Object.assign(bar, { value: loaded, max: total });
    say(`Loading the model, ${all} MB, once. The examples are ready.`, "loading");
    amount.textContent = `${now} MB`;
  },
  async loaded(kept) {
    say(READY, "ready");
    if (kept && (await keepPage())) say(`${READY} From now on the page works without a network, too.`, "ready");
  },
  lost() {
    say("The network was lost. What has arrived is kept, and the rest is loaded once the network is back.", "error");
    again.hidden = false;
  },
  failed: (sentence) => say(sentence, "error"),
});

/** The examples' captions. @returns {Promise<Map<string, any>>} */
async function answers() {
  const answer = async (/** @type {{ key: string }} */ { key }) =>
    /** @type {[string, any]} */ ([key, await (await fetch(new URL(`page/example/${key}.json`, document.baseURI))).json()]);
  try {
    return new Map(await Promise.all(examples.map(answer)));
  } catch (error) {
    say("The network was lost before the page was there. Reload it.", "error");
    throw error;
  }
}

function load() {
  again.hidden = true;
  ask.load();
}

function colour() {
  document.body.classList.toggle("dark", dark.matches);
}

colour();
dark.addEventListener("change", colour);
again.onclick = load;
addEventListener("online", () => !again.hidden && load());
start(root, ask);
load();

/** Whether the next visit finds the page's own files in this browser. */
async function keepPage() {
  if (!navigator.serviceWorker) return false; // in a private window, or where the page is not secure
  try {
    const kept = await navigator.serviceWorker.register(new URL("service_worker.js", document.baseURI));
    const worker = kept.installing ?? kept.waiting;
    if (!worker) return kept.active !== null;
    return await new Promise((done) => {
      worker.addEventListener("statechange", () => ["activated", "redundant"].includes(worker.state) && done(worker.state === "activated"));
    });
  } catch (error) {
    console.warn("The page is not kept for the next visit.", error);
    return false;
  }
}
