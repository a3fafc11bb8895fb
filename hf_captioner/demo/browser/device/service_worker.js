// Keeps the page's files in the browser, so that the next visit needs no network. The model's files are kept by
// loading.js, in the same cache.

const BUILD = "{{build}}"; // of the page; another one has a cache of its own
const BASE = new URL("./", location.href);
const NAME = `captioner ${BASE.pathname}`;
const LOADED_LATER = /\.(onnx|gzip|safetensors)$/;
const NOT_LOADED = /(\.md|ThirdPartyNotices\.txt)$/; // for who looks into the folder
const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
}; // without these a browser gives WebAssembly no threads

const worker = /** @type {any} */ (self);

async function install() {
  const { files } = await (await fetch(new URL("files.json", BASE), { cache: "no-cache" })).json();
  const shell = Object.keys(files).filter((name) => !LOADED_LATER.test(name) && !NOT_LOADED.test(name));
  const cache = await caches.open(`${NAME} ${BUILD}`);
  await cache.addAll(["files.json", ...shell].map((name) => new Request(new URL(name, BASE), { cache: "no-cache" })));
  await worker.skipWaiting();
}

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith(`${NAME} `) && name !== `${NAME} ${BUILD}`);
  await Promise.all(old.map((name) => caches.delete(name)));
  await worker.clients.claim();
}

/** @param {Request} request @returns {Promise<Response>} */
async function answer(request) {
  const address = new URL(request.url);
  address.search = "";
  if (address.pathname.endsWith("/")) address.pathname += "index.html";
  const cache = await caches.open(`${NAME} ${BUILD}`);
  const kept = await cache.match(address);
  if (!kept) return fetch(request);
  const headers = new Headers(kept.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(kept.body, { headers });
}

worker.addEventListener("install", (/** @type {any} */ event) => event.waitUntil(install()));
worker.addEventListener("activate", (/** @type {any} */ event) => event.waitUntil(activate()));
worker.addEventListener("fetch", (/** @type {any} */ event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(BASE.href)) event.respondWith(answer(request));
});
