// The markup's parts, by their data-part.

/** @param {ParentNode} root @param {string} name @returns {HTMLElement} */
export function part(root, name) {
  const found = root.querySelector(`[data-part="${name}"]`);
  if (!(found instanceof HTMLElement)) throw new Error(`The page has no part ${name}.`);
  return found;
}

/** @template {HTMLElement} T @param {ParentNode} root @param {string} name @param {new () => T} kind @returns {T} */
export function partOf(root, name, kind) {
  const found = part(root, name);
  if (!(found instanceof kind)) throw new Error(`The page's part ${name} is no ${kind.name}.`);
  return found;
}

/** A copy of a template's only element. @param {string} name @returns {HTMLElement} */
export function copyOf(name) {
  const template = partOf(document, name, HTMLTemplateElement);
  const copy = /** @type {HTMLElement} */ (template.content.firstElementChild);
  return /** @type {HTMLElement} */ (document.importNode(copy, true));
}

/** @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Record<string, unknown>} properties @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]} */
export function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** @param {string} name @param {(event: MouseEvent) => void} onclick */
export const button = (name, onclick) => made("button", { type: "button", textContent: name, onclick });
