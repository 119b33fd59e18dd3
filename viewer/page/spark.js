// A line of the last 15 minutes, as small as a word. Silence is a gap.

import { useMemo } from "./vendor/hooks.js";
import { html } from "./html.js";

/** The values that are known. @param {(number | null)[]} values */
export const known = (values) => /** @type {number[]} */ (values.filter((value) => value !== null));

/**
 * Parts without a gap, as points in a box.
 *
 * @param {(number | null)[]} values oldest first @param {number} most the value at the upper edge @param {number} width @param {number} height
 */
export function segments(values, most, width, height) {
  /** @type {{line: string, area: string}[]} */
  const found = [];
  const step = width / Math.max(1, values.length - 1);
  const x = (/** @type {number} */ index) => (index * step).toFixed(1);
  for (let from = 0; from < values.length; from += 1) {
    if (values[from] === null) continue;
    let to = from;
    while (to + 1 < values.length && values[to + 1] !== null) to += 1;
    const y = (/** @type {number} */ index) => (height - 1 - (Math.min(/** @type {number} */ (values[index]), most) / (most || 1)) * (height - 2)).toFixed(1);
    const points = Array.from({ length: to - from + 1 }, (_, n) => `${x(from + n)} ${y(from + n)}`);
    // One sample alone is a dot.
    const line = `M${points.join(" ")}${from === to ? "h1" : ""}`;
    found.push({ line, area: `${line}V${height}H${x(from)}z` });
    from = to;
  }
  return found;
}

/** In words, for those who do not see it. @param {string} what @param {(number | null)[]} values @param {(value: number) => string} text */
export function inWords(what, values, text) {
  const numbers = known(values);
  if (numbers.length === 0) return `${what}: nothing was heard in the last 15 minutes`;
  const missing = values.slice(values.findIndex((value) => value !== null), -1).some((value) => value === null);
  return `${what}, last 15 minutes: lowest ${text(Math.min(...numbers))}, highest ${text(Math.max(...numbers))}, last ${text(numbers[numbers.length - 1])}${missing ? ", with gaps" : ""}`;
}

/** @param {number} value */
export const percent = (value) => `${Math.round(value)}%`;

/** @param {{what: string, values: (number | null)[], tone?: string, most?: number, text?: (value: number) => string, wide?: boolean}} props */
export function Spark({ what, values, tone = "", most = 100, text = percent, wide = false }) {
  const [width, height] = wide ? [300, 30] : [84, 18];
  const parts = useMemo(() => segments(values, most, width, height), [values, most, wide]);
  return html`<svg class=${`spark ${tone} ${wide ? "wide-spark" : ""}`} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${inWords(what, values, text)}>
    ${parts.map(({ line, area }) => html`<path class="area" d=${area} /><path d=${line} />`)}</svg>`;
}
