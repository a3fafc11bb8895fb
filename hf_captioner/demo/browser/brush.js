// The brush that covers parts of the photo, and the buttons that go with it.

import { MASK_SIDE } from "./where.js";
import { part } from "./parts.js";

const RADIUS = 2.5; // in cells of the mask

/**
 * @param {HTMLElement} pane @param {HTMLCanvasElement} canvas
 * @param {{ painting: (covered: number[]) => void, painted: (covered: number[]) => void }} on during a stroke, and
 *   when it has ended
 * @returns {{ set: (covered: number[]) => void }} what is covered now; none is an empty list
 */
export function createBrush(pane, canvas, on) {
  /** @type {number[]} */
  let covered = [];
  let [chosen, painting, erasing] = [false, false, false];
  const [brush, eraser, clear, open] = ["brush", "eraser", "clear", "cover"].map((name) => part(pane, name));

  /** @param {boolean} now @param {boolean} erase */
  function choose(now, erase) {
    [chosen, erasing] = [now, erase];
    brush.setAttribute("aria-pressed", String(now && !erase));
    eraser.setAttribute("aria-pressed", String(now && erase));
    canvas.classList.toggle("brushing", now);
  }

  /** @param {PointerEvent} event */
  function paint(event) {
    // The photo fills its box in one direction only, and lies in the middle of the other.
    const box = canvas.getBoundingClientRect();
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const [width, height] = [canvas.width * scale, canvas.height * scale];
    const x = ((event.clientX - box.left - (box.width - width) / 2) / width) * MASK_SIDE;
    const y = ((event.clientY - box.top - (box.height - height) / 2) / height) * MASK_SIDE;
    covered = covered.map((cell, index) => {
      const near = Math.hypot((index % MASK_SIDE) + 0.5 - x, Math.floor(index / MASK_SIDE) + 0.5 - y) < RADIUS;
      return near ? Number(!erasing) : cell;
    });
    on.painting(covered);
  }

  open.onclick = () => {
    const opening = part(pane, "brushes").hidden;
    part(pane, "brushes").hidden = !opening;
    open.setAttribute("aria-expanded", String(opening));
    choose(opening, false);
  };
  brush.onclick = () => choose(!(chosen && !erasing), false);
  eraser.onclick = () => choose(!(chosen && erasing), true);
  clear.onclick = () => on.painted([]);
  canvas.onpointerdown = (event) => {
    if (!chosen) return;
    painting = true;
    if (!covered.length) covered = new Array(MASK_SIDE ** 2).fill(0);
    canvas.setPointerCapture(event.pointerId);
    paint(event);
  };
  canvas.onpointermove = (event) => painting && paint(event);
  canvas.onpointerup = canvas.onpointercancel = () => {
    if (painting) on.painted(covered.includes(1) ? covered : []);
    painting = false;
  };
  return {
    set(now) {
      covered = [...now];
      clear.toggleAttribute("disabled", !now.includes(1));
    },
  };
}
