// The model in a thread of its own, so that the page never waits for it. It answers what ask.js sends.

/** @import { Parts, Check } from "./captioner.js" */
/** @import { Way } from "./runtime.js" */
import { AskError } from "../errors.js";
import { createCaptioner } from "./captioner.js";
import { readTensors } from "./confidence.js";
import { NetworkLost, Replaced, createLoader, listOf } from "./loading.js";
import { bestWay, filesOf, openRuntime } from "./runtime.js";
import { createTokenizer } from "./tokenizer.js";

/**
 * @typedef {{ kind: "load" }} Load
 * @typedef {{ kind: "stop", id: number }} Stop
 * @typedef {{ kind: "ask", id: number, what: "photo" | "again" | "row" | "frame", given: any[] }} Asked
 * @typedef {{ kind: "progress", loaded: number, total: number }
 *   | { kind: "loaded", kept: boolean }
 *   | { kind: "lost" }
 *   | { kind: "failed", sentence: string }
 *   | { kind: "answer", id: number, answer: any }
 *   | { kind: "error", id: number, sentence: string | null }} Told sentence: null of what is a fault of the page
 */

const BASE = new URL("../../", import.meta.url);
const SETTINGS = ["config", "generation_config", "tokenizer"].map((name) => `model/${name}.json`);
const TENSORS = "model/confidence.safetensors";
const TOO_OLD = "This browser cannot run the model: its WebAssembly is missing or too old. Use a newer browser, or another one.";
const NO_MEMORY = "This device has too little memory for the model. Close other pages, or use another device.";
const FAULT = "The model could not be opened. Reload the page, or use another browser.";
const REPLACED = "The page was replaced by a newer one meanwhile. Reload it.";

class Stopped extends Error {}

/** @param {Told} message */
const tell = (message) => postMessage(message);
/** @type {ReturnType<typeof createLoader> | null} */
let loader = null;
/** @type {ReturnType<typeof createCaptioner> | null} */
let captioner = null;
let queue = Promise.resolve();
const stopped = new Set();

async function load() {
  try {
    if (!("WebAssembly" in self && "DecompressionStream" in self)) return tell({ kind: "failed", sentence: TOO_OLD });
    const list = await listOf(BASE);
    loader ??= createLoader(BASE, list);
    const own = [...SETTINGS, ...(TENSORS in list.files ? [TENSORS] : [])];
    captioner = await opened(await bestWay(), loader, own);
    tell({ kind: "loaded", kept: loader.keeps() });
  } catch (error) {
    if (error instanceof NetworkLost) return tell({ kind: "lost" });
    const sentence = sentenceOf(error);
    tell({ kind: "failed", sentence });
    if (sentence === FAULT) throw error;
  }
}

/** @param {unknown} error @returns {string} */
function sentenceOf(error) {
  if (error instanceof Replaced) return REPLACED;
  if (isOutOfMemory(error)) return NO_MEMORY;
  return error instanceof WebAssembly.CompileError || /CompileError/.test(String(error)) ? TOO_OLD : FAULT;
}

/** @param {Way} way @param {ReturnType<typeof createLoader>} from @param {string[]} own the model's files but for graphs */
async function opened(way, from, own) {
  const names = [...own, ...filesOf(way)];
  const files = await from.load(names, (progress) => tell({ kind: "progress", ...progress }));
  const json = (/** @type {number} */ i) => JSON.parse(new TextDecoder().decode(files[i]));
  try {
    const graphs = await openRuntime(way, BASE, files.slice(own.length));
    const tensors = own.includes(TENSORS) ? readTensors(files[SETTINGS.length]) : {};
    /** @type {Parts} */
    const parts = { config: json(0), generation: json(1), tokenizer: createTokenizer(json(2)), tensors, graphs };
    const found = createCaptioner(parts);
    await found.warmUp();
    return found;
  } catch (error) {
    if (way === "processor") throw error;
    console.warn("The GPU does not compute the model; WebAssembly does.", error);
    return opened("processor", from, own);
  }
}

/** Of what ONNX Runtime raises there is only the text. @param {unknown} error */
const isOutOfMemory = (error) => error instanceof RangeError || /out of memory|bad_alloc|allocat/i.test(String(error));

/** @param {Asked} message */
async function answer({ id, what, given }) {
  /** @type {Check} */
  const check = () => {
    if (stopped.has(id)) throw new Stopped();
  };
  try {
    if (!captioner) throw new Error("the model is asked before it is loaded");
    check();
    const question = /** @type {(...given: any[]) => Promise<any>} */ (captioner[what]);
    tell({ kind: "answer", id, answer: await question(...given, check) });
  } catch (error) {
    if (error instanceof Stopped) return;
    if (isOutOfMemory(error)) tell({ kind: "error", id, sentence: NO_MEMORY });
    else tell({ kind: "error", id, sentence: error instanceof AskError ? error.message : null });
    if (!(error instanceof AskError)) throw error;
  } finally {
    stopped.delete(id);
  }
}

addEventListener("message", (/** @type {MessageEvent<Load | Stop | Asked>} */ { data }) => {
  if (data.kind === "load") void load();
  if (data.kind === "stop") stopped.add(data.id);
  if (data.kind === "ask") queue = queue.then(() => answer(data)); // one after the other: they share the model
});
