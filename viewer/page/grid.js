// Cells with one tab stop: arrow keys walk, Enter opens, and the name and state of a cell are read out.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";

/** Distance of cells that fit into an area. @param {number} nodes @param {number} width @param {number} height @param {number} most */
export const pitchFor = (nodes, width, height, most) => Math.max(7, Math.min(most, Math.floor(Math.sqrt((width * height) / Math.max(1, nodes)))));

/**
 * @template T
 * @param {{items: T[], label: string, width: number, pitch: number, nameOf: (item: T) => string, keyOf: (item: T) => string,
 *   onOpen: (item: T) => void, draw: (item: T, x: number, y: number, size: number) => any, picked?: string}} props
 */
export function Grid({ items, label, width, pitch, nameOf, keyOf, onOpen, draw, picked }) {
  const columns = Math.max(1, Math.floor((width + 3) / pitch));
  const rows = Math.ceil(items.length / columns);
  const size = pitch <= 9 ? pitch - 1.5 : pitch - (pitch > 20 ? 4 : 3);
  const [at, setAt] = useState(-1);
  const id = useRef(`grid-${Math.random().toString(36).slice(2, 8)}`).current;
  const current = Math.min(at, items.length - 1);
  useEffect(() => {
    if (at >= 0) document.getElementById(`${id}-${current}`)?.scrollIntoView({ block: "nearest" });
  }, [current]);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const steps = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -items.length, End: items.length });
    const step = steps[event.key];
    if (event.key === "Enter" && current >= 0) onOpen(items[current]);
    else if (step !== undefined) setAt(Math.min(items.length - 1, Math.max(0, Math.max(current, 0) + (current < 0 ? 0 : step))));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const onClick = (/** @type {MouseEvent} */ event) => {
    const cell = /** @type {Element} */ (event.target).closest("[data-index]");
    const index = Number(cell?.getAttribute("data-index") ?? -1);
    if (index < 0) return;
    setAt(index);
    onOpen(items[index]);
  };
  const lines = [];
  for (let row = 0; row < rows; row += 1) {
    const cells = [];
    for (let index = row * columns; index < Math.min(items.length, (row + 1) * columns); index += 1) {
      const x = (index - row * columns) * pitch;
      const y = row * pitch;
      const item = items[index];
      const marked = index === current || keyOf(item) === picked;
      cells.push(html`<g id=${`${id}-${index}`} data-index=${index} role="gridcell" aria-selected=${keyOf(item) === picked ? "true" : undefined}><title>${nameOf(item)}</title><rect class="hit" x=${x - 1} y=${y - 1} width=${pitch} height=${pitch} />${draw(item, x, y, size)}${marked && html`<rect class=${keyOf(item) === picked ? "pick" : "cursor"} x=${x - 2} y=${y - 2} width=${size + 4} height=${size + 4} rx="3" />`}</g>`);
    }
    lines.push(html`<g role="row" key=${row}>${cells}</g>`);
  }
  const height = Math.max(1, rows * pitch);
  return html`<svg class="cells roving" role="grid" aria-label=${label} tabindex="0" aria-rowcount=${rows} aria-colcount=${columns} aria-activedescendant=${current >= 0 ? `${id}-${current}` : undefined}
    width=${width} height=${height + 4} viewBox=${`-2 -2 ${width} ${height + 4}`} onKeyDown=${onKey} onClick=${onClick} onFocus=${() => setAt(Math.max(at, 0))} onBlur=${() => setAt(-1)}>${lines}</svg>`;
}
