// The tools above the rows of a log, and what they ask.

import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { signal } from "./vendor/signals.js";
import { html } from "./html.js";
import { clock, coarse, count, full, sameDay } from "./format.js";
import { Dialog, Icon, Note } from "./parts.js";
import { now } from "./live.js";
import { here, setQuery } from "./route.js";
import { MAP, marksOf, nearestHit } from "./scroll.js";

/** @typedef {import("./log-search.js").LogSearch} LogSearch */
/** @typedef {import("./log-search.js").Hits<any>} Hits */

/** Sizes of the text, px. */
const SIZES = [11, 12, 13, 15];

/** The size that this reader wants. */
export const size = signal(stored());

function stored() {
  try {
    return Math.max(0, SIZES.indexOf(Number(localStorage.getItem("logSize") ?? 12)));
  } catch {
    return 1;
  }
}

/** @param {number} by */
export function resize(by) {
  size.value = Math.min(SIZES.length - 1, Math.max(0, size.peek() + by));
  try {
    localStorage.setItem("logSize", String(SIZES[size.peek()]));
  } catch {
    // Only for this visit.
  }
}

export const Sizes = () => html`<span class="seg" role="group" aria-label="Size of the text">${/** @type {[string, number, string][]} */ ([["A−", -1, "Smaller"], ["A+", 1, "Larger"]]).map(([text, by, label]) => html`<button type="button" aria-label=${`${text}: ${label.toLowerCase()} text`} title=${`${label} (${by < 0 ? "-" : "+"})`} disabled=${size.value === (by < 0 ? 0 : SIZES.length - 1)} onClick=${() => resize(by)}>${text}</button>`)}</span>`;

/** @param {{find: Hits | null, hit: unknown, onStep: (by: number) => void, where?: string}} props `where` follows the number of hits */
export function Find({ find, hit, onStep, where = "" }) {
  const { q = "" } = here.value.query;
  const [text, setText] = useState(q);
  useEffect(() => setText(q), [q]);
  find?.version.value;
  const apply = () => setQuery({ q: text }, { replace: true });
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (text === q) onStep(event.shiftKey ? -1 : 1);
    else apply();
  };
  const some = find && find.hits.length > 0;
  const at = find && hit ? `${count(find.indexOf(hit) + 1)} of ` : "";
  const said = !find || find.wrong ? "" : `${some ? at + count(find.hits.length) + where : find.complete ? "none" : ""}${find.complete ? "" : ` so far, ${Math.round(find.progress * 100)}%`}`;
  return html`<div class="field re find" role="search"><${Icon} name="find" /><label class="sr" for="filter">Search with a regular expression</label>
    <input id="filter" value=${text} placeholder="Search" spellcheck=${false} autocomplete="off" aria-invalid=${find?.wrong ? "true" : undefined} aria-describedby="find-said" onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} onKeyDown=${onKey} onBlur=${() => text !== q && apply()} />
    <span class="faint" id="find-said" role="status">${said}</span>${some && html`<button type="button" class="btn quiet square" aria-label="Previous hit" onClick=${() => onStep(-1)}><${Icon} name="up" /></button><button type="button" class="btn quiet square" aria-label="Next hit" onClick=${() => onStep(1)}><${Icon} name="down" /></button>`}
    ${find?.wrong && html`<span class="error find-wrong" role="alert"><${Icon} name="failed" />${find.wrong}</span>`}</div>`;
}

/** Where the hits are in the log, and what of it is on the screen. @param {{find: LogSearch, source: import("./log-source.js").LogSource, range: {from: number, to: number}, hit: import("./log-search.js").Hit | undefined, onHit: (hit: import("./log-search.js").Hit) => void}} props */
export function Minimap({ find, source, range, hit, onHit }) {
  const { extent, base } = source;
  const scale = MAP / Math.max(1, extent);
  const marks = marksOf(find.hits.map(({ line }) => line - base + 1), extent);
  const onPoint = (/** @type {PointerEvent} */ event) => {
    if (event.buttons !== 1 || find.hits.length === 0) return;
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    const at = find.hits[nearestHit((event.clientY - box.top) / box.height, extent, find.hits, base)];
    if (at !== hit) onHit(at);
  };
  const label = find.hits.length === 0 ? "No hit yet" : `Where the ${count(find.hits.length)} hits are: n and N go through them`;
  return html`<svg class="minimap" viewBox=${`0 0 20 ${MAP}`} preserveAspectRatio="none" role="img" aria-label=${label} onPointerDown=${onPoint} onPointerMove=${onPoint}>
    <path class="hits" d=${marks.map((y) => `M3 ${y}h14`).join("")} />${hit && html`<path class="now" d=${`M0 ${marksOf([hit.line - base + 1], extent)[0]}h20`} />`}
    <rect class="window" x="1" width="18" y=${((range.from - 1) * scale).toFixed(1)} height=${Math.max(4, (range.to - range.from + 1) * scale).toFixed(1)} /></svg>`;
}

/** A time as people write it: `12:03`, `12:03:01.5` of the day of the Run, or the whole. @param {string} text @param {number} day @returns {string | null} in RFC 3339 */
export function timeOf(text, day) {
  const short = /^(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,3}))?)?$/.exec(text.trim());
  const date = new Date(Number.isNaN(day) ? Date.now() : day);
  if (short) date.setHours(Number(short[1]), Number(short[2]), Number(short[3] ?? 0), Number((short[4] ?? "0").padEnd(3, "0")));
  else if (/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(text.trim())) date.setTime(Date.parse(text.trim()));
  else return null;
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}

const WRONG = "Write a time, such as 12:03:01, or with the day: 2026-11-28 12:03:01.";

/** @param {{onClose: () => void, onLine?: (line: number) => void, onTime: (since: string) => void, day: number}} props */
export function GoTo({ onClose, onLine, onTime, day }) {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const line = onLine && /^[\d,]+$/.test(text.trim()) ? Number(text.replace(/\D/g, "")) : 0;
    const time = timeOf(text, day);
    if (line > 0) onLine?.(line);
    else if (time) onTime(time);
    else return setWrong(onLine ? "Write a number, such as 3,920, or a time, such as 12:03:01." : WRONG);
    onClose();
  };
  const name = onLine ? "Line or time" : "Time";
  return html`<${Dialog} title="Go to" onClose=${onClose}><form class="goto" onSubmit=${submit}><label class="field"><span class="sr">${name}</span><input data-first value=${text} placeholder=${name} aria-invalid=${wrong ? "true" : undefined} onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)} /></label>
    ${wrong && html`<p class="bad" role="alert">${wrong}</p>`}<p class="tools end"><button type="button" class="btn" onClick=${onClose}>Close</button><button type="submit" class="btn solid">Go</button></p></form></${Dialog}>`;
}

/** @param {string | undefined} text */
const timeText = (text) => {
  const ms = Date.parse(text ?? "");
  if (Number.isNaN(ms)) return "";
  return sameDay(ms, Date.now()) ? clock(ms) : full(ms).slice(0, 19);
};

/** `since 12:03:01`. */
export function rangeText() {
  const { since, until } = here.value.query;
  const [from, to] = [timeText(since), timeText(until)];
  return from && to ? `${from} – ${to}` : from ? `since ${from}` : to ? `until ${to}` : "";
}

/** The times between which the log is shown. They are in the address. @param {{onClose: () => void, day: number}} props */
export function Times({ onClose, day }) {
  const { since, until } = here.value.query;
  const [from, setFrom] = useState(timeText(since));
  const [to, setTo] = useState(timeText(until));
  const [wrong, setWrong] = useState("");
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const times = [from, to].map((text) => (text.trim() === "" ? "" : timeOf(text, day)));
    if (times.includes(null)) return setWrong(WRONG);
    if (times[0] && times[1] && Date.parse(times[0]) >= Date.parse(times[1])) return setWrong("The second time has to be later than the first.");
    setQuery({ since: times[0], until: times[1], at: "", to: "" });
    onClose();
  };
  const field = (/** @type {string} */ name, /** @type {string} */ value, /** @type {(text: string) => void} */ set, first = false) =>
    html`<label>${name}<span class="field"><input data-first=${first || undefined} value=${value} placeholder="12:03:01" onInput=${(/** @type {any} */ event) => set(event.currentTarget.value)} /></span></label>`;
  return html`<${Dialog} title="Times" onClose=${onClose}><form class="goto" onSubmit=${submit}><p>By the clock of the node, of the day of the Run unless a day is given.</p>${field("Since", from, setFrom, true)}${field("Until", to, setTo)}
    ${wrong && html`<p class="bad" role="alert">${wrong}</p>`}<p class="tools end"><button type="button" class="btn" onClick=${() => (setQuery({ since: "", until: "" }), onClose())}>Show all</button><button type="submit" class="btn solid">Show</button></p></form></${Dialog}>`;
}

/** @param {{onClose: () => void, files: {name: string, what: string, run: () => void}[]}} props */
export const Download = ({ onClose, files }) =>
  html`<${Dialog} title="Download" onClose=${onClose}><ul class="files">${files.map(({ name, what, run }, index) => html`<li><button type="button" class="btn" data-first=${index === 0 || undefined} onClick=${() => (onClose(), run())}><${Icon} name="save" />${name}</button> <span class="soft">${what}</span></li>`)}</ul>
    <p class="tools end"><button type="button" class="btn" onClick=${onClose}>Close</button></p></${Dialog}>`;

/** That the connection is lost, for how long, and what happens next. @param {{source: {stream: import("./vendor/signals.js").Signal<import("./api.js").EventStream | null>, away: import("./vendor/signals.js").Signal<number>, version: import("./vendor/signals.js").Signal<number>, totalLines: number}, say: (text: string) => void}} props */
export function Banner({ source, say }) {
  const stream = source.stream.value;
  const state = stream?.connection.value;
  const time = now.value && Date.now();
  const since = state && !state.live ? state.since : source.away.value;
  const lost = since > 0 && time - since > 2000;
  const before = useRef({ lost: false, lines: 0 });
  if (lost && !before.current.lost) before.current = { lost, lines: source.totalLines };
  useEffect(() => {
    if (lost || !before.current.lost) return;
    const came = source.totalLines - before.current.lines;
    before.current = { lost: false, lines: 0 };
    say(came > 0 ? `Connected again. ${count(came)} lines came meanwhile.` : "Connected again.");
  }, [lost, source.version.value]);
  if (!lost) return html`<div hidden></div>`;
  const wait = state?.retryAt ? Math.max(0, Math.ceil((state.retryAt - time) / 1000)) : 0;
  return html`<${Note} action=${html`<button type="button" class="btn" onClick=${() => stream?.retry()}>Try now</button>`}><b>Connection lost ${coarse(time - since)} ago.</b> ${wait > 0 ? `Trying again in ${wait} s.` : "Trying again now."} The command goes on, and no line will be missing here.</${Note}>`;
}
