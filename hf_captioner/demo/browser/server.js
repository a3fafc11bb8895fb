// The page's own server, asked over HTTP.

/** @import { Ask } from "./types.js" */
import { AskError } from "./errors.js";

const NOT_REACHED = "The page's server was not reached. Check the connection, then try again.";

/** @param {string} path @param {RequestInit} [how] @returns {Promise<any>} the answer's JSON */
async function asked(path, how) {
  let answer;
  try {
    answer = await fetch(new URL(`page/${path}`, document.baseURI), how);
  } catch (error) {
    if (how?.signal?.aborted) throw error;
    throw new AskError(NOT_REACHED);
  }
  const isJson = answer.headers.get("content-type")?.startsWith("application/json");
  const content = isJson ? await answer.json() : {};
  if (!answer.ok) throw new AskError(content.error ?? `The page's server answered with an error (${answer.status}).`);
  return content;
}

/** @param {string} path @param {Blob} body @param {AbortSignal} [signal] */
const sent = (path, body, signal) => asked(path, { method: "POST", body, signal });

/** @returns {Ask} */
export function askServer() {
  return {
    async photo(file, name, signal) {
      const { photo, captions } = await sent("photo", file, signal);
      return { photo: { ...photo, name, example: null }, captions };
    },
    async example(key, signal) {
      const { photo, captions } = await asked(`example/${encodeURIComponent(key)}`, { signal });
      return { photo: { ...photo, example: key }, captions };
    },
    picture: (key) => new URL(`page/example/${encodeURIComponent(key)}.jpg`, document.baseURI).href,
    async again({ photo, request, covered, words }, signal) {
      const body = JSON.stringify({ input: photo.input, covered, words, ...request });
      const headers = { "content-type": "application/json" };
      return (await asked("again", { method: "POST", body, headers, signal })).captions;
    },
    row: (file, signal) => sent("row", file, signal),
    frame: async (frame, signal) => (await sent("frame", frame, signal)).caption,
    compare: async (image, model, signal) =>
      (await sent(`compare?model=${encodeURIComponent(model)}`, image, signal)).caption,
  };
}
