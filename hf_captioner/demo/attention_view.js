// Captions as words that can be pointed at, and the photograph lit where the model looked for each of them.
// What the model or a visitor says is set as textContent and never as markup.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const DARK = [0, 0, 0];
const WARM = [255, 176, 32];
const PACE = 800; // milliseconds a word while playing
const BRUSH = 2.5; // radius, in cells of what the brush paints
const TILE = 240; // pixels
const SMALLEST = 640; // pixels, the photograph's longest side at least
const picture = new Image();
const NONE = [0, -1];
let shown = { captions: [], covered: [] }; // the value from Python
let chosen = NONE; // caption and word that stay lit when none is pointed at
let covered = new Uint8Array(); // a square of cells, 1 where painted over
let timer = 0;
let painting = false;

// -- drawing ----------------------------------------------------------------------------------------------------------

const wordAt = ([caption, word]) => shown.captions[caption]?.words[word];
const percent = (share) => `${Math.round(100 * share)} %`;

// Cells as a picture of one pixel each, which the browser smooths when it is drawn large.
function tinted(cells, columns, colour, alpha) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, cells.length / columns];
  const pixels = new ImageData(canvas.width, canvas.height);
  cells.forEach((cell, index) => pixels.data.set([...colour, 255 * alpha(cell)], 4 * index));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// As hf_captioner/heatmap.py draws it: dimmed where the model did not look, warm where it did. What is covered is not
// drawn for the words of the first caption, since the model saw the whole photograph when it wrote them.
function draw(canvas, [caption, index]) {
  const word = wordAt([caption, index]);
  const context = canvas.getContext("2d");
  const whole = [0, 0, canvas.width, canvas.height];
  context.imageSmoothingQuality = "high";
  context.globalAlpha = 1;
  context.drawImage(picture, ...whole);
  if (covered.includes(1) && (caption > 0 || !word)) {
    context.imageSmoothingEnabled = false;
    context.drawImage(tinted([...covered], Math.sqrt(covered.length), shown.paint, (cell) => cell), ...whole);
    context.imageSmoothingEnabled = true;
  }
  if (!word) return;
  const cells = word.attention.flat();
  const most = Math.max(...cells) || 1;
  const columns = word.attention[0].length;
  context.globalAlpha = part("strength").value / 100;
  context.drawImage(tinted(cells, columns, DARK, (cell) => 0.7 * (1 - cell / most)), ...whole);
  context.drawImage(tinted(cells, columns, WARM, (cell) => 0.45 * (cell / most) ** 2), ...whole);
}

// A small picture of the photograph, lit for the word of a place.
function tile(place) {
  const canvas = document.createElement("canvas");
  const scale = TILE / Math.max(picture.naturalWidth, picture.naturalHeight);
  [canvas.width, canvas.height] = [picture.naturalWidth * scale, picture.naturalHeight * scale].map(Math.ceil);
  draw(canvas, place);
  return canvas;
}

const chips = () => [...element.querySelectorAll(".words button")];

function light(place) {
  const word = wordAt(place);
  draw(part("photo"), place);
  chips().forEach((chip) => chip.classList.toggle("lit", chip.dataset.place === place.join()));
  part("where").textContent = word
    ? `“${word.text}”, probability ${percent(word.probability)}: lit where the model looked.`
    : "Point at a word, or use the arrow keys, to see where the model looked.";
}

function drawSheet() {
  const words = part("all").checked ? shown.captions[chosen[0]].words : [];
  part("sheet").replaceChildren(
    ...words.map((word, index) => {
      const [figure, name] = ["figure", "figcaption"].map((tag) => document.createElement(tag));
      name.textContent = word.text;
      figure.append(tile([chosen[0], index]), name);
      return figure;
    }),
  );
}

// -- words ------------------------------------------------------------------------------------------------------------

function choose(place, { tell = true, focus = false } = {}) {
  chosen = place;
  chips().forEach((chip, index) => {
    const here = chip.dataset.place === place.join();
    chip.tabIndex = here || (place[1] < 0 && index === 0) ? 0 : -1;
    chip.setAttribute("aria-pressed", here);
    if (here && focus) chip.focus();
  });
  part("hide").disabled = !wordAt(place);
  light(place);
  drawSheet();
  if (tell && wordAt(place)) trigger("word", { place });
}

function spoken(caption, at) {
  const [block, label, words] = ["div", "h2", "div"].map((tag) => document.createElement(tag));
  block.className = "spoken";
  label.textContent = caption.label;
  words.className = "words";
  words.setAttribute("role", "toolbar");
  words.setAttribute("aria-label", `${caption.label}: ${caption.text}`);
  words.append(
    ...caption.words.map((word, index) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.textContent = word.text;
      chip.dataset.place = [at, index].join();
      chip.style.setProperty("--sure", word.probability);
      chip.title = percent(word.probability);
      chip.classList.toggle("changed", word.changed);
      chip.onpointerenter = () => light([at, index]);
      chip.onpointerleave = () => light(chosen);
      chip.onfocus = () => light([at, index]);
      chip.onclick = () => choose([at, index]);
      return chip;
    }),
  );
  block.append(label, words);
  return block;
}

part("captions").onkeydown = (event) => {
  const all = chips();
  const now = all.indexOf(event.target);
  const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: all.length - 1 }[event.key];
  if (now < 0 || (next === undefined && event.key !== "Escape")) return;
  event.preventDefault();
  stop();
  if (event.key === "Escape") return choose(NONE, { tell: false });
  const chip = all[(next + all.length) % all.length];
  choose(chip.dataset.place.split(",").map(Number), { focus: true });
};

// -- playing and keeping ----------------------------------------------------------------------------------------------

function stop() {
  clearInterval(timer);
  timer = 0;
  part("play").textContent = "Play";
}

part("play").onclick = () => {
  if (timer) return stop(), light(chosen);
  const caption = chosen[0];
  let word = 0;
  const next = () => (wordAt([caption, word]) ? light([caption, word++]) : (stop(), light(chosen)));
  part("play").textContent = "Stop";
  next();
  timer = setInterval(next, PACE);
};

part("strength").oninput = () => (light(chosen), drawSheet());
part("all").onchange = drawSheet;

// The caption and a picture a word, as hf_captioner's contact sheet; made here, so that no server keeps it.
part("keep").onclick = () => {
  const caption = chosen[0];
  const { text, words } = shown.captions[caption];
  const { width, height } = tile(NONE);
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

function brush(event) {
  const side = Math.sqrt(covered.length);
  const box = part("photo").getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((at) => at * side);
  covered.forEach((_, cell) => {
    if (Math.hypot((cell % side) + 0.5 - x, Math.floor(cell / side) + 0.5 - y) < BRUSH) covered[cell] = 1;
  });
  draw(part("photo"), NONE);
}

const photo = part("photo");
part("brush").onchange = (event) => photo.classList.toggle("brushing", event.target.checked);
photo.onpointerdown = (event) => {
  if (!part("brush").checked) return;
  painting = true;
  photo.setPointerCapture(event.pointerId);
  brush(event);
};
photo.onpointermove = (event) => painting && brush(event);
photo.onpointerup = photo.onpointercancel = () => {
  if (painting) trigger("cover", { covered: [...covered] });
  painting = false;
};
part("hide").onclick = () => trigger("hide", { place: chosen });
part("uncover").onclick = () => trigger("cover", { covered: [...covered].fill(0) });

// -- from Python ------------------------------------------------------------------------------------------------------

function show() {
  stop();
  const before = shown;
  shown = props.value?.captions?.length ? props.value : { captions: [], covered: [] };
  covered = Uint8Array.from(shown.covered);
  element.querySelector(".looking").hidden = !shown.captions.length;
  element.querySelector(".covering").hidden = !covered.length;
  part("captions").replaceChildren(...shown.captions.map(spoken));
  const news = shown.captions.length > 1 ? shown.captions.slice(1) : shown.captions;
  part("said").textContent = news.map(({ label, text }) => `${label}: ${text}`).join(". ");
  if (!news.length) return;
  photo.setAttribute("aria-label", `Your photograph: ${shown.captions[0].text}`);
  picture.onload = () => {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    const scale = Math.max(1, SMALLEST / Math.max(width, height)); // so that light is smooth on a small one too
    [photo.width, photo.height] = [width * scale, height * scale];
    const same = before.photograph === shown.photograph;
    choose(same && wordAt(chosen) ? chosen : NONE, { tell: false });
    if (same && before.covered.join() !== shown.covered.join()) light(NONE); // what was covered is to be seen
    if (shown.captions.length > 1) part("captions").scrollIntoView({ block: "nearest" });
  };
  picture.src = shown.photograph;
}

watch("value", show);
show();
