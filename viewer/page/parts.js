// Pieces that every page uses. Geometry is in attributes of SVG and colour in classes: the policy allows no inline style.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { count, lower } from "./format.js";
import { barOrder, look } from "./states.js";
import { setQuery, withQuery } from "./route.js";
import { ApiError } from "./api.js";

/** @typedef {import("./states.js").Look} Look */
/** @typedef {import("./states.js").Share} Share */
/** @typedef {import("./html.js").Children} Children */

const sprite = new URL("./icons.svg", import.meta.url).href;

/** @param {{name: string, cls?: string, label?: string}} props */
export function Icon({ name, cls = "", label }) {
  const named = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return html`<svg class=${`i ${cls}`} ...${named}><use href=${`${sprite}#i-${name}`} /></svg>`;
}

/** Icon and word. @param {{look: Look, text?: string, title?: string}} props */
export const State = ({ look: { tone, icon, word, spin }, text = word, title }) =>
  html`<span class=${`state ${tone}`} title=${title}><${Icon} name=${icon} cls=${spin ? "spin" : ""} />${text}</span>`;

/** @param {{look: Look, text?: string}} props */
export const Chip = ({ look: { tone, icon, word, spin }, text = word }) =>
  html`<span class=${`chip ${tone}`}><${Icon} name=${icon} cls=${spin ? "spin" : ""} />${text}</span>`;

/** A bar of shares. What went wrong is seen even if it is one of thousands. @param {{shares: Share[], total: number, label: string, goodFirst?: boolean}} props */
export function Meter({ shares, total, label, goodFirst }) {
  let x = 0;
  const bars = barOrder(shares, goodFirst).filter((share) => share.look.tone !== "off" || share.look.icon === "cancelled").map((share) => {
    const width = Math.min(100 - x, Math.max(share.look.rank < 10 ? 0.5 : 0.1, (share.count / Math.max(1, total)) * 100));
    const bar = html`<rect class=${share.look.tone} x=${`${x.toFixed(2)}%`} width=${`${Math.max(0.05, width - 0.12).toFixed(2)}%`} height="100%" />`;
    x += width;
    return bar;
  });
  return html`<svg class="meter" role="img" aria-label=${label}><rect class="back" width="100%" height="100%" />${bars}</svg>`;
}

/** @param {number} share from 0 to 100 */
export const loadTone = (share) => (share > 95 ? "bad" : share > 88 ? "late" : "");

/** A figure with a small bar. @param {{share: number | null}} props */
export function Level({ share }) {
  if (share === null) return html`<span class="faint">–</span>`;
  const tone = loadTone(share);
  return html`<span class="with-level"><span class=${tone}>${Math.round(share)}%</span><svg class="level" aria-hidden="true"><rect class="back" width="100%" height="100%" /><rect class=${tone} width=${`${share.toFixed(1)}%`} height="100%" /></svg></span>`;
}

/**
 * One of several, as buttons whose choice is in the address.
 *
 * @param {{label: string, name: string, value: string, options: {value: string, text: Children, cls?: string}[], cls?: string, replace?: boolean}} props
 */
export const Seg = ({ label, name, value, options, cls = "", replace }) =>
  html`<span class=${`seg ${cls}`} role="group" aria-label=${label}>
    ${options.map((option) => html`<button type="button" aria-pressed=${String(option.value === value)} onClick=${() => setQuery({ [name]: option.value }, { replace })}>${option.text}</button>`)}
  </span>`;

/**
 * @param {{label: string, value: string, placeholder: string, onInput: (text: string) => void, id?: string, re?: boolean}} props
 */
export const Search = ({ label, value, placeholder, onInput, id = "filter", re }) =>
  html`<label class=${`field ${re ? "re" : ""}`}><${Icon} name="find" /><span class="sr">${label}</span>
    <input id=${id} type="search" value=${value} placeholder=${placeholder} spellcheck=${false} autocomplete="off" onInput=${(/** @type {any} */ event) => onInput(event.currentTarget.value)} /><kbd aria-hidden="true">/</kbd></label>`;

/** `/` goes to the filter of the page. */
export const focusFilter = { key: "/", does: "Filter", run: () => document.getElementById("filter")?.focus() };

/** A list to choose from. @param {{label: string, value: string, options: [string, string][], onPick: (value: string) => void, cls?: string}} props */
export const Pick = ({ label, value, options, onPick, cls = "" }) =>
  html`<label class=${`field pick ${cls}`}><span class="sr">${label}</span>
    <select value=${value} onChange=${(/** @type {any} */ event) => onPick(event.currentTarget.value)}>${options.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}</select><${Icon} name="down" /></label>`;

/**
 * The head of a column that sorts. The order is in the address: `sort=cpu` or `sort=-cpu`.
 *
 * @param {{name: string, sort: string, children?: Children, cls?: string}} props
 */
export function Th({ name, sort, children, cls }) {
  const order = sort === name ? "ascending" : sort === `-${name}` ? "descending" : undefined;
  const next = order === "ascending" ? `-${name}` : order === "descending" ? "" : name;
  return html`<th class=${cls} scope="col" aria-sort=${order}><button type="button" onClick=${() => setQuery({ sort: next }, { replace: true })}>${children}${order && html`<${Icon} name=${order === "ascending" ? "up" : "down"} cls="sorted" />`}</button></th>`;
}

/** Rows sorted by a column, or as they are. @template T @param {T[]} rows @param {string} sort @param {Record<string, (row: T) => string | number>} keys */
export function sorted(rows, sort, keys) {
  const key = keys[sort.replace(/^-/, "")];
  if (!key) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
}

/** Filters as links: counts by state. @param {{shares: Share[], value: string, name?: string, end?: Children}} props */
export const Legend = ({ shares, value, name = "state", end }) =>
  html`<div class="legend">
    ${barOrder(shares).map((share) => {
      const on = value === share.name;
      return html`<a class=${share.look.tone} href=${withQuery({ [name]: on ? "" : share.name })} aria-current=${on ? "true" : undefined} title=${share.name}><${Icon} name=${share.look.icon} cls=${share.look.spin ? "spin" : ""} /><span><b>${count(share.count)}</b> ${lower(share.look.word)}</span></a>`;
    })}${end && html`<span class="end">${end}</span>`}
  </div>`;

/** @param {{tone?: string, icon?: string, children?: Children, action?: Children}} props */
export const Note = ({ tone = "late", icon = "late", children, action }) =>
  html`<div class=${`note ${tone}`} role="status"><${Icon} name=${icon} /><p class="grow">${children}</p>${action}</div>`;

/** One sentence and one thing to do. @param {{children?: Children}} props */
export const Empty = ({ children }) => html`<div class="empty"><p>${children}</p></div>`;

/** In the place of the content. @param {{error: unknown, what: string, onRetry?: () => void, children?: Children}} props */
export function Failure({ error, what, onRetry, children }) {
  const body = error instanceof ApiError ? error.body : { reason: "Error", message: String(error) };
  return html`<div class="empty" role="alert"><h2>${what}</h2><p>${body.message}</p><p class="faint mono">${body.reason}</p>
    <p class="tools">${onRetry && html`<button type="button" class="btn" onClick=${onRetry}>Try again</button>`}${children}</p></div>`;
}

/** @param {{label: string, children?: Children}} props */
export const Scroll = ({ label, children }) => html`<div class="scroll-x" tabindex="0" role="region" aria-label=${label}>${children}</div>`;

/** @param {{facts: [string, Children][]}} props */
export const Facts = ({ facts }) =>
  html`<dl class="facts">${facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

/** @param {{title: string, side?: Children, children?: Children}} props */
export const Panel = ({ title, side, children }) => html`<section class="panel"><h2>${title}${side && html`<span>${side}</span>`}</h2>${children}</section>`;

/**
 * A question about what starts or stops commands. Focus begins on the harmless button.
 *
 * @param {{title: string, onClose: () => void, children?: Children, label?: string, wide?: boolean}} props
 */
export function Dialog({ title, onClose, children, wide }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    /** @type {HTMLElement | null | undefined} */ (dialog.current?.querySelector("[data-first]"))?.focus();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const onBackdrop = (/** @type {MouseEvent} */ event) => {
    if (event.target === dialog.current) onClose();
  };
  // A browser may close it whatever we say; one that has to be answered comes back.
  const onClosed = () => {
    onClose();
    setTimeout(() => dialog.current?.isConnected && !dialog.current.open && dialog.current.showModal(), 50);
  };
  return html`<dialog ref=${dialog} class=${wide ? "wide-dialog" : ""} aria-labelledby="dialog-title" onClick=${onBackdrop} onCancel=${(/** @type {Event} */ event) => (event.preventDefault(), onClose())} onClose=${onClosed}>
    <div class="dialog"><h1 id="dialog-title">${title}</h1>${children}</div></dialog>`;
}

/** @param {{title: string, text: Children, keep: string, act: string, onClose: () => void, onAct: () => void, error?: string, busy?: boolean, children?: Children}} props */
export const Confirm = ({ title, text, keep, act, onClose, onAct, error, busy, children }) =>
  html`<${Dialog} title=${title} onClose=${onClose}><p>${text}</p>${children}${error && html`<p class="bad" role="alert">${error}</p>`}
    <p class="tools end"><button type="button" class="btn" data-first onClick=${onClose}>${keep}</button><button type="button" class="btn solid" disabled=${busy} onClick=${onAct}>${act}</button></p></${Dialog}>`;

/** The width of an element, as it is. @returns {[{current: HTMLElement | null}, number]} */
export function useWidth() {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    if (element.current) watcher.observe(element.current);
    return () => watcher.disconnect();
  }, []);
  return [element, width];
}

/** Title of the window. @param {string} text */
export function useTitle(text) {
  useEffect(() => {
    document.title = `${text} · Sentinel Node`;
  }, [text]);
}

/** `j` and `k` walk the links of the rows of a table; `Enter` is the browser's. @param {number} step */
export function walk(step) {
  const links = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("main tbody a.name")]);
  const at = links.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step))]?.focus();
}

export const rowKeys = [
  { key: "j", does: "Next row", run: () => walk(1) },
  { key: "k", does: "Previous row", run: () => walk(-1) },
];

/** `[` and `]` go to the neighbour of the current tab. @param {number} step */
export function turnTab(step) {
  const tabs = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".tabs a")]);
  const at = tabs.findIndex((tab) => tab.hasAttribute("aria-current"));
  tabs[(at + step + tabs.length) % tabs.length]?.click();
}

export const tabKeys = [
  { key: "[", does: "Previous tab", run: () => turnTab(-1) },
  { key: "]", does: "Next tab", run: () => turnTab(1) },
];

/** @param {string} text @param {(said: string) => void} say */
export async function copy(text, say) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser did not allow copying.");
  }
}

/** A state in a small cell. @param {{state: string, x: number, y: number, size: number}} props */
export function Cell({ state, x, y, size }) {
  const { tone } = look(state);
  return html`<g class=${tone} transform=${`translate(${x} ${y}) scale(${size / 10})`}>${SHAPES[tone]()}</g>`;
}

/** Told apart by outline too. @type {Record<string, () => Children>} */
const SHAPES = {
  ok: () => html`<rect class="calm-cell" width="10" height="10" rx="1.5" />`,
  run: () => html`<rect class="open-cell" x=".75" y=".75" width="8.5" height="8.5" rx="1" /><path class="solid-cell" d="M1 9 9 1v8z" />`,
  bad: () => html`<rect class="solid-cell" x="-.5" y="-.5" width="11" height="11" rx="1.5" /><path class="cell-cut" d="m2.6 2.6 4.8 4.8m0-4.8-4.8 4.8" />`,
  late: () => html`<rect class="solid-cell" width="10" height="10" rx="1.5" /><path class="cell-cut" d="M2.5 5h5" />`,
  lost: () => html`<rect class="open-cell" x=".75" y=".75" width="8.5" height="8.5" rx="1" /><path class="cell-pen" d="m3.2 3.2 3.6 3.6m0-3.6L3.2 6.8" />`,
  off: () => html`<rect class="solid-cell" x="3.2" y="3.2" width="3.6" height="3.6" rx="1.8" />`,
};
