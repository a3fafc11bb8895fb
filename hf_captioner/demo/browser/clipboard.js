// The browser's clipboard; each function says what came of it.

const REFUSED = "The browser did not allow it. Select it and copy it yourself.";

/** @param {(clipboard: Clipboard) => Promise<void>} write @param {string} done @returns {Promise<string>} */
async function written(write, done) {
  if (!navigator.clipboard) return REFUSED; // a page without https has none
  try {
    await write(navigator.clipboard);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return REFUSED;
  }
  return done;
}

/** @param {string} text @param {string} done */
export const copied = (text, done) => written((clipboard) => clipboard.writeText(text), done);

/** @param {HTMLCanvasElement} picture @param {string} done */
export function copiedPicture(picture, done) {
  const png = new Promise((made, failed) =>
    picture.toBlob((blob) => (blob ? made(blob) : failed(new Error("The picture is empty.")))),
  );
  // The promise goes into the item, for Safari forgets the visitor's click while one waits for it.
  return written((clipboard) => clipboard.write([new ClipboardItem({ "image/png": png })]), done);
}
