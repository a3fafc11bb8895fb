// Pixels to captions: what the page asks of the model.

/** @import { Answer, Caption, Question, Row } from "../types.js" */
/** @import { Fitted } from "./confidence.js" */
/** @import { GenerationConfig, Hypothesis } from "./generation.js" */
/** @import { Graphs, Start } from "./graphs.js" */
/** @import { ImageConfig } from "./pixels.js" */
/** @import { Tokenizer } from "./tokenizer.js" */
import { AskError } from "../errors.js";
import { createConfidence } from "./confidence.js";
import { generate } from "./generation.js";
import { colourOf, levelsOf, levelsOfPng, openPhoto, pngOf, shown, thumbnail } from "./photo.js";
import { occlude, pixelsOf } from "./pixels.js";
import { checkPrefix, generationConfig, mostDifferent } from "./recaption.js";

/**
 * @typedef {object} Parts of a captioner
 * @property {ImageConfig & { confidence: Fitted | null }} config config.json
 * @property {GenerationConfig} generation generation_config.json
 * @property {Tokenizer} tokenizer
 * @property {Record<string, Float32Array>} tensors of the confidence
 * @property {Graphs} graphs
 *
 * @typedef {() => void} Check raises where nobody waits any more
 * @typedef {{ start: Start, distance: number | null }} Read an image as the search needs it
 */

/** @param {Parts} parts */
export function createCaptioner({ config, generation, tokenizer, tensors, graphs }) {
  const side = config.image_size;
  const trust = config.confidence && createConfidence(config.confidence, tensors);
  /** @type {{ key: string, read: Read } | null} */
  let last = null; // of which a visitor asks again and again; key: what was read, and which cells were covered

  /** @param {Float32Array} pixels @returns {Promise<Read>} */
  async function read(pixels) {
    const start = await graphs.start(await graphs.encode(pixels, side));
    return { start, distance: trust && trust.distance(start.values.data) };
  }

  /** @param {Read} read @param {GenerationConfig} settings @param {Check} check @returns {Promise<(Caption & { finished: boolean })[]>} */
  async function search({ start, distance }, settings, check) {
    const decoder = graphs.decoder(start);
    const bad = settings.bad_words.flatMap(tokenizer.encode);
    const hypotheses = await generate(
      { step: (words, parents) => (check(), decoder.step(words, parents)) },
      settings,
      {
        start: tokenizer.start,
        end: tokenizer.end,
        banned: [tokenizer.pad, tokenizer.start, tokenizer.unknown, ...bad],
        prefix: tokenizer.encode(settings.prefix),
      },
    );
    return hypotheses.map((hypothesis) => captionOf(hypothesis, distance));
  }

  /** @param {Hypothesis} hypothesis @param {number | null} distance */
  function captionOf({ ids, words, finished }, distance) {
    const known = (/** @type {[number, number]} */ [id, probability]) =>
      /** @type {[string, number]} */ ([tokenizer.word(id), probability]);
    return {
      caption: tokenizer.decode(ids),
      confidence: trust && distance !== null ? trust.confidence(distance, words.map(({ logProb }) => logProb)) : null,
      finished,
      words: words.map(({ id, logProb, attention, alternatives }) => ({
        text: tokenizer.word(id),
        probability: Math.exp(logProb),
        alternatives: alternatives.map(known).filter(([text]) => tokenizer.knows(text)),
        attention: gridOf(attention),
      })),
    };
  }

  /** The model's own caption of a photo. @param {Uint8Array} levels @param {Check} check */
  async function first(levels, check) {
    const [caption] = await search(await read(pixelsOf(levels, config)), generation, check);
    return caption;
  }

  return {
    /** What a device prepares before its first caption; and what it cannot compute fails here. */
    warmUp: () => first(new Uint8Array(3 * side * side), () => {}),

    /** @param {Blob} file @param {string} name @param {Check} check @returns {Promise<Answer>} */
    async photo(file, name, check) {
      const photo = await openPhoto(file);
      const levels = levelsOf(photo, side);
      const picture = { image: await shown(photo), input: await pngOf(levels, side), colour: colourOf(levels) };
      photo.close();
      last = { key: picture.input, read: await read(pixelsOf(levels, config)) };
      const [caption] = await search(last.read, generation, check);
      return { photo: { ...picture, name, example: null }, captions: [caption] };
    },

    /** @param {Question} question @param {Check} check @returns {Promise<Caption[]>} */
    async again({ photo, request, covered, words }, check) {
      checkPrefix(request.prefix, tokenizer, generation);
      const settings = generationConfig(generation, request, tokenizer, words);
      const key = photo.input + covered.join("");
      if (last?.key !== key) {
        const pixels = pixelsOf(await levelsOfPng(photo.input, side), config);
        last = { key, read: await read(occlude(pixels, covered, side)) };
      }
      const captions = await search(last.read, settings, check);
      if (request.length === "Shorter" && !captions.every(({ finished }) => finished)) {
        throw new AskError("The model finds no shorter caption of this photo.");
      }
      return request.several ? mostDifferent(captions) : captions.slice(0, 1);
    },

    /** @param {Blob} file @param {Check} check @returns {Promise<Row>} */
    async row(file, check) {
      const photo = await openPhoto(file);
      const [small, levels] = [await thumbnail(photo), levelsOf(photo, side)];
      photo.close();
      const caption = await first(levels, check);
      const words = caption.words.map((word) => ({ ...word, attention: [] }));
      return { thumbnail: small, caption: { ...caption, words } };
    },

    /** @param {Blob} file @param {Check} check @returns {Promise<Caption>} */
    async frame(file, check) {
      const photo = await openPhoto(file);
      const levels = levelsOf(photo, side);
      photo.close();
      return first(levels, check);
    },
  };
}

/** @param {Float32Array} attention of a square feature map @returns {number[][]} rows from the top */
function gridOf(attention) {
  const side = Math.sqrt(attention.length);
  return Array.from({ length: side }, (_, row) => [...attention.subarray(row * side, (row + 1) * side)]);
}
