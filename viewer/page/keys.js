// Keys. Each view says which it has and what they do, so that the help is never wrong.

import { signal } from "./vendor/signals.js";
import { useEffect, useRef } from "./vendor/hooks.js";

/** @typedef {{key: string, does: string, run: (event: KeyboardEvent) => void, shown?: string}} Key */

/** @type {import("./vendor/signals.js").Signal<{where: string, list: () => Key[]}[]>} */
export const groups = signal([]);

/** Whether single letters are keys: who dictates turns them off (WCAG 2.1.4). */
export const letters = signal(stored());

function stored() {
  try {
    return localStorage.getItem("letters") !== "off";
  } catch {
    return true;
  }
}

/** @param {boolean} on */
export function setLetters(on) {
  letters.value = on;
  try {
    localStorage.setItem("letters", on ? "on" : "off");
  } catch {
    // Only for this visit.
  }
}

/** For as long as the component is shown. @param {string} where @param {Key[]} list */
export function useKeys(where, list) {
  const latest = useRef(list);
  latest.current = list;
  useEffect(() => {
    const group = { where, list: () => latest.current };
    groups.value = [...groups.peek(), group];
    return () => {
      groups.value = groups.peek().filter((other) => other !== group);
    };
  }, [where]);
}

/** @param {EventTarget | null} target */
const isText = (target) => target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (isText(event.target)) {
    // Escape leaves a field, so that the keys work again.
    if (event.key === "Escape") /** @type {HTMLElement} */ (event.target).blur();
    return;
  }
  if (event.key.length === 1 && event.key !== " " && event.key !== "?" && !letters.value) return;
  // A button or link that has focus keeps its own keys.
  if ((event.key === "Enter" || event.key === " ") && event.target instanceof Element && event.target.closest("a, button, summary, [role=grid]")) return;
  for (const group of [...groups.peek()].reverse()) {
    const found = group.list().find(({ key }) => key === event.key);
    if (!found) continue;
    event.preventDefault();
    found.run(event);
    return;
  }
});
