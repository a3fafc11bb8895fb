// The tabs, by the field's keyboard pattern: arrows, Home and End.

/**
 * @param {HTMLElement} root
 * @param {(name: string, byVisitor: boolean) => void} opened
 * @returns {{ open: (name: string, byVisitor: boolean) => void, current: () => string }} an unknown name opens the first tab
 */
export function createTabs(root, opened) {
  const tabs = /** @type {HTMLButtonElement[]} */ ([...root.querySelectorAll("[role=tab]:not([hidden])")]);
  const nameOf = (/** @type {Element} */ tab) => tab.id.replace("tab-", "");
  const isOpen = (/** @type {Element} */ tab) => tab.getAttribute("aria-selected") === "true";

  /** @param {string} name @param {boolean} byVisitor */
  function open(name, byVisitor) {
    const chosen = tabs.find((tab) => nameOf(tab) === name) ?? tabs[0];
    if (isOpen(chosen)) return;
    for (const tab of tabs) {
      const here = tab === chosen;
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      /** @type {HTMLElement} */ (root.querySelector(`#panel-${nameOf(tab)}`)).hidden = !here;
    }
    chosen.scrollIntoView({ block: "nearest", inline: "nearest" });
    opened(nameOf(chosen), byVisitor);
  }

  tabs.forEach((tab, place) => {
    tab.onclick = () => open(nameOf(tab), true);
    tab.onkeydown = (event) => {
      /** @type {Record<string, number>} */
      const places = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 };
      if (!(event.key in places)) return;
      event.preventDefault();
      const next = tabs[(places[event.key] + tabs.length) % tabs.length];
      next.focus();
      open(nameOf(next), true);
    };
  });
  return { open, current: () => nameOf(tabs.find(isOpen) ?? tabs[0]) };
}
