// The captioner's ONNX graphs, computed by ONNX Runtime Web.

/** @import { Decoder, Step } from "./generation.js" */

/**
 * @typedef {{ data: Float32Array, dims: number[] }} Tensor
 * @typedef {object} Session
 * @property {string[]} inputNames
 * @property {(inputs: Record<string, Tensor>) => Promise<Record<string, Tensor>>} run
 *
 * @typedef {object} Runtime ONNX Runtime Web, as far as it is used here
 * @property {{ wasm: { numThreads: number, wasmPaths: { mjs: string }, wasmBinary: ArrayBuffer } }} env
 * @property {{ create: (graph: Uint8Array, options: object) => Promise<Session> }} InferenceSession
 * @property {new (type: string, data: Float32Array | BigInt64Array, dims: number[]) => Tensor} Tensor
 *
 * @typedef {{ encoder: ArrayBuffer, start: ArrayBuffer, step: ArrayBuffer }} GraphFiles
 * @typedef {{ keys: Tensor, values: Tensor, carried: Record<string, Tensor> }} Start what is computed once for an image
 * @typedef {Awaited<ReturnType<typeof openGraphs>>} Graphs
 */

const UNPACKED = { extra: { session: { disable_quant_qdq: "1" } } }; // weights in eight bits become float32 once, when a graph is opened

/** @param {Runtime} runtime @param {GraphFiles} files @param {boolean} onGpu where the encoder is computed */
export async function openGraphs(runtime, files, onGpu) {
  const open = (/** @type {ArrayBuffer} */ file, /** @type {"wasm" | "webgpu"} */ provider) =>
    runtime.InferenceSession.create(new Uint8Array(file), { executionProviders: [provider], ...UNPACKED });
  const encoder = await open(files.encoder, onGpu ? "webgpu" : "wasm");
  const starter = await open(files.start, "wasm");
  const stepper = await open(files.step, "wasm");
  const recurrent = stepper.inputNames.filter((name) => !["input_ids", "keys", "values", "context"].includes(name));
  const { Tensor } = runtime;

  /** @param {Float32Array} pixels (3, side, side) @param {number} side @returns {Promise<Tensor>} the feature map (1, N, C) */
  async function encode(pixels, side) {
    const { feature_map } = await encoder.run({ pixel_values: new Tensor("float32", pixels, [1, 3, side, side]) });
    return feature_map;
  }

  /** @param {Tensor} featureMap @returns {Promise<Start>} */
  async function start(featureMap) {
    const { keys, values, ...state } = await starter.run({ feature_map: new Tensor("float32", featureMap.data, featureMap.dims) });
    const size = values.dims[2];
    const own = (/** @type {Float32Array} */ data) => new Tensor("float32", data, [1, 1, size]);
    const carried = { context: own(new Float32Array(size)), ...Object.fromEntries(recurrent.map((name) => [name, own(state[name].data)])) };
    return { keys, values, carried };
  }

  /** A search's decoder: it keeps the state of each hypothesis. @param {Start} start @returns {Decoder} */
  function decoder({ keys, values, carried }) {
    return {
      async step(hypotheses, parents) {
        const count = hypotheses.length;
        const ids = BigInt64Array.from(hypotheses.flat(), BigInt);
        const states = Object.entries(carried).map(([name, tensor]) => [name, selected(tensor, parents)]);
        const { log_probs, attention, ...next } = await stepper.run({
          input_ids: new Tensor("int64", ids, [1, count, hypotheses[0].length]),
          keys,
          values,
          ...Object.fromEntries(states),
        });
        carried = Object.fromEntries(Object.keys(carried).map((name) => [name, next[`next_${name}`]]));
        return { logProbs: rowsOf(log_probs), attention: rowsOf(attention) };
      },
    };
  }

  /** @param {Tensor} tensor (1, K, d) @param {number[]} parents */
  function selected({ data, dims }, parents) {
    const size = dims[2];
    const chosen = new Float32Array(parents.length * size);
    parents.forEach((parent, i) => chosen.set(data.subarray(parent * size, (parent + 1) * size), i * size));
    return new Tensor("float32", chosen, [1, parents.length, size]);
  }

  return { encode, start, decoder };
}

/** @param {Tensor} tensor (1, K, n) @returns {Float32Array[]} */
function rowsOf({ data, dims: [, count, size] }) {
  return Array.from({ length: count }, (_, i) => data.slice(i * size, (i + 1) * size));
}
