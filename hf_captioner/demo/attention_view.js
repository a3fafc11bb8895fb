// Captions as words to point at, and the image lit where the model looked for each of them.
// Text from the model or a visitor is set as textContent and never as markup.
const root = element.querySelector(".attention-view");
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const DARK = [0, 0, 0];
const WARM = [255, 176, 32];
const WORD_MS = 800; // milliseconds a word while playing
const BRUSH_RADIUS = 2.5; // in cells of the mask
const TILE_SIDE = 240; // pixels, the longest side
const MIN_CANVAS_SIDE = 640; // pixels, the longest side
const NO_PLACE = [0, -1];
const image = new Image();
const canvas = part("image");
let data = { captions: [], covered: [] }; // the value from Python
let selected = NO_PLACE; // caption and word that stay lit when none is pointed at
let covered = new Uint8Array(); // a square of cells, 1 where painted over
let timer = 0;
let painting = false;

// -- drawing ----------------------------------------------------------------------------------------------------------

const wordAt = ([caption, word]) => data.captions[caption]?.words[word];
const percent = (share) => `${Math.round(100 * share)} %`;

// Cells as an image of one pixel each, which the browser smooths when it is drawn large.
function cellImage(cells, columns, colour, alpha) {
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, cells.length / columns];
  const pixels = new ImageData(small.width, small.height);
  cells.forEach((cell, index) => pixels.data.set([...colour, 255 * alpha(cell)], 4 * index));
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

// As hf_captioner/heatmap.py draws it: dimmed where the model did not look, warm where it did. The cover is not drawn
// for words of the first caption, since the model saw the whole image when it wrote them.
function draw(target, [caption, index]) {
  const word = wordAt([caption, index]);
  const context = target.getContext("2d");
  const whole = [0, 0, target.width, target.height];
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(image, ...whole);
  if (covered.includes(1) && (caption > 0 || !word)) {
    context.imageSmoothingEnabled = false;
    context.drawImage(cellImage([...covered], Math.sqrt(covered.length), data.coverColour, (cell) => cell), ...whole);
    context.imageSmoothingEnabled = true;
  }
  if (!word) return;
  const cells = word.attention.flat();
  const max = Math.max(...cells) || 1;
  const columns = word.attention[0].length;
  context.globalAlpha = part("strength").value / 100;
  context.drawImage(cellImage(cells, columns, DARK, (cell) => 0.7 * (1 - cell / max)), ...whole);
  context.drawImage(cellImage(cells, columns, WARM, (cell) => 0.45 * (cell / max) ** 2), ...whole);
}

// A thumbnail of the image, lit for the word at a place.
function tile(place) {
  const small = document.createElement("canvas");
  const scale = TILE_SIDE / Math.max(image.naturalWidth, image.naturalHeight);
  [small.width, small.height] = [image.naturalWidth * scale, image.naturalHeight * scale].map(Math.ceil);
  draw(small, place);
  return small;
}

const wordButtons = () => [...element.querySelectorAll(".words button")];

function highlight(place) {
  const word = wordAt(place);
  draw(canvas, place);
  wordButtons().forEach((button) => button.classList.toggle("highlighted", button.dataset.place === place.join()));
  part("hint").textContent = word
    ? `“${word.text}”, probability ${percent(word.probability)}: bright where the model looked.`
    : "Point at a word, or use the arrow keys, to see where the model looked.";
}

function drawSheet() {
  const words = part("all").checked ? data.captions[selected[0]].words : [];
  part("sheet").replaceChildren(
    ...words.map((word, index) => {
      const [figure, name] = ["figure", "figcaption"].map((tag) => document.createElement(tag));
      name.textContent = word.text;
      figure.append(tile([selected[0], index]), name);
      return figure;
    }),
  );
}

// -- words ------------------------------------------------------------------------------------------------------------

function select(place, { notify = true, focus = false } = {}) {
  selected = place;
  wordButtons().forEach((button, index) => {
    const here = button.dataset.place === place.join();
    button.tabIndex = here || (place[1] < 0 && index === 0) ? 0 : -1;
    button.setAttribute("aria-pressed", here);
    if (here && focus) button.focus();
  });
  part("hide").disabled = !wordAt(place);
  highlight(place);
  drawSheet();
  root.dataset.place = JSON.stringify(wordAt(place) ? place : null);
  if (notify) trigger("word");
}

function captionRow(caption, row) {
  const [block, label, words] = ["div", "h2", "div"].map((tag) => document.createElement(tag));
  block.className = "caption";
  label.textContent = caption.label;
  words.className = "words";
  words.setAttribute("role", "toolbar");
  words.setAttribute("aria-label", `${caption.label}: ${caption.text}`);
  words.append(...caption.words.map((word, index) => wordButton(word, [row, index])));
  block.append(label, words);
  return block;
}

function wordButton(word, place) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = word.text;
  button.dataset.place = place.join();
  button.style.setProperty("--probability", word.probability);
  button.title = percent(word.probability);
  button.classList.toggle("changed", word.changed);
  button.onpointerenter = () => highlight(place);
  button.onpointerleave = () => highlight(selected);
  button.onfocus = () => highlight(place);
  button.onclick = () => select(selected.join() === place.join() ? NO_PLACE : place);
  return button;
}

part("captions").onkeydown = (event) => {
  const all = wordButtons();
  const now = all.indexOf(event.target);
  const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: all.length - 1 }[event.key];
  if (now < 0 || (next === undefined && event.key !== "Escape")) return;
  event.preventDefault();
  stopPlaying();
  if (event.key === "Escape") return select(NO_PLACE);
  const button = all[(next + all.length) % all.length];
  select(button.dataset.place.split(",").map(Number), { focus: true });
};

// -- playing and downloading ------------------------------------------------------------------------------------------

function stopPlaying() {
  clearInterval(timer);
  timer = 0;
  part("play").textContent = "Play";
}

part("play").onclick = () => {
  if (timer) return stopPlaying(), highlight(selected);
  const caption = selected[0];
  let word = 0;
  const next = () =>
    wordAt([caption, word]) ? highlight([caption, word++]) : (stopPlaying(), highlight(selected));
  part("play").textContent = "Stop";
  next();
  timer = setInterval(next, WORD_MS);
};

part("strength").oninput = () => (highlight(selected), drawSheet());
part("all").onchange = drawSheet;

// The caption and a tile a word, as hf_captioner's contact sheet; made here, so that no server keeps it.
part("download").onclick = () => {
  const caption = selected[0];
  const { text, words } = data.captions[caption];
  const { width, height } = tile(NO_PLACE);
  const columns = Math.min(4, words.length + 1);
  const sheet = document.createElement("canvas");
  sheet.width = columns * (width + 12) + 12;
  sheet.height = 46 + Math.ceil((words.length + 1) / columns) * (height + 34);
  const context = sheet.getContext("2d");
  context.fillStyle = "#fafaf8";
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.fillStyle = "#1e1e1e";
  context.font = "18px system-ui, sans-serif";
  context.fillText(text, 12, 30, sheet.width - 24);
  context.font = "15px system-ui, sans-serif";
  context.textAlign = "center";
  ["", ...words.map((word) => word.text)].forEach((name, index) => {
    const left = 12 + (index % columns) * (width + 12);
    const top = 46 + Math.floor(index / columns) * (height + 34);
    context.drawImage(tile([caption, index - 1]), left, top);
    context.fillText(name, left + width / 2, top + height + 20, width);
  });
  const link = document.createElement("a");
  link.href = sheet.toDataURL("image/png");
  link.download = "where-it-looked.png";
  link.click();
};

// -- covering ---------------------------------------------------------------------------------------------------------

function paint(event) {
  const side = Math.sqrt(covered.length);
  const box = canvas.getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((at) => at * side);
  covered.forEach((_, cell) => {
    if (Math.hypot((cell % side) + 0.5 - x, Math.floor(cell / side) + 0.5 - y) < BRUSH_RADIUS) covered[cell] = 1;
  });
  draw(canvas, NO_PLACE);
}

function cover(cells) {
  root.dataset.covered = JSON.stringify([...cells]);
  trigger("cover");
}

part("brush").onchange = (event) => canvas.classList.toggle("brushing", event.target.checked);
canvas.onpointerdown = (event) => {
  if (!part("brush").checked) return;
  painting = true;
  canvas.setPointerCapture(event.pointerId);
  paint(event);
};
canvas.onpointermove = (event) => painting && paint(event);
canvas.onpointerup = canvas.onpointercancel = () => {
  if (painting) cover(covered);
  painting = false;
};
part("hide").onclick = () => trigger("hide", { place: selected });
part("clear").onclick = () => cover(covered.map(() => 0));

// -- from Python ------------------------------------------------------------------------------------------------------

function render() {
  stopPlaying();
  const before = data;
  data = props.value?.captions?.length ? props.value : { captions: [], covered: [] };
  covered = Uint8Array.from(data.covered);
  part("clear").disabled = !covered.includes(1);
  root.hidden = !data.captions.length;
  element.querySelector(".cover-controls").hidden = !covered.length;
  part("captions").replaceChildren(...data.captions.map(captionRow));
  const newest = data.captions.length > 1 ? data.captions.slice(1) : data.captions;
  part("announcement").textContent = newest.map(({ label, text }) => `${label}: ${text}`).join(". ");
  if (!newest.length) return;
  canvas.setAttribute("aria-label", `Your photo: ${data.captions[0].text}`);
  image.onload = () => {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const scale = Math.max(1, MIN_CANVAS_SIDE / Math.max(width, height)); // for a smooth heatmap on a small image too
    [canvas.width, canvas.height] = [width * scale, height * scale];
    const same = before.image === data.image;
    select(same && wordAt(selected) ? selected : NO_PLACE, { notify: false });
    if (same && before.covered.join() !== data.covered.join()) highlight(NO_PLACE); // to show the new cover
    if (data.captions.length > 1) part("captions").scrollIntoView({ block: "nearest" });
  };
  image.src = data.image;
}

watch("value", render);
render();
