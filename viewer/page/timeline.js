// When each target ran: above, those that did not succeed, by name; below, all in the order of their start.

import { useMemo } from "./vendor/hooks.js";
import { html } from "./html.js";
import { at, clock, plural, span } from "./format.js";
import { hasEnded, isProblem, look, stateText } from "./states.js";
import { executionPath } from "./address.js";
import { cut } from "./names.js";
import { Icon, Panel, useWidth } from "./parts.js";
import { go } from "./route.js";
import { now } from "./live.js";

/** @typedef {import("./types.js").Execution} Execution */

/** Below this there is no room for the words of states. */
const NARROW = 640;
/** Most named lanes. */
const MOST = 60;
/** Height of all bars together, at most. */
const TALL = 560;

/** Steps of the axis, ms. */
const STEPS = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 86_400_000];

/** @param {{items: Execution[], run?: import("./types.js").RunStatus | null, ns: string, name: string, number: number}} props */
export function Timeline({ items, run, ns, name, number }) {
  const active = items.some((one) => !hasEnded(one.state));
  const time = active ? now.value : 0;
  const { from, to, ordered } = useMemo(() => extent(items, run, time), [items, run, time]);
  const problems = items.filter((one) => isProblem(one.state));
  const open = (/** @type {Execution} */ one) => go(executionPath(ns, name, number, one.node));
  const [area, width] = useWidth();
  if (ordered.length === 0) return html`<p class="soft tools">No command has started.</p>`;
  const scale = { from, to, width: Math.max(width, 200), names: width < NARROW ? 100 : 210 };
  return html`<div ref=${area}></div>${problems.length > 0 && html`<${Panel} title=${`${plural(problems.length, "node")} that did not succeed`} side="the latest attempt is a bar"><${Named} items=${problems.slice(0, MOST)} scale=${scale} onOpen=${open} time=${time} /></${Panel}>`}
    <${Panel} title=${items.length === 1 ? "The node" : `All ${plural(items.length, "node")} in the order of their start`} side=${html`<span class="legend"><span class="off"><${Icon} name="waiting" />waiting</span><span class="run"><${Icon} name="running" />running</span><span class="ok"><${Icon} name="ok" />ended</span></span>`}>
      <${All} items=${ordered} scale=${scale} time=${time} onOpen=${open} waiting=${items.length - ordered.length} /></${Panel}>`;
}

/** @typedef {{from: number, to: number, width: number, names: number}} Scale */

/** @param {Execution[]} items @param {import("./types.js").RunStatus | null | undefined} run @param {number} time */
function extent(items, run, time) {
  const ordered = items.filter((one) => one.startedAt).sort((a, b) => at(a.startedAt) - at(b.startedAt));
  let from = at(run?.startedAt);
  let to = time;
  for (const one of ordered) {
    // Clocks of nodes differ: a bar may begin before its Run.
    if (Number.isNaN(from) || at(one.startedAt) < from) from = at(one.startedAt);
    to = Math.max(to, at(one.endedAt) || at(one.startedAt));
  }
  return { from, to: Math.max(to, from + 10), ordered };
}

/** @param {number} ms @param {Scale} scale @param {number} left */
const place = (ms, { from, to, width }, left) => left + ((ms - from) / (to - from)) * (width - left - 2);

/** @param {Execution} one @param {number} time */
const endOf = (one, time) => at(one.endedAt) || (hasEnded(one.state) ? at(one.startedAt) : time);

/** @param {{items: Execution[], scale: Scale, onOpen: (one: Execution) => void, time: number}} props */
function Named({ items, scale, onOpen, time }) {
  const { names } = scale;
  return html`<svg class="lanes" viewBox=${`0 0 ${scale.width} ${items.length * 18 + 6}`} role="list" aria-label="Nodes that did not succeed">
    ${items.map((one, index) => {
      const y = index * 18 + 5;
      const { icon, tone } = look(one.state);
      const start = place(at(one.startedAt) || scale.from, scale, names);
      const width = one.startedAt ? Math.max(2, place(endOf(one, time), scale, names) - start) : 0;
      return html`<g role="listitem" key=${one.node}><g class="lane" role="link" tabindex="0" onClick=${() => onOpen(one)} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Enter" && onOpen(one)}>
        <title>${`${one.node}, ${stateText(one)}${one.durationMs != null ? `, ${span(one.durationMs)}` : ""}`}</title>
        <rect class="hit" x="0" y=${y - 3} width=${scale.width} height="18" /><text aria-hidden="true" class="mono" x="0" y=${y + 10}>${cut(one.node, 11)}</text><svg class=${`i ${tone}`} x="80" y=${y - 1} width="13" height="13"><${Icon} name=${icon} /></svg>${names > 150 && html`<text aria-hidden="true" x="100" y=${y + 10}>${stateText(one)}</text>`}
        ${start > names && html`<rect class="wait" x=${names} y=${y + 4} width=${start - names} height="3" />`}${width > 0 && html`<rect class=${tone} x=${start} y=${y} width=${width} height="11" rx="1" />`}</g></g>`;
    })}</svg>`;
}

/** @param {{items: Execution[], scale: Scale, time: number, onOpen: (one: Execution) => void, waiting: number}} props */
function All({ items, scale, time, onOpen, waiting }) {
  const pitch = Math.max(1, Math.min(18, Math.floor((TALL / items.length) * 2) / 2));
  // Where there are more bars than pixels, one stands for several, and the worst of them is seen.
  const per = Math.max(1, Math.ceil(items.length / (TALL / pitch)));
  const bars = [];
  for (let index = 0; index < items.length; index += per) {
    const group = items.slice(index, index + per);
    const worst = group.reduce((a, b) => (look(b.state).rank < look(a.state).rank ? b : a));
    bars.push({ one: worst, from: Math.min(...group.map((one) => at(one.startedAt))), to: Math.max(...group.map((one) => endOf(one, time))), count: group.length });
  }
  const left = pitch >= 18 ? scale.names : 0;
  const height = bars.length * pitch;
  const step = STEPS.find((ms) => (scale.to - scale.from) / ms <= scale.width / 120) ?? STEPS[STEPS.length - 1];
  const ticks = Array.from({ length: Math.floor((scale.to - scale.from) / step) + 1 }, (_, index) => index * step);
  const bar = Math.max(0.8, pitch * (pitch > 4 ? 0.7 : 0.82));
  return html`<svg class="lanes" viewBox=${`0 0 ${scale.width} ${height + 28}`} role="img" aria-label=${`${plural(items.length, "bar")}, one for each node in the order of their start`}>
    ${ticks.map((ms) => {
      const x = place(scale.from + ms, scale, left);
      return html`<path class="grid" d=${`M${x.toFixed(1)} 20V${height + 26}`} />${x < scale.width - 60 && html`<text x=${x + 4} y="12">${ms === 0 ? clock(scale.from) : `+${span(ms).replace(" s", "s").replace(" ms", "ms")}`}</text>`}`;
    })}
    ${bars.map(({ one, from, to, count }, index) => {
      const y = 24 + index * pitch;
      const x = place(from, scale, left);
      return html`<g class="lane" key=${one.node} onClick=${() => onOpen(one)}><title>${count > 1 ? `${one.node} and ${count - 1} more, ${stateText(one)}` : `${one.node}, ${stateText(one)}`}</title>
        <rect class="hit" x="0" y=${y} width=${scale.width} height=${pitch} />${left > 0 && html`<text class="mono" x="0" y=${y + 12}>${cut(one.node, left > 150 ? 28 : 13)}</text>`}
        ${x - left > 1 && html`<rect class="wait" x=${left} y=${y + bar / 3} width=${x - left} height=${bar / 3} />`}<rect class=${look(one.state).tone} x=${x} y=${y} width=${Math.max(1.5, place(to, scale, left) - x)} height=${bar} rx=${pitch > 6 ? 1 : 0} /></g>`;
    })}
    ${time > 0 && html`<path class="now" d=${`M${place(time, scale, left).toFixed(1)} 20V${height + 26}`} />`}</svg>
    ${waiting > 0 && html`<p class="faint">${plural(waiting, "node")} not started.</p>`}`;
}
