// One row of a log. Output enters the page as text nodes only.

import { html } from "./html.js";
import { ago, clockMs, count, full, span } from "./format.js";
import { cut, mark } from "./names.js";
import { parse } from "./ansi.js";

/** @typedef {import("./types.js").Entry} Entry */
/** @typedef {import("./types.js").Line} Line */
/** @typedef {import("./ansi.js").Span} Span */
/** @typedef {import("./ansi.js").Pen} Pen */

/** What is shown is read once: rows are drawn again with every frame of a log that grows. @type {WeakMap<Entry, {spans: Span[], pen: Pen, text: string}>} */
const known = new WeakMap();

/** @param {Line} line @param {Entry} [before] the part before it, whose colours go on @returns {{spans: Span[], pen: Pen, text: string}} */
function look(line, before) {
  const found = known.get(line);
  if (found && found.text === line.text) return found;
  const start = line.continues && before && "text" in before && before.node === line.node ? look(before).pen : undefined;
  const made = { ...parse(line.text, start), text: line.text };
  known.set(line, made);
  return made;
}

/** @param {number} ms since the start of the Run */
function sinceStart(ms) {
  const sign = ms < 0 ? "−" : "+";
  const all = Math.abs(ms) / 1000;
  const minutes = Math.floor(all / 60);
  return `${sign}${minutes > 0 ? `${minutes}:` : ""}${(all % 60).toFixed(3).padStart(minutes > 0 ? 6 : 5, "0")}`;
}

/** @param {number} ms @param {string} kind @param {number} start @param {number} now */
function timeText(ms, kind, start, now) {
  if (kind === "ago") return ago(now - ms);
  return kind === "start" ? sinceStart(ms - start) : clockMs(ms);
}

/** Drawn here: a part of the sprite is there only after the frame in which a row that follows may be gone again. @param {{path: string}} props */
const Glyph = ({ path }) => html`<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=${path} /></svg>`;
const TURN = "m6 3.5 4.5 4.5L6 12.5";
const WARN = "M8 1.5 15 14.2H1zM8 6v3.6m0 2.2v.1";

/** The spans with one stretch of their text marked. @param {Span[]} spans @param {string} match @param {string} cls @returns {any} */
function withMark(spans, match, cls) {
  const from = spans.map((span) => span.text).join("").indexOf(match);
  if (match === "" || from < 0) return html`<mark class=${cls}><${Spans} spans=${spans} /></mark>`;
  const parts = /** @type {[Span[], Span[], Span[]]} */ ([[], [], []]);
  let at = 0;
  for (const span of spans) {
    const cuts = [0, from - at, from + match.length - at, span.text.length].map((cut) => Math.min(span.text.length, Math.max(0, cut)));
    parts.forEach((part, index) => cuts[index] < cuts[index + 1] && part.push({ ...span, text: span.text.slice(cuts[index], cuts[index + 1]) }));
    at += span.text.length;
  }
  return html`<${Spans} spans=${parts[0]} /><mark class=${cls}><${Spans} spans=${parts[1]} /></mark><${Spans} spans=${parts[2]} />`;
}

/** @param {{spans: Span[]}} props */
const Spans = ({ spans }) => spans.map(({ text, cls, title }) => (title ? html`<span class="ctl" title=${title}>${text}</span>` : cls ? html`<span class=${cls}>${text}</span>` : text));

/** A name beside its mark. @param {{name: string}} props */
export const Who = ({ name }) => html`<span class=${`who ${mark(name)}`} title=${name}><span>${cut(name, 10)}</span></span>`;

/**
 * @param {{entry: Entry, before?: Entry, time: string, start: number, now: number, marked?: boolean, link?: string, total?: number, ordinal?: number, id?: string, who?: boolean, late?: boolean,
 *   head?: import("./log-groups.js").Head | null, onFold?: () => void, hit?: string, isNow?: boolean}} props
 */
export function Row({ entry, before, time, start, now, marked, link, total, ordinal, id, who, late, head, onFold, hit, isNow }) {
  const ms = entry.atMicros === undefined ? null : entry.atMicros / 1000;
  const when = ms === null ? html`<time></time>` : html`<time title=${full(ms)}>${timeText(ms, time, start, now)}</time>`;
  const current = marked ? "true" : undefined;
  const node = who && html`<${Who} name=${entry.node ?? ""} />`;
  if (!("text" in entry)) {
    return html`<li class="ours gap lost" id=${id} aria-current=${current} data-position=${entry.position}><span class="n"></span>${node}${when}<span></span><span class="t"><${Glyph} path=${WARN} />${count(entry.dropped)} bytes dropped here: ${entry.reason}</span></li>`;
  }
  const number = entry.continues ? html`<span class="n" title=${`Line ${entry.line} goes on`}>⋯</span>` : link ? html`<a class="n" href=${link} aria-label=${`Link to line ${count(entry.line)}`}>${count(entry.line)}</a>` : html`<span class="n">${count(entry.line)}</span>`;
  const stream = entry.stream === "stderr" ? html`<abbr class="e" title="stderr">e</abbr>` : html`<span></span>`;
  const body = head
    ? html`<button type="button" class=${`t fold-line ${head.open ? "open" : ""}`} aria-expanded=${String(head.open)} onClick=${onFold}><${Glyph} path=${TURN} /><b>${head.title || "group"}</b> <small>${count(head.lines)} lines${head.ms > 0 ? `, ${span(head.ms)}` : ""}</small></button>`
    : html`<span class="t">${hit === undefined ? html`<${Spans} spans=${look(entry, before).spans} />` : withMark(look(entry, before).spans, hit, isNow ? "now" : "")}${entry.open && html`<span class="open-end" title="The end of this line is not there yet">…</span>`}</span>`;
  return html`<li id=${id} class=${head ? "group" : late ? "late-line" : ""} title=${late ? "It came after lines that were written later" : undefined} aria-current=${current} aria-posinset=${ordinal ?? entry.line} aria-setsize=${total} data-position=${entry.position}>${number}${node}${when}${stream}${body}</li>`;
}
