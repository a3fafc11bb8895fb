// The picture to download: the caption, and a tile for each word, as hf_captioner's contact sheet.

const [GAP, HEAD, FOOT] = [12, 46, 34]; // pixels around a tile, above all, and below a tile for its word

/** @param {string} title @param {{ name: string, picture: HTMLCanvasElement }[]} tiles */
export function contactSheet(title, tiles) {
  const { width, height } = tiles[0].picture;
  const columns = Math.min(4, tiles.length);
  const sheet = document.createElement("canvas");
  sheet.width = columns * (width + GAP) + GAP;
  sheet.height = HEAD + Math.ceil(tiles.length / columns) * (height + FOOT);
  const drawing = /** @type {CanvasRenderingContext2D} */ (sheet.getContext("2d"));
  drawing.fillStyle = "#fafaf8";
  drawing.fillRect(0, 0, sheet.width, sheet.height);
  drawing.fillStyle = "#1e1e1e";
  drawing.font = "18px system-ui, sans-serif";
  drawing.fillText(title, GAP, 30, sheet.width - 2 * GAP);
  drawing.font = "15px system-ui, sans-serif";
  drawing.textAlign = "center";
  tiles.forEach(({ name, picture }, index) => {
    const left = GAP + (index % columns) * (width + GAP);
    const top = HEAD + Math.floor(index / columns) * (height + FOOT);
    drawing.drawImage(picture, left, top);
    drawing.fillText(name, left + width / 2, top + height + 20, width);
  });
  return sheet;
}
