// The model's files: from the browser's cache, or from the host, going on after a lost network where it broke off.

/**
 * @typedef {{ build: string, files: Record<string, { size: number, sha256: string }> }} FileList files.json
 * @typedef {{ loaded: number, total: number }} Progress bytes
 */

export class NetworkLost extends Error {}
export class Replaced extends Error {}

/** @param {URL} base where the page is @returns {Promise<FileList>} */
export async function listOf(base) {
  return JSON.parse(new TextDecoder().decode(await fetched(new URL("files.json", base), [], () => {})));
}

/** @param {URL} base @param {FileList} list */
export function createLoader(base, { build, files }) {
  /** @type {Map<string, Uint8Array[]>} */
  const broken = new Map(); // what had arrived of a file before the network was lost
  let kept = "caches" in self; // browsers have none where the page is not secure

  /**
   * These files, in order. Raises NetworkLost, after which it goes on when asked again, and Replaced.
   * @param {string[]} names @param {(progress: Progress) => void} progress @returns {Promise<ArrayBuffer[]>}
   */
  async function load(names, progress) {
    const cache = kept ? await caches.open(`captioner ${base.pathname} ${build}`) : null;
    const total = names.reduce((sum, name) => sum + files[name].size, 0);
    let before = 0;
    const found = [];
    for (const name of names) {
      const tell = (/** @type {number} */ bytes) => progress({ loaded: before + bytes, total });
      const address = new URL(name, base);
      const own = await cache?.match(address);
      found.push(own ? await own.arrayBuffer() : await download(name, address, tell, cache));
      before += files[name].size;
      tell(0);
    }
    return found;
  }

  /** @param {string} name @param {URL} address @param {(bytes: number) => void} tell @param {Cache | null} cache */
  async function download(name, address, tell, cache) {
    const chunks = broken.get(name) ?? [];
    broken.set(name, chunks);
    const file = await fetched(address, chunks, tell);
    broken.delete(name);
    if (!(await isWhole(file, files[name]))) throw new Replaced();
    try {
      await cache?.put(address, new Response(file));
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      kept = false; // the browser has no room for it; the next visit loads it again
    }
    return file;
  }

  return { load, /** Whether the next visit finds all of it. */ keeps: () => kept };
}

/** @param {URL} address @param {Uint8Array[]} chunks what is there already, and grows @param {(bytes: number) => void} tell
 * @returns {Promise<ArrayBuffer>} */
async function fetched(address, chunks, tell) {
  const sizeOf = () => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  try {
    const headers = chunks.length ? { range: `bytes=${sizeOf()}-` } : undefined;
    const answer = await fetch(address, { headers, cache: "no-cache" }); // never a file of an earlier build
    if (!answer.ok || !answer.body) throw new NetworkLost();
    if (answer.status !== 206) chunks.length = 0; // this host sends whole files only
    for (let reader = answer.body.getReader(), part = await reader.read(); !part.done; part = await reader.read()) {
      chunks.push(part.value);
      tell(sizeOf());
    }
  } catch (error) {
    if (error instanceof TypeError) throw new NetworkLost(); // what fetch and its stream raise
    throw error;
  }
  return new Blob(/** @type {BlobPart[]} */ (chunks)).arrayBuffer();
}

/** @param {ArrayBuffer} file @param {{ size: number, sha256: string }} expected */
async function isWhole(file, { size, sha256 }) {
  if (file.byteLength !== size || !self.crypto.subtle) return file.byteLength === size;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

/** @param {ArrayBuffer} file gzip @returns {Promise<ArrayBuffer>} */
export const unpacked = (file) => new Response(new Blob([file]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
