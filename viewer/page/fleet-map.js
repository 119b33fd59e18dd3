// The fleet as cells: by state, by load in five steps of one hue, or by a label.

import { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { plural } from "./format.js";
import { byName, commonPrefix, mark } from "./names.js";
import { shortLabel } from "./figures.js";
import { Grid, pitchFor } from "./grid.js";
import { Icon, useWidth } from "./parts.js";
import { setQuery } from "./route.js";

/** @typedef {import("./figures.js").Seen} Seen */

/** More cells than this are drawn on a canvas. */
const MOST_CELLS = 2000;

/** @param {number} share from 0 to 100 */
const heat = (share) => 1 + Math.min(4, Math.floor(share / 20));

/** @param {{colour: string}} props */
export function Ramp({ colour }) {
  if (colour === "state") return html`<span class="legend wide"><span class="ok"><${Icon} name="here" />reachable</span><span class="late"><${Icon} name="late" />late</span><span class="lost"><${Icon} name="gone" />unreachable</span></span>`;
  if (colour === "label") return null;
  return html`<span class="legend wide"><span>0%</span><svg class="ramp" aria-hidden="true">${[1, 2, 3, 4, 5].map((step) => html`<rect class=${`heat-${step}`} x=${`${(step - 1) * 20}%`} width="20%" height="10" />`)}</svg><span>100%</span></span>`;
}

/** @param {{nodes: Seen[], group: string, colour: string, label: string, picked?: string}} props */
export function FleetMap({ nodes, group, colour, label, picked }) {
  const [area, width] = useWidth();
  const groups = useMemo(() => {
    /** @type {Map<string, Seen[]>} */
    const found = new Map();
    for (const node of nodes) {
      const key = group ? node.labels[group] ?? "" : "";
      const members = found.get(key);
      if (members) members.push(node);
      else found.set(key, [node]);
    }
    return [...found].sort((a, b) => b[1].length - a[1].length || byName(a[0], b[0]));
  }, [nodes, group]);
  const pitch = pitchFor(nodes.length, width, 620, 31);
  return html`<div class="map body" ref=${area}>${width > 0 && groups.map(([name, members]) => html`<section key=${name}>
    <h2>${group ? name || `no ${shortLabel(group)}` : "All nodes"} <span>${plural(members.length, "node")}${mean(members, colour)}</span>${gone(members)}</h2>
    ${nodes.length > MOST_CELLS ? html`<${Canvas} nodes=${members} width=${width} pitch=${pitch} colour=${colour} label=${label} picked=${picked} />` : html`<${Cells} nodes=${members} width=${width} pitch=${pitch} colour=${colour} label=${label} picked=${picked} />`}</section>`)}</div>`;
}

/** @param {Seen[]} nodes @param {string} colour */
function mean(nodes, colour) {
  const known = /** @type {number[]} */ (nodes.map((node) => node.figures[colour]).filter((value) => value !== null && value !== undefined));
  return known.length > 0 ? ` · mean ${Math.round(known.reduce((a, b) => a + b, 0) / known.length)}%` : "";
}

/** @param {Seen[]} nodes */
function gone(nodes) {
  const n = nodes.filter((node) => node.presence === "unreachable").length;
  return n > 0 && html`<span class="lost state"><${Icon} name="gone" />${n} unreachable</span>`;
}

/** @param {Seen} node @param {string} colour @param {string} label */
function words(node, colour, label) {
  const value = node.figures[colour];
  const more = colour === "label" ? `, ${shortLabel(label)} ${node.labels[label] ?? "none"}` : value == null ? "" : `, ${Math.round(value)}%`;
  return `${node.name}, ${node.presence}${more}`;
}

/** @param {Seen} node */
const pick = (node) => setQuery({ node: node.name }, { replace: true });

/** @param {{nodes: Seen[], width: number, pitch: number, colour: string, label: string, picked?: string}} props */
function Cells({ nodes, width, pitch, colour, label, picked }) {
  const prefix = commonPrefix(nodes.map((node) => node.name));
  const draw = (/** @type {Seen} */ node, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ size) => {
    // Of a long number the end: it is what differs between neighbours.
    const rest = node.name.slice(prefix.length);
    const text = colour === "label" ? (node.labels[label] ?? "").charAt(0) : /^\d{5,}$/.test(rest) ? rest.slice(-4) : rest;
    const value = node.figures[colour];
    const shape =
      node.presence === "unreachable" ? html`<rect class="open-cell" x=".75" y=".75" width=${size - 1.5} height=${size - 1.5} rx="2" /><path class="cell-pen" d=${`m${size * 0.32} ${size * 0.32} ${size * 0.36} ${size * 0.36}m0-${size * 0.36}-${size * 0.36} ${size * 0.36}`} />`
      : html`<rect class=${colour === "state" ? "calm-cell" : colour === "label" ? `${mark(node.labels[label] ?? "")} mark-cell` : value == null ? "empty-cell" : `heat-${heat(value)}`} width=${size} height=${size} rx="2" />${pitch >= 24 && text.length <= 4 && html`<text aria-hidden="true" x=${size / 2} y=${size / 2 + 3}>${text}</text>`}${node.presence === "late" && html`<path class="corner" d=${`M${size} 0v${size / 3}L${size - size / 3} 0z`} />`}`;
    return html`<g class=${node.presence === "unreachable" ? "lost" : "ok"} transform=${`translate(${x} ${y})`}>${shape}</g>`;
  };
  return html`<${Grid} items=${nodes} label=${`${plural(nodes.length, "node")} by ${colour}`} width=${width} pitch=${pitch} picked=${picked} keyOf=${(/** @type {Seen} */ node) => node.name} nameOf=${(/** @type {Seen} */ node) => words(node, colour, label)} onOpen=${pick} draw=${draw} />`;
}

/** Thousands of cells, without an element for each. @param {{nodes: Seen[], width: number, pitch: number, colour: string, label: string, picked?: string}} props */
function Canvas({ nodes, width, pitch, colour, label, picked }) {
  const canvas = useRef(/** @type {HTMLCanvasElement | null} */ (null));
  const [at, setAt] = useState(-1);
  const columns = Math.max(1, Math.floor(width / pitch));
  const height = Math.ceil(nodes.length / columns) * pitch;
  useEffect(() => {
    const element = /** @type {HTMLCanvasElement} */ (canvas.current);
    const paint = element.getContext("2d");
    if (!paint) return;
    const ratio = devicePixelRatio || 1;
    element.width = width * ratio;
    element.height = height * ratio;
    paint.scale(ratio, ratio);
    const ink = inks(element);
    const size = pitch - 1.5;
    nodes.forEach((node, index) => {
      const x = (index % columns) * pitch;
      const y = Math.floor(index / columns) * pitch;
      if (node.presence === "unreachable") {
        paint.strokeStyle = ink("--lost-fill");
        paint.strokeRect(x + 0.5, y + 0.5, size - 1, size - 1);
        paint.beginPath();
        paint.moveTo(x + 1, y + 1);
        paint.lineTo(x + size - 1, y + size - 1);
        paint.moveTo(x + size - 1, y + 1);
        paint.lineTo(x + 1, y + size - 1);
        paint.stroke();
      } else {
        const value = node.figures[colour];
        paint.globalAlpha = colour === "state" ? 0.6 : 1;
        paint.fillStyle = ink(colour === "state" ? "--ok-fill" : colour === "label" ? `--${mark(node.labels[label] ?? "")}` : value == null ? "--line" : `--heat-${heat(value)}`);
        paint.fillRect(x, y, size, size);
        paint.globalAlpha = 1;
        if (node.presence === "late") {
          paint.fillStyle = ink("--late-fill");
          paint.fillRect(x + size / 2, y, size / 2, size / 2);
        }
      }
      if (node.name === picked || index === at) {
        paint.strokeStyle = ink("--ink");
        paint.strokeRect(x - 0.5, y - 0.5, size + 1, size + 1);
      }
    });
  });
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns })[event.key];
    if (event.key === "Enter" && nodes[at]) pick(nodes[at]);
    else if (step) setAt(Math.min(nodes.length - 1, Math.max(0, at + step)));
    else return;
    event.preventDefault();
  };
  const onClick = (/** @type {MouseEvent} */ event) => {
    const index = Math.floor(event.offsetY / pitch) * columns + Math.floor(event.offsetX / pitch);
    if (event.offsetX / pitch < columns && nodes[index]) pick(nodes[index]);
  };
  return html`<canvas ref=${canvas} class="map-canvas" width=${width} height=${height} tabindex="0" role="application" aria-roledescription="map" aria-label=${nodes[at] ? words(nodes[at], colour, label) : `${plural(nodes.length, "node")} by ${colour}; arrow keys walk`} onKeyDown=${onKey} onClick=${onClick}></canvas>`;
}

/** Colours of the theme, as a canvas takes them. @param {Element} element */
function inks(element) {
  const probe = document.createElement("span");
  element.parentElement?.append(probe);
  /** @type {Map<string, string>} */
  const known = new Map();
  queueMicrotask(() => probe.remove());
  return (/** @type {string} */ token) => {
    const found = known.get(token);
    if (found) return found;
    probe.style.color = `var(${token})`;
    const colour = getComputedStyle(probe).color;
    known.set(token, colour);
    return colour;
  };
}
