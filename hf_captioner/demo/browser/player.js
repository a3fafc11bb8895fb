// Plays a caption: one word after the other.

const WORD_MS = 800;

/**
 * @param {{ word: (index: number) => void, end: () => void }} on
 * @returns {{ start: (words: number) => void, stop: () => void, playing: () => boolean }}
 */
export function createPlayer(on) {
  let timer = 0;
  const stop = () => {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    on.end();
  };
  return {
    stop,
    playing: () => timer !== 0,
    start(words) {
      stop();
      let index = 0;
      timer = window.setInterval(() => (++index < words ? on.word(index) : stop()), WORD_MS);
      on.word(0);
    },
  };
}
