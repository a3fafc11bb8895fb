/**
 * The things that the page's modules hand to each other.
 *
 * @typedef {object} Word
 * @property {string} text
 * @property {number} probability of this word at this place
 * @property {[string, number][]} alternatives words that may stand here, with their probabilities, best first
 * @property {number[][]} attention rows from the top, sums to 1
 *
 * @typedef {object} Caption
 * @property {string} caption
 * @property {number | null} confidence 0 to 1; null where the model is not calibrated
 * @property {Word[]} words
 *
 * @typedef {object} Photo
 * @property {string} image a URL for <img>: a JPEG
 * @property {string} input what the model read, a PNG in base64
 * @property {number[]} colour the mean one, RGB
 * @property {string} name of the file
 * @property {string | null} example its key in the address; null for a visitor's own photo, which is private
 *
 * @typedef {object} CaptionRequest
 * @property {string} prefix
 * @property {string} bad_words
 * @property {"Normal" | "Shorter" | "Longer"} length
 * @property {"Most likely" | "More varied"} style
 * @property {boolean} several
 * @property {number} seed
 *
 * @typedef {object} Version one caption of the photo
 * @property {string} label how it came about
 * @property {CaptionRequest} request
 * @property {Caption} caption
 * @property {number[]} covered cells of the brush that were covered, row by row; none is an empty list
 *
 * @typedef {object} StageState what a reload brings back
 * @property {Photo} photo
 * @property {Version[]} versions the first is the model's own
 * @property {number} chosen
 * @property {number} word the one that stays lit; -1 for none
 * @property {AltText | null} altText as the visitor edited it; null where it is the page's own
 *
 * @typedef {object} AltText
 * @property {string} text
 * @property {string} of the page's own text that was edited
 *
 * @typedef {{ photo: Photo, captions: Caption[] }} Answer
 * @typedef {{ thumbnail: string, caption: Caption }} Row
 *
 * @typedef {object} Question
 * @property {Photo} photo
 * @property {CaptionRequest} request
 * @property {number[]} covered
 * @property {number} words of the first caption
 *
 * @typedef {object} Ask whatever runs the model: a server, or the browser itself. Rejects with an AskError.
 * @property {(file: Blob, name: string, signal?: AbortSignal) => Promise<Answer>} photo
 * @property {(key: string, signal?: AbortSignal) => Promise<Answer>} example
 * @property {(key: string) => string} picture a URL for <img> of an example
 * @property {(question: Question, signal?: AbortSignal) => Promise<Caption[]>} again
 * @property {(file: Blob, signal?: AbortSignal) => Promise<Row>} row without the attention maps
 * @property {(frame: Blob, signal?: AbortSignal) => Promise<Caption>} frame
 * @property {(image: Blob, model: string, signal?: AbortSignal) => Promise<Caption>} [compare] where there are other models
 *
 * @typedef {object} Setup what the page is told of itself
 * @property {string} model
 * @property {{ key: string, label: string, outside: boolean }[]} examples
 * @property {number} low_confidence below it a caption is doubted
 * @property {number} max_files
 * @property {number} max_file_bytes
 */
export {};
