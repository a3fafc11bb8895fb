// How far a caption can be trusted; docs/checkpoint.md of the package has the formula.

/**
 * @typedef {object} Fitted `confidence` of config.json
 * @property {number} intercept
 * @property {number} slope
 * @property {number} ood_threshold
 * @property {number} ood_temperature
 */

const sigmoid = (/** @type {number} */ x) => 0.5 * (1 + Math.tanh(0.5 * x));

/**
 * The tensors of a safetensors file: eight bytes with the length of a JSON header, the header, the numbers.
 * @param {ArrayBuffer} file @returns {Record<string, Float32Array>}
 */
export function readTensors(file) {
  const length = Number(new DataView(file).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length)));
  const read = (/** @type {[string, { data_offsets: [number, number] }]} */ [name, { data_offsets: [begin, end] }]) => [
    name,
    new Float32Array(file.slice(8 + length + begin, 8 + length + end)),
  ];
  return Object.fromEntries(Object.entries(header).filter(([name]) => name !== "__metadata__").map(read));
}

/** @param {Fitted} fitted @param {Record<string, Float32Array>} tensors center (d), directions (k, d) */
export function createConfidence(fitted, { center, directions }) {
  const size = center.length;

  /** Of the mean of an image's projected feature map to those of the training images. @param {Float32Array} values (N, d) */
  function distance(values) {
    const cells = values.length / size;
    const centred = Float64Array.from(center, (value) => -value);
    values.forEach((value, i) => (centred[i % size] += value / cells));
    const left = centred.slice();
    for (let row = 0; row < directions.length; row += size) {
      let along = 0;
      for (let i = 0; i < size; i += 1) along += centred[i] * directions[row + i];
      for (let i = 0; i < size; i += 1) left[i] -= along * directions[row + i];
    }
    return Math.hypot(...left);
  }

  /** @param {number} far an image's distance @param {number[]} logProbs of a caption's words */
  function confidence(far, logProbs) {
    if (!logProbs.length) return 0;
    const mean = logProbs.reduce((a, b) => a + b, 0) / logProbs.length;
    const likely = fitted.intercept + fitted.slope * Math.exp(2 * mean);
    return sigmoid(likely) * sigmoid((fitted.ood_threshold - far) / fitted.ood_temperature);
  }

  return { distance, confidence };
}
