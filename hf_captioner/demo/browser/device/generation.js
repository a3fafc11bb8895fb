// Greedy, beam and diverse beam search and sampling for one image, as the package's generation.py does them for many:
// G groups of k hypotheses. A group is done when k of its hypotheses are finished.

/**
 * @typedef {object} GenerationConfig generation_config.json
 * @property {number} num_beams
 * @property {number} num_return_sequences
 * @property {number} length_penalty
 * @property {number} min_length
 * @property {number} max_length
 * @property {number} no_repeat_ngram_size
 * @property {string} prefix
 * @property {string[]} bad_words
 * @property {number} num_beam_groups
 * @property {number} diversity_penalty
 * @property {boolean} do_sample
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} seed
 * @property {number} num_alternatives
 *
 * @typedef {object} Written a word of a hypothesis, and those before it
 * @property {number} id
 * @property {number} logProb
 * @property {Float32Array} attention
 * @property {[number, number][]} alternatives ids with their probabilities, best first
 * @property {Written | null} before
 *
 * @typedef {{ ids: number[], last: Written | null, total: number }} Running a hypothesis that goes on
 * @typedef {{ ids: number[], last: Written | null, score: number, finished: boolean }} Ended
 * @typedef {{ ids: number[], words: Written[], score: number, finished: boolean }} Hypothesis
 *
 * @typedef {object} Step what the decoder says after each hypothesis
 * @property {Float32Array[]} logProbs
 * @property {Float32Array[]} attention
 *
 * @typedef {object} Decoder
 * @property {(hypotheses: number[][], parents: number[]) => Promise<Step>} step reads all words so far, the start token first; hypothesis i continues the one that was parents[i] in the step before
 *
 * @typedef {object} Limits
 * @property {number} start @property {number} end ids of the tokens
 * @property {number[]} banned ids that never occur
 * @property {number[]} prefix ids that every caption begins with
 */

/** The best captions of an image, best first. @param {Decoder} decoder @param {GenerationConfig} config
 * @param {Limits} limits @returns {Promise<Hypothesis[]>} */
export async function generate(decoder, config, { start, end, banned, prefix }) {
  const groups = config.do_sample ? config.num_return_sequences : config.num_beam_groups;
  const size = config.do_sample ? 1 : config.num_beams / config.num_beam_groups;
  const random = createRandom(config.seed);
  const never = new Set(banned);
  /** @type {Ended[][]} */
  const pools = Array.from({ length: groups }, () => []);
  // All hypotheses of a group begin equal, so only its first may be continued.
  let running = pools.map(() => Array.from({ length: size }, (_, i) => first(i ? -Infinity : 0)));
  const one = await decoder.step([[start]], [0]);
  let step = spread(one, groups * size);
  const isClosed = (/** @type {number} */ group) =>
    pools[group].length === size || running[group].every(({ total }) => total === -Infinity);

  let length = 0;
  for (; length < config.max_length; length += 1) {
    const allowed = step.logProbs.map((row, i) => allow(row, running[Math.floor(i / size)][i % size].ids));
    const taken = new Float64Array(allowed[0].length);
    /** @type {number[]} */
    const parents = [];
    running = running.map((hypotheses, group) => {
      const wasClosed = isClosed(group);
      const own = allowed.slice(group * size, (group + 1) * size);
      const picks = choose(own, hypotheses, taken);
      picks.slice(0, size).forEach(({ id }) => (taken[id] += config.diversity_penalty));
      for (const { id, row, total } of wasClosed ? [] : picks.slice(0, size)) {
        if (id === end) finish(group, { ...hypotheses[row], score: total / (length + 1) ** config.length_penalty, finished: true });
      }
      const going = [...picks.filter(({ id }) => id !== end), ...picks.filter(({ id }) => id === end)].slice(0, size);
      return going.map(({ id, row, total }) => {
        const at = group * size + row;
        parents.push(at);
        const last = written(id, at, hypotheses[row].last);
        return { ids: [...hypotheses[row].ids, id], last, total: id === end ? -Infinity : total };
      });
    });
    if (pools.every((_, group) => isClosed(group))) break;
    const onlyOne = length === 0; // before the first word there is a single hypothesis
    step = await decoder.step(running.flat().map(({ ids }) => [start, ...ids]), onlyOne ? parents.map(() => 0) : parents);
  }
  if (length === config.max_length) cut();
  return best();

  /** @param {number} total @returns {Running} */
  function first(total) {
    return { ids: [], last: null, total };
  }

  /** @param {number} id @param {number} at the hypothesis that it continues @param {Written | null} before @returns {Written} */
  function written(id, at, before) {
    const likeliest = largest(step.logProbs[at], config.num_alternatives, (i) => !never.has(i));
    const alternatives = likeliest.map((i) => /** @type {[number, number]} */ ([i, Math.exp(step.logProbs[at][i])]));
    return { id, logProb: step.logProbs[at][id], attention: step.attention[at], alternatives, before };
  }

  /** The log-probabilities of the words that may follow; -Infinity of the others.
   * @param {Float32Array} logProbs @param {number[]} ids so far */
  function allow(logProbs, ids) {
    if (ids.length < prefix.length) {
      const given = new Float32Array(logProbs.length).fill(-Infinity);
      given[prefix[ids.length]] = logProbs[prefix[ids.length]];
      return given;
    }
    const allowed = logProbs.slice();
    for (const id of never) allowed[id] = -Infinity;
    const n = config.no_repeat_ngram_size;
    if (n && ids.length >= n) {
      const begun = ids.slice(ids.length - n + 1);
      for (let i = 0; i + n <= ids.length; i += 1) {
        if (begun.every((id, j) => ids[i + j] === id)) allowed[ids[i + n - 1]] = -Infinity;
      }
    }
    if (ids.length < config.min_length) allowed[end] = -Infinity;
    if (allowed.every((value) => value === -Infinity)) allowed[end] = logProbs[end];
    return allowed;
  }

  /** A group's 2k best continuations, best first. @param {Float32Array[]} allowed @param {Running[]} hypotheses
   * @param {Float64Array} taken what a word loses because earlier groups have chosen it */
  function choose(allowed, hypotheses, taken) {
    const words = taken.length;
    const merits = new Float64Array(allowed.length * words);
    allowed.forEach((row, i) => {
      const merit = config.do_sample ? perturbed(row) : row.map((value, id) => hypotheses[i].total + value - taken[id]);
      merits.set(merit, i * words);
    });
    return largest(merits, 2 * size).map((at) => {
      const [row, id] = [Math.floor(at / words), at % words];
      return { id, row, total: hypotheses[row].total + allowed[row][id] };
    });
  }

  /** Log-probabilities after temperature, top-k and top-p, plus Gumbel noise: the largest is a sample.
   * @param {Float32Array} allowed */
  function perturbed(allowed) {
    let logits = Float64Array.from(allowed, (value) => value / config.temperature);
    if (config.top_k) {
      const least = logits[/** @type {number} */ (largest(logits, config.top_k).at(-1))];
      logits = logits.map((value) => (value < least ? -Infinity : value));
    }
    if (config.top_p < 1) {
      const order = largest(logits, logits.length);
      const shares = order.map((id) => Math.exp(logits[id] - logits[order[0]]));
      const sum = shares.reduce((a, b) => a + b, 0);
      let before = 0;
      order.forEach((id, i) => {
        if (before / sum >= config.top_p) logits[id] = -Infinity;
        before += shares[i];
      });
    }
    return logits.map((value) => value - Math.log(-Math.log(random())));
  }

  /** Of a group the k best stay; a finished one goes before one that was cut. @param {number} group @param {Ended} ended */
  function finish(group, ended) {
    if (ended.score === -Infinity) return;
    pools[group] = [...pools[group], { ids: ended.ids, last: ended.last, score: ended.score, finished: ended.finished }]
      .sort(byWorth)
      .slice(0, size);
  }

  /** What is left at max_length is finished where the end token is the most probable. */
  function cut() {
    const closed = pools.map((_, group) => isClosed(group));
    running.flat().forEach(({ ids, last, total }, i) => {
      const group = Math.floor(i / size);
      if (closed[group]) return;
      const allowed = allow(step.logProbs[i], ids);
      const finished = largest(allowed, 1)[0] === end;
      const score = finished ? (total + allowed[end]) / (length + 1) ** config.length_penalty : total / length ** config.length_penalty;
      finish(group, { ids, last, score, finished });
    });
  }

  /** The captions returned; equal ones only when sampling. */
  function best() {
    /** @type {Map<string, Ended>} */
    const kept = new Map();
    pools.flat().sort(byWorth).forEach((ended, i) => {
      const key = config.do_sample ? String(i) : ended.ids.join();
      if (kept.size < config.num_return_sequences && !kept.has(key)) kept.set(key, ended);
    });
    return [...kept.values()].map(({ ids, last, score, finished }) => {
      const words = [];
      for (let word = last; word; word = word.before) words.unshift(word);
      return { ids, words, score, finished };
    });
  }
}

/** @param {Ended} a @param {Ended} b */
const byWorth = (a, b) => Number(b.finished) - Number(a.finished) || b.score - a.score;

/** @param {Step} one of a single hypothesis @param {number} count @returns {Step} */
const spread = (one, count) => ({
  logProbs: Array(count).fill(one.logProbs[0]),
  attention: Array(count).fill(one.attention[0]),
});

/** Where the largest values are, the largest first. @param {Float32Array | Float64Array} values @param {number} count
 * @param {(at: number) => boolean} [counts] */
function largest(values, count, counts = () => true) {
  if (count > 100) {
    return [...values.keys()].filter(counts).sort((a, b) => values[b] - values[a]).slice(0, count);
  }
  /** @type {number[]} */
  const found = [];
  for (let at = 0; at < values.length; at += 1) {
    if ((found.length === count && values[at] <= values[found[count - 1]]) || !counts(at)) continue;
    let place = found.length;
    while (place && values[at] > values[found[place - 1]]) place -= 1;
    found.splice(place, 0, at);
    found.length = Math.min(found.length, count);
  }
  return found;
}

/** Numbers between 0 and 1, the same for the same seed: Mulberry32. @param {number} seed */
function createRandom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), seed | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
}
