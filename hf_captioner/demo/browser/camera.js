// The camera: the stage follows it, caption by caption, until a frame is kept.

/** @import { Ask, Setup } from "./types.js" */
import { AskError } from "./errors.js";
import { openCamera } from "./lens.js";
import { part, partOf } from "./parts.js";
import { createStage } from "./stage.js";

const FRAME_SIDE = 640; // pixels, the longest side; the model reads no more
const RATED = 10; // captions over which their rate is measured
const UNREAD = { input: "", colour: [127, 127, 127], name: "camera.jpg", example: null }; // but for its picture

/**
 * @param {HTMLElement} root @param {Ask} ask @param {Setup} setup
 * @returns {{ close: () => void }}
 */
export function createCamera(root, ask, setup) {
  const stage = createStage(part(root, "camera-stage"), ask, setup, { changed: () => {}, link: () => "" });
  const [start, freeze, end] = ["camera-start", "camera-freeze", "camera-stop"].map((name) => part(root, name));
  const video = partOf(root, "camera-video", HTMLVideoElement);
  /** @type {ReturnType<typeof openCamera> | null} */
  let lens = null;
  let following = new AbortController();
  /** @type {Blob | null} */
  let newest = null;

  /** @param {"off" | "on" | "frozen"} now */
  function controls(now) {
    start.hidden = now !== "off";
    freeze.hidden = end.hidden = now === "off";
    freeze.textContent = now === "frozen" ? "Go on" : "Freeze";
    part(root, "camera-rate").textContent = now === "frozen" ? "Frozen: this frame stays." : "";
  }

  /** @param {string} sentence */
  function say(sentence) {
    part(root, "camera-error").textContent = sentence;
    part(root, "camera-error").hidden = !sentence;
  }

  /** @param {AbortSignal} signal */
  async function follow(signal) {
    /** @type {number[]} */
    let times = [];
    while (!signal.aborted && lens) {
      const frame = await lens.frame(FRAME_SIDE);
      const caption = await ask.frame(frame, signal);
      const image = await dataUrl(frame);
      if (signal.aborted) return;
      newest = frame;
      video.hidden = true;
      stage.follow({ photo: { ...UNREAD, image }, captions: [caption] });
      part(root, "camera-stage").hidden = false;
      times = [...times.slice(1 - RATED), performance.now()];
      const rate = times.length > 1 ? (1000 * (times.length - 1)) / (times[times.length - 1] - times[0]) : 0;
      part(root, "camera-rate").textContent = `${rate.toFixed(1)} captions a second`;
    }
  }

  /** The frame becomes a photo like any other: to be steered and covered. @param {AbortSignal} signal */
  async function keepFrame(signal) {
    const frame = newest ?? (await lens?.frame(FRAME_SIDE));
    if (!frame) return;
    const answer = await ask.photo(frame, UNREAD.name, signal);
    if (signal.aborted) return;
    stage.show(answer, { play: false });
    video.hidden = true;
    part(root, "camera-stage").hidden = false;
  }

  /** Do this and no longer what was done before; what goes wrong is said in place.
   * @param {(signal: AbortSignal) => Promise<void>} work */
  async function now(work) {
    following.abort();
    following = new AbortController();
    const { signal } = following;
    try {
      await work(signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof AskError)) throw error;
      say(error.message);
      close();
    }
  }

  async function begin() {
    say("");
    start.toggleAttribute("disabled", true);
    const opened = (lens = openCamera(video));
    const problem = await opened.opened;
    start.toggleAttribute("disabled", false);
    if (lens !== opened) return; // the visitor has left the tab meanwhile
    say(problem);
    if (problem) return;
    newest = null;
    part(root, "camera-stage").hidden = true;
    video.hidden = false;
    controls("on");
    await now(follow);
  }

  function close() {
    following.abort();
    stage.stop();
    shut();
    // Of a frame that was only followed nothing can be asked.
    if (!stage.state()?.photo.input) part(root, "camera-stage").hidden = true;
  }

  function shut() {
    lens?.close();
    lens = null;
    video.hidden = true;
    controls("off");
  }

  start.onclick = () => void begin();
  end.onclick = () => {
    const isKept = freeze.textContent !== "Freeze";
    shut();
    if (!isKept) void now(keepFrame);
  };
  freeze.onclick = () => {
    const freezing = freeze.textContent === "Freeze";
    controls(freezing ? "frozen" : "on");
    void now(freezing ? keepFrame : follow);
  };
  return { close };
}

/** @param {Blob} blob @returns {Promise<string>} */
function dataUrl(blob) {
  return new Promise((done) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.readAsDataURL(blob);
  });
}
