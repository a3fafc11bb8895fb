// How photos come in: chosen, dropped or pasted anywhere on the page, or taken.

import { part, partOf } from "./parts.js";
import { openCamera } from "./lens.js";

/**
 * @param {HTMLElement} root
 * @param {(files: File[]) => void} take
 * @returns {{ choose: (several: boolean) => void, photograph: () => Promise<void> }}
 */
export function createIntake(root, take) {
  const input = partOf(root, "files", HTMLInputElement);
  const listed = (/** @type {Iterable<File> | undefined} */ files) => [...(files ?? [])];

  input.onchange = () => {
    const files = listed(input.files ?? undefined);
    input.value = ""; // so that the same file can be chosen again
    if (files.length) take(files);
  };
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) {
      event.preventDefault();
      root.classList.add("dropping");
    }
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && root.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    root.classList.remove("dropping");
    const files = listed(event.dataTransfer?.files);
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  document.addEventListener("paste", (event) => {
    const files = listed(event.clipboardData?.files);
    if (files.length) take(files);
  });

  return {
    choose(several) {
      input.multiple = several;
      input.click();
    },
    photograph: () => photograph(root, (file) => take([file])),
  };
}

/** A dialog that shows the camera until a photo is taken. @param {HTMLElement} root @param {(file: File) => void} take */
async function photograph(root, take) {
  const dialog = partOf(root, "shutter", HTMLDialogElement);
  const error = part(dialog, "shutter-error");
  const shutter = partOf(dialog, "shutter-take", HTMLButtonElement);
  const lens = openCamera(partOf(dialog, "shutter-video", HTMLVideoElement));
  error.hidden = true;
  shutter.disabled = true;
  dialog.onclose = () => lens.close();
  part(dialog, "shutter-close").onclick = () => dialog.close();
  shutter.onclick = async () => {
    const frame = await lens.frame();
    dialog.close();
    take(new File([frame], "photo.jpg", { type: frame.type }));
  };
  dialog.showModal();
  const problem = await lens.opened;
  error.textContent = problem;
  error.hidden = !problem;
  shutter.disabled = Boolean(problem);
}
