// A camera of the visitor's.

const WANTED = { video: { width: { ideal: 1280 }, height: { ideal: 960 }, facingMode: "environment" } };
const NO_CAMERA = "No camera was found. Upload a photo instead.";
const REFUSED = "The camera is not allowed here. Allow it beside the page's address, then try again.";

/**
 * @param {HTMLVideoElement} video shows what the camera sees
 * @returns {{ opened: Promise<string>, frame: (longest?: number) => Promise<Blob>, close: () => void }} opened: what is wrong,
 *   an empty sentence where it is open. frame: a JPEG, its longest side at most so many pixels.
 */
export function openCamera(video) {
  /** @type {MediaStream | null} */
  let stream = null;
  let closed = false;

  async function open() {
    if (!navigator.mediaDevices) return NO_CAMERA; // a page without https has none
    try {
      stream = await navigator.mediaDevices.getUserMedia(WANTED);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      return error.name === "NotAllowedError" ? REFUSED : NO_CAMERA;
    }
    if (closed) return close(), "";
    video.srcObject = stream;
    await new Promise((ready) => (video.onloadeddata = ready));
    await video.play();
    return "";
  }

  function close() {
    closed = true;
    for (const track of stream?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  }

  return {
    opened: open(),
    close,
    frame(longest = 1280) {
      const scale = Math.min(1, longest / Math.max(video.videoWidth, video.videoHeight));
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(video.videoWidth * scale);
      canvas.height = Math.round(video.videoHeight * scale);
      canvas.getContext("2d")?.drawImage(video, 0, 0, canvas.width, canvas.height);
      return new Promise((done, failed) =>
        canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("The frame is empty."))), "image/jpeg", 0.9),
      );
    },
  };
}
