// The captions of a batch as files, made in the browser, so that no server keeps them.

/**
 * @typedef {object} Line
 * @property {string} file
 * @property {string} caption empty where there is none
 * @property {number | null} confidence null where the visitor wrote the caption, or the model has none
 * @property {string} problem
 */

const COLUMNS = /** @type {const} */ (["file", "caption", "confidence", "problem"]);

/** A cell that no spreadsheet runs as a formula: an apostrophe before it. @param {string} text */
function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** @param {Line[]} lines */
function csv(lines) {
  const rows = lines.map((line) => COLUMNS.map((column) => cell(String(line[column] ?? ""))).join(","));
  return [COLUMNS.join(","), ...rows, ""].join("\r\n");
}

/** `metadata.jsonl` of an image folder, which `hf-captioner train` reads. @param {Line[]} lines */
function metadata(lines) {
  const captioned = lines.filter(({ caption }) => caption);
  return captioned.map(({ file, caption }) => `${JSON.stringify({ file_name: file, text: caption })}\n`).join("");
}

/** @type {Record<string, (lines: Line[]) => string>} */
export const DOWNLOADS = {
  "captions.csv": csv,
  "captions.json": (lines) => JSON.stringify(lines, null, 1),
  "metadata.jsonl": metadata,
};

/** @param {string} name @param {Line[]} lines */
export function download(name, lines) {
  const url = URL.createObjectURL(new Blob([DOWNLOADS[name](lines)]));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url));
}
