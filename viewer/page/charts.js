// The last 15 minutes of a node as charts. Only the page of a node loads this, and uPlot with it.

import uPlot from "./vendor/uplot.js";
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { bytes, clock } from "./format.js";
import { Panel, Scroll, useWidth } from "./parts.js";
import { inWords, known, percent } from "./spark.js";

/** @typedef {import("./types.js").Samples} Samples */
/** @typedef {{name: string, values: (number | null)[], token: string}} Line */
/** @typedef {{title: string, lines: Line[], text: (value: number) => string, most?: number, least?: number, side?: string}} Figure `most` and `least` of the upper edge */

const sheet = document.createElement("link");
sheet.rel = "stylesheet";
sheet.href = new URL("./vendor/uplot.css", import.meta.url).href;
document.head.append(sheet);

const HEIGHT = 120;

const fixed = (/** @type {number} */ value) => value.toFixed(value < 10 ? 2 : 1);
const rate = (/** @type {number} */ value) => `${bytes(value)}/s`;

/** @param {Samples} samples @param {number} cores @returns {Figure[]} */
const figures = (samples, cores) => [
  { title: "CPU", lines: [{ name: "CPU", values: samples.cpu, token: "c11" }], text: percent, most: 100 },
  { title: "Memory", lines: [{ name: "Memory", values: samples.memory, token: "c11" }], text: percent, most: 100 },
  { title: "Load", lines: [{ name: "Load", values: samples.load, token: "c11" }], text: fixed, side: `of ${cores}` },
  { title: "Fullest disk", lines: [{ name: "Fullest disk", values: samples.disk, token: "c11" }], text: percent, most: 100 },
  { title: "Network", lines: [{ name: "in", values: samples.received, token: "c11" }, { name: "out", values: samples.sent, token: "c7" }], text: rate, least: 1000 },
];

/** @param {{samples: Samples, cores: number}} props */
export function Charts({ samples, cores }) {
  const start = Date.parse(samples.start ?? "");
  // The middle of each slot, in seconds.
  const times = samples.cpu.map((_, index) => (start + (index + 0.5) * samples.slotMs) / 1000);
  const all = figures(samples, cores);
  return html`<div class="charts">${all.map((figure) => html`<${Chart} key=${figure.title} figure=${figure} times=${times} />`)}</div>
    <${Numbers} figures=${all} times=${times} />`;
}

/** A colour of the sheet, as the canvas wants it. @param {HTMLElement} place @param {string} token */
function colour(place, token) {
  place.style.color = `var(--${token})`;
  return getComputedStyle(place).color;
}

/** One sample alone between gaps has no line: it is a dot. @param {uPlot} plot @param {number} index */
function alone(plot, index) {
  const values = plot.data[index];
  return [...values.keys()].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);
}

/** @param {Figure} figure @param {number} width @param {HTMLElement} place @param {(at: number | null) => void} onPoint @returns {uPlot.Options} */
function options({ lines, text, most, least = 0.1 }, width, place, onPoint) {
  const axis = { stroke: () => colour(place, "ink-3"), grid: { stroke: () => colour(place, "line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width, height: HEIGHT, legend: { show: false }, padding: [6, 8, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, sync: { key: "node" }, points: { show: false } },
    hooks: { setCursor: [(/** @type {uPlot} */ plot) => onPoint(plot.cursor.idx ?? null)] },
    scales: { y: { range: (_plot, _low, high) => [0, most ?? Math.max(high * 1.1, least)] } },
    axes: [
      { ...axis, space: 70, size: 24, values: (_plot, splits) => splits.map((second) => clock(second * 1000).slice(0, 5)) },
      { ...axis, space: 30, size: 64, values: (_plot, splits) => splits.map((value) => text(value)) },
    ],
    series: [{}, ...lines.map(({ token }, index) => ({
      width: 1.5, stroke: () => colour(place, token),
      // A second line would be hidden below the first area.
      fill: lines.length === 1 ? () => colour(place, token).replace("rgb(", "rgba(").replace(")", ", .12)") : undefined,
      points: { show: true, size: 3, filter: (/** @type {uPlot} */ plot) => alone(plot, index + 1) },
    }))],
  };
}

/** @param {{figure: Figure, times: number[]}} props */
function Chart({ figure, times }) {
  const [area, width] = useWidth();
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const [at, setAt] = useState(/** @type {number | null} */ (null));
  const data = /** @type {uPlot.AlignedData} */ ([times, ...figure.lines.map((line) => line.values)]);
  useEffect(() => {
    const place = area.current;
    if (!place || width === 0) return undefined;
    const made = new uPlot(options(figure, width, place, setAt), data, place);
    plot.current = made;
    const redraw = () => made.redraw(false);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("sentinel-theme", redraw);
    system.addEventListener("change", redraw);
    return () => {
      removeEventListener("sentinel-theme", redraw);
      system.removeEventListener("change", redraw);
      plot.current = null;
      made.destroy();
    };
  }, [width]);
  useEffect(() => plot.current?.setData(data), [times[0], ...figure.lines.map((line) => line.values)]);
  const value = (/** @type {Line} */ { name, values }) => {
    const shown = at === null ? known(values).at(-1) ?? null : values[at];
    return `${figure.lines.length > 1 ? `${name} ` : ""}${shown == null ? "–" : figure.text(shown)}`;
  };
  const now = `${figure.lines.map(value).join(", ")}${figure.side ? ` ${figure.side}` : ""}`;
  const words = figure.lines.map((line) => inWords(figure.lines.length > 1 ? `${figure.title} ${line.name}` : line.name, line.values, figure.text));
  return html`<${Panel} title=${figure.title} side=${at === null ? now : `${clock(times[at] * 1000)} ${now}`}><div class="chart" role="img" aria-label=${words.join("; ")} ref=${area}></div></${Panel}>`;
}

/** @param {{figures: Figure[], times: number[]}} props */
function Numbers({ figures, times }) {
  const [open, setOpen] = useState(false);
  const lines = figures.flatMap(({ title, lines, text }) => lines.map((line) => ({ ...line, text, title: lines.length > 1 ? `${title} ${line.name}` : title })));
  // Newest first, without what was before the first sample.
  const rows = [...times.keys()].reverse().filter((index) => index >= Math.min(...lines.map(({ values }) => { const first = values.findIndex((value) => value !== null); return first < 0 ? Infinity : first; })));
  return html`<details class="panel numbers" open=${open} onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}><summary>Last 15 minutes as a table</summary>
    ${open && html`<${Scroll} label="Last 15 minutes"><table><thead><tr><th scope="col">Time</th>${lines.map(({ title }) => html`<th scope="col" class="num">${title}</th>`)}</tr></thead>
      <tbody>${rows.map((index) => html`<tr key=${times[index]}><td class="soft">${clock(times[index] * 1000)}</td>${lines.map(({ values, text }) => html`<td class="num">${values[index] === null ? "–" : text(/** @type {number} */ (values[index]))}</td>`)}</tr>`)}</tbody></table></${Scroll}>`}</details>`;
}
