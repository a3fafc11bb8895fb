// ONNX Runtime Web and the captioner's graphs in it: on the GPU where there is one, else by WebAssembly.

/** @import { Runtime } from "./graphs.js" */
import { openGraphs } from "./graphs.js";
import { unpacked } from "./loading.js";

const MOST_THREADS = 4; // more are no quicker for one photo
const GRAPHS = ["encoder_model", "decoder_start_model", "decoder_model"].map((name) => `model/onnx/${name}_quantized.onnx`);
const WAYS = {
  gpu: { script: "ort.webgpu.min.mjs", module: "ort-wasm-simd-threaded.asyncify" },
  processor: { script: "ort.wasm.min.mjs", module: "ort-wasm-simd-threaded" },
};

/** @typedef {keyof typeof WAYS} Way */

/** Where this browser computes the best. @returns {Promise<Way>} */
export async function bestWay() {
  /** @type {{ gpu?: { requestAdapter: () => Promise<object | null> } }} */
  const { gpu } = /** @type {any} */ (navigator);
  return (await gpu?.requestAdapter()) ? "gpu" : "processor";
}

/** What is loaded for it. @param {Way} way */
export const filesOf = (way) => [`runtime/${WAYS[way].module}.wasm.gzip`, ...GRAPHS];

/** @param {Way} way @param {URL} base where the page is @param {ArrayBuffer[]} files those of `filesOf` */
export async function openRuntime(way, base, [wasm, encoder, start, step]) {
  const { script, module } = WAYS[way];
  /** @type {Runtime} */
  const runtime = await import(new URL(`runtime/${script}`, base).href);
  const { wasm: settings } = runtime.env;
  settings.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
  settings.wasmPaths = { mjs: new URL(`runtime/${module}.mjs`, base).href };
  settings.wasmBinary = await unpacked(wasm);
  return openGraphs(runtime, { encoder, start, step }, way === "gpu");
}
