// The model in this browser, asked like a server.

/** @import { Ask } from "../types.js" */
/** @import { Asked, Load, Stop, Told } from "./worker.js" */
import { AskError } from "../errors.js";

const FAULT = "The page failed at this photo. Try another one.";

/**
 * @typedef {object} Loading what is told of it while the model is loaded
 * @property {(loaded: number, total: number) => void} progress bytes
 * @property {(kept: boolean) => void} loaded whether the browser has kept it for the next visit
 * @property {() => void} lost the network; `again` goes on
 * @property {(sentence: string) => void} failed for good
 */

/** @param {Map<string, any>} examples their answers, by key @param {Loading} loading @returns {Ask & { load: () => void }} */
export function askDevice(examples, loading) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  /** @type {Map<number, { done: (answer: any) => void, fail: (error: Error) => void }>} */
  const waiting = new Map();
  let count = 0;
  /** @type {(value?: unknown) => void} */
  let open = () => {};
  /** @type {(error: Error) => void} */
  let giveUp = () => {};
  const isLoaded = new Promise((done, fail) => ([open, giveUp] = [done, fail]));
  isLoaded.catch(() => {}); // whoever asks is told
  const send = (/** @type {Load | Stop | Asked} */ message) => worker.postMessage(message);

  worker.onmessage = (/** @type {MessageEvent<Told>} */ { data }) => {
    if (data.kind === "progress") loading.progress(data.loaded, data.total);
    if (data.kind === "lost") loading.lost();
    if (data.kind === "failed") {
      loading.failed(data.sentence);
      giveUp(new AskError(data.sentence));
    }
    if (data.kind === "loaded") {
      loading.loaded(data.kept);
      open();
    }
    if (data.kind === "answer") settle(data.id)?.done(data.answer);
    if (data.kind === "error") settle(data.id)?.fail(new AskError(data.sentence ?? FAULT));
  };

  /** @param {number} id */
  function settle(id) {
    const found = waiting.get(id);
    waiting.delete(id);
    return found;
  }

  /** @param {Asked["what"]} what @param {any[]} given @param {AbortSignal} [signal] @returns {Promise<any>} */
  async function asked(what, given, signal) {
    await isLoaded;
    signal?.throwIfAborted();
    const id = (count += 1);
    const answer = new Promise((done, fail) => waiting.set(id, { done, fail }));
    signal?.addEventListener("abort", () => {
      const asking = settle(id);
      if (asking) send({ kind: "stop", id });
      asking?.fail(signal.reason);
    });
    send({ kind: "ask", id, what, given });
    return answer;
  }

  return {
    load: () => send({ kind: "load" }),
    photo: (file, name, signal) => asked("photo", [file, name], signal),
    again: (question, signal) => asked("again", [question], signal),
    row: (file, signal) => asked("row", [file], signal),
    frame: (frame, signal) => asked("frame", [frame], signal),
    picture: (key) => examples.get(key).photo.image,
    async example(key) {
      const { photo, captions } = examples.get(key);
      return { photo: { ...photo, example: key }, captions };
    },
  };
}
