// What a visitor asks of the next caption, as settings of the search; the package's recaption.py does the same.

/** @import { CaptionRequest } from "../types.js" */
/** @import { GenerationConfig } from "./generation.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
import { AskError } from "../errors.js";

const SEVERAL = 3;
const EXTRA_WORDS = 2; // a longer caption has at least this many words more than the first one

/** Raises AskError where no caption can begin like this. @param {string} prefix @param {Tokenizer} tokenizer
 * @param {GenerationConfig} config */
export function checkPrefix(prefix, tokenizer, config) {
  const unknown = prefix.split(/\s+/).filter((word) => word && !tokenizer.knows(word));
  if (unknown.length) {
    throw new AskError(`The model doesn't know ${unknown.map((word) => `“${word}”`).join(", ")}. Try a more common word.`);
  }
  const words = tokenizer.encode(prefix).length;
  if (words > config.max_length) throw new AskError(`The caption cannot start with ${words} words. Use at most ${config.max_length}.`);
}

/** @param {GenerationConfig} own the captioner's settings @param {CaptionRequest} request @param {Tokenizer} tokenizer
 * @param {number} words of the first caption @returns {GenerationConfig} */
export function generationConfig(own, request, tokenizer, words) {
  const afterPrefix = tokenizer.encode(request.prefix).length + 1;
  const config = { ...own };
  if (request.prefix.trim()) config.prefix = request.prefix;
  if (request.bad_words.trim()) config.bad_words = tokenizer.split(request.bad_words.replaceAll(",", " "));
  if (request.length === "Shorter") {
    Object.assign(config, { min_length: 1, max_length: Math.max(words - 1, afterPrefix), num_beams: 20 });
  }
  if (request.length === "Longer") {
    Object.assign(config, { min_length: words + EXTRA_WORDS, max_length: Math.max(2 * words + EXTRA_WORDS, afterPrefix) });
  }
  if (request.style === "More varied") Object.assign(config, { do_sample: true, temperature: 0.8, top_p: 0.9, seed: request.seed });
  if (request.several && request.style === "Most likely") {
    const diverse = { num_beams: 2 * SEVERAL, num_beam_groups: SEVERAL, diversity_penalty: 3.0 };
    Object.assign(config, { num_return_sequences: SEVERAL, ...diverse });
  } else if (request.several) {
    config.num_return_sequences = 4 * SEVERAL; // of samples many are near-twins
  }
  return config;
}

/**
 * SEVERAL of the captions: the first, then again and again the one least like those that are taken.
 * @template {{ words: { text: string }[] }} T @param {T[]} captions @returns {T[]}
 */
export function mostDifferent([first, ...rest]) {
  const taken = [first];
  const far = (/** @type {T} */ caption) => Math.min(...taken.map((other) => distance(textsOf(caption), textsOf(other))));
  while (rest.length && taken.length < SEVERAL) {
    const farthest = rest.reduce((a, b) => (far(b) > far(a) ? b : a));
    rest.splice(rest.indexOf(farthest), 1);
    taken.push(farthest);
  }
  return taken;
}

const textsOf = (/** @type {{ words: { text: string }[] }} */ { words }) => words.map(({ text }) => text);

/** Between two captions' words: 0 for the same ones, 1 where none is shared. @param {string[]} a @param {string[]} b */
const distance = (a, b) => (a.length + b.length ? 1 - (2 * matching(a, b)) / (a.length + b.length) : 0);

/** How many words match, in the longest stretch and on both sides of it (Ratcliff and Metzener 1988).
 * @param {string[]} a @param {string[]} b @returns {number} */
function matching(a, b) {
  let [length, atA, atB] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    for (let j = 0; j < b.length; j += 1) {
      let same = 0;
      while (i + same < a.length && a[i + same] === b[j + same]) same += 1;
      if (same > length) [length, atA, atB] = [same, i, j];
    }
  }
  if (!length) return 0;
  return length + matching(a.slice(0, atA), b.slice(0, atB)) + matching(a.slice(atA + length), b.slice(atB + length));
}
