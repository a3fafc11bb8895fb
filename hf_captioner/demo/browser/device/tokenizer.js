// Sentences to word ids and back: tokenizer.json.

const SPECIAL = 4;

/** @typedef {ReturnType<typeof createTokenizer>} Tokenizer */

/** @param {{ model: { vocab: Record<string, number> } }} file tokenizer.json */
export function createTokenizer(file) {
  const ids = new Map(Object.entries(file.model.vocab));
  /** @type {string[]} */
  const words = [];
  for (const [word, id] of ids) words[id] = word;
  const idOf = (/** @type {string} */ name) => /** @type {number} */ (ids.get(name));
  const [pad, start, end, unknown] = ["<pad>", "<start>", "<end>", "<unk>"].map(idOf);

  /** Lower case; hyphens and slashes become spaces, and whatever else is not a letter is removed. @param {string} text */
  function split(text) {
    const lower = Array.from(text.normalize("NFC"), (character) => character.toLowerCase()).join("");
    const normal = lower.replace(/[-/\s]+/gu, " ").replace(/[^\p{L}\p{M} ]+/gu, "");
    return normal.split(" ").filter(Boolean);
  }

  /** @param {string} text */
  const encode = (text) => split(text).map((word) => ids.get(word) ?? unknown);

  return {
    pad,
    start,
    end,
    unknown,
    split,
    encode,
    /** @param {number} id */
    word: (id) => words[id],
    /** @param {number[]} sentence */
    decode: (sentence) => sentence.filter((id) => id >= SPECIAL).map((id) => words[id]).join(" "),
    /** Whether all of a word is in the vocabulary. @param {string} word */
    knows(word) {
      const found = encode(word);
      return found.length > 0 && !found.includes(unknown);
    },
  };
}
